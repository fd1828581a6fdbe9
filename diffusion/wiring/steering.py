"""What guidance leans on besides the config, and the refusal of what a model cannot follow."""

import dataclasses
import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from diffusion import config as configs
from diffusion.wiring import levels as noise
from diffusion.wiring import schema


@dataclasses.dataclass(frozen=True)
class Steering:
    """What one call's guidance leans on besides the config; conditions are dicts of [...], alike for all its images.

    negative: the condition to move away from, in place of the null one; also: further conditions, and scales: theirs;
    weak: the experiment of the weaker model of autoguidance; log_prob: (x, sigma: [B]) -> [B] of a classifier, whose
    gradient is added push times (see `guidance.classifier`).
    """

    negative: dict | None = None
    also: tuple[dict, ...] = ()
    scales: tuple[float, ...] = ()
    weak: Any = None
    log_prob: Callable | None = None
    push: float = 1.0

    def arrays(self, run) -> dict:
        """What `sampling` takes as `beside`, but for the weaker model's parameters."""
        null = run.null if self.negative is None else self.negative
        # numpy, so that every process of a pod can place it.
        null, also = jax.tree.map(np.asarray, (null, self.also))
        return {
            'null': null,
            'also': also,
            'scales': np.asarray(self.scales, np.float32),
            'push': np.float32(self.push),
        }


UNSTEERED = Steering()
_WORDS = {'label': 'label', 'tokens': 'text'}


def check_guidance(config, known, null, train, steering):
    """Refuses guidance that this model cannot follow, and what would have no effect."""
    values = config['guidance']
    name, scale = values['name'], values.get('scale', 1.0)
    limits = config.get('threshold', {}).get('name', 'none')
    if limits != 'none' and known.dtype != 'uint8':
        raise configs.ConfigError(
            f'config.threshold.name={limits}: a threshold is for pictures in [-1, 1], these data are numbers of any '
            'size: leave it out'
        )
    if not math.isfinite(scale):
        raise configs.ConfigError(f'guidance {scale}: a finite number is wanted')
    if name == 'auto' and not steering.weak:
        raise configs.ConfigError(
            'guidance auto is held against a weaker model: draw with --guide-step=N (an earlier checkpoint) or '
            '--guide-workdir=DIR; a training run has none, choose another config.guidance.name for it'
        )
    if name != 'auto' and steering.weak:
        raise configs.ConfigError(f'a weaker model is for --config.guidance.name=auto, not for {name}: leave out one')
    if name == 'auto' and (steering.negative or steering.also):
        raise configs.ConfigError(
            'autoguidance compares two models under one condition: leave out --negative-prompt and --and, or the '
            'weaker model'
        )
    if name != 'classifier_free' and steering.also:
        raise configs.ConfigError(f'several conditions (--and) need --config.guidance.name=classifier_free, not {name}')
    if scale == 1 and not steering.also:
        _check_idle(name, values, steering)
    elif name != 'auto':
        _check_null(scale, null, train, steering)


def _check_idle(name, values, steering):
    defaults = inspect.signature(schema.SCHEMA['guidance'].constructors[name]).parameters
    idle = [f'config.guidance.{key}' for key in defaults if key != 'scale' and values[key] != defaults[key].default]
    idle += ['a negative prompt'] if steering.negative else []
    idle += ['a weaker model'] if steering.weak else []
    if idle:
        raise configs.ConfigError(f'{idle[0]} has no effect at guidance 1: add --guidance=2, say, or leave it out')


def _check_null(scale, null, train, steering):
    if not null:
        raise configs.ConfigError(
            f'guidance {scale}: this model has no condition to be guided by; use --guidance=1, or autoguidance '
            '(--guide-step)'
        )
    # A negative prompt stands in for the text alone.
    gone = null if steering.negative is None else set(null) - {'tokens'}
    kept = [_WORDS[name] for name in train.never_without(null) if name in gone]
    if kept:
        raise configs.ConfigError(
            f'guidance {scale} needs a model trained with condition dropout (train.cond_dropout, e.g. 0.1), this one '
            f'was never without its {" and its ".join(kept)}: use --guidance=1, or autoguidance (--guide-step)'
        )


def check_reach(config, forward, weak):
    """Refuses noise levels of guidance that no step of the grid comes near."""
    values = config['guidance']
    if not weak and not any(values.get(key) for key in ('sigma_low', 'sigma_high', 'zero_above')):
        return
    levels = np.asarray(noise.levels(config, forward))[:-1]
    high, low, span = levels.max(), levels.min(), f'the grid goes from sigma {levels.max():g} to {levels.min():g}'
    if values.get('sigma_low', 0) >= 0.999 * high or 0 < values.get('sigma_high', 0) < low:
        raise configs.ConfigError(
            f'config.guidance: no step lies between sigma_low={values["sigma_low"]:g} and '
            f'sigma_high={values["sigma_high"]:g}: {span}'
        )
    if values.get('zero_above') and not low <= values['zero_above'] < 0.999 * high:
        raise configs.ConfigError(
            f'config.guidance.zero_above={values["zero_above"]:g} zeroes every step or none: {span}'
        )
    if weak and weak.process.nsr_range()[1] < 0.999 * high:
        raise configs.ConfigError(
            f'the weaker model was trained up to sigma {weak.process.nsr_range()[1]:g}, {span}: choose another'
        )
