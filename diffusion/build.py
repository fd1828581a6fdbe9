"""The wiring: the only code that reads a config, and the only place where the rooms meet."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import config as configs
from diffusion.core import (
    adaptive,
    chain,
    density,
    discrete,
    grids,
    guidance,
    loss,
    multistep,
    ode,
    precond,
    process,
    randomness,
    samplers,
    stochastic,
    threshold,
    uncertainty,
    variance,
    weighting,
)
from diffusion.data import sources, tokens
from diffusion.nets import condition, dit, functional, mlp, unet
from diffusion.runtime import ema, optimizer


@dataclasses.dataclass(frozen=True)
class Train:
    """batch: images a step over all devices and hosts; cond_dropout: share of examples trained without their
    condition, what guidance needs; labels: whether class labels are a condition; uncertainty: whether each noise level
    counts by the inverse of its learned loss (`core.uncertainty`); adaptive: bins of noise levels that are drawn by
    their loss (`core.adaptive`), 0: drawn as the density says; variance_steps: levels of the chain whose reverse
    variance is learned for sampler.learned (`core.variance`), 0: not learned; *_every: in steps; keep: newest
    checkpoints kept."""

    steps: int = 1000
    batch: int = 64
    seed: int = 0
    cond_dropout: float = 0.0
    labels: bool = True
    uncertainty: bool = False
    adaptive: int = 0
    variance_steps: int = 0
    log_every: int = 50
    save_every: int = 1000
    keep: int = 2

    def __post_init__(self):
        for key in ('steps', 'batch', 'log_every', 'save_every', 'keep'):
            if getattr(self, key) < 1:
                raise ValueError(f'{key}={getattr(self, key)}: must be at least 1')
        if not 0 <= self.cond_dropout < 1:
            raise ValueError(f'cond_dropout={self.cond_dropout}: must be in [0, 1)')
        if self.adaptive < 0 or self.adaptive == 1:
            raise ValueError(f'adaptive={self.adaptive}: a number of bins, at least 2, or 0 for none')
        if self.variance_steps < 0 or self.variance_steps == 1:
            raise ValueError(f'variance_steps={self.variance_steps}: steps of a chain, at least 2, or 0 for none')


@dataclasses.dataclass(frozen=True)
class Sample:
    """How samples are drawn where nothing else is said: network steps, and images a call."""

    steps: int = 18
    batch: int = 64

    def __post_init__(self):
        if self.steps < 1 or self.batch < 1:
            raise ValueError('steps and batch must be at least 1')


@dataclasses.dataclass(frozen=True)
class Preview:
    """Sheets of samples from fixed seeds, every `every` steps (0: only at the end) and at the end.

    num: pictures on a sheet; unseen: prompts besides, that the set does not hold; match: how many captions are
    drawn at the end to measure the share whose nearest training image carries the caption (0: not measured).
    """

    every: int = 0
    num: int = 36
    unseen: tuple[str, ...] = ()
    match: int = 0

    def __post_init__(self):
        if self.num < 1 or self.every < 0 or self.match < 0:
            raise ValueError('num must be at least 1, every and match at least 0')


@dataclasses.dataclass(frozen=True)
class Runtime:
    """platform: 'auto', 'cpu', 'gpu' or 'tpu'; devices: 0 for all, on a CPU one a core; fsdp: over how many devices
    parameters are split. Where a run computes, not what: it may change from start to start."""

    platform: str = 'auto'
    devices: int = 0
    fsdp: int = 1


def _named(*modules):
    return {name: getattr(module, name) for module in modules for name in module.__all__}


_DERIVED = frozenset({'channels', 'outputs', 'classes', 'vocabulary', 'length', 'rngs'})

SCHEMA = {
    'data': configs.Section(_named(sources)),
    'text': configs.Section(_named(tokens), frozenset({'captions'}), optional=True),
    'process': configs.Section(_named(process, discrete)),
    'precond': configs.Section(_named(precond)),
    'density': configs.Section(_named(density)),
    'weighting': configs.Section(_named(weighting), optional=True),
    'net': configs.Section(_named(unet, dit, mlp), _DERIVED),
    'optimizer': configs.Section(_named(optimizer)),
    'ema': configs.Section({'': ema.EMA}),
    'train': configs.Section({'': Train}),
    'sampler': configs.Section(_named(samplers, multistep, stochastic, ode)),
    'grid': configs.Section(_named(grids)),
    'guidance': configs.Section(_named(guidance)),
    'threshold': configs.Section(_named(threshold), optional=True),
    'sample': configs.Section({'': Sample}),
    'preview': configs.Section({'': Preview}),
    'runtime': configs.Section({'': Runtime}),
}

# What may be chosen anew each time samples are drawn; the rest is fixed by the training.
SAMPLING = ('sampler', 'grid', 'guidance', 'threshold', 'sample', 'runtime')


@dataclasses.dataclass(frozen=True)
class Facts:
    """What follows from the data. shape: (H, W, C) of an image; classes: their names; tokenizer: None without text;
    dtype: 'uint8' for pictures in [0, 255], 'float32' for numbers that are taken as they are."""

    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    tokenizer: Any
    dtype: str
    examples: int
    fingerprint: str

    def to_json(self) -> dict:
        tokenizer = self.tokenizer.to_json() if self.tokenizer else None
        return {**dataclasses.asdict(dataclasses.replace(self, tokenizer=None)), 'tokenizer': tokenizer}


def facts_from_json(stored: dict) -> Facts:
    tokenizer = stored['tokenizer'] and tokens.from_json(stored['tokenizer'])
    return Facts(
        **{
            **stored,
            'shape': tuple(stored['shape']),
            'classes': tuple(stored['classes']),
            'tokenizer': tokenizer,
        }
    )


def resolve(path: str, overrides: list[str]) -> configs.Config:
    """The checked and completed config of a file. Raises `config.ConfigError`."""
    return override(configs.load(path), overrides)


def override(config: configs.Config, overrides: list[str]) -> configs.Config:
    """`resolve` for sections that are already read."""
    config = configs.resolve(config, overrides, SCHEMA)
    for section in set(config) - {'data', 'text', 'net'}:  # these need the data
        configs.construct(config, section, SCHEMA)
    return config


def source(config: configs.Config) -> sources.Source:
    """The training data."""
    return configs.construct(config, 'data', SCHEMA)


def facts(config: configs.Config, data: sources.Source) -> Facts:
    """What the networks must know of the data; captions are read where the config conditions on text."""
    tokenizer = None
    if 'text' in config:
        if not data.captioned:
            raise configs.ConfigError('config.text: this data set has no captions; leave the section out')
        tokenizer = configs.construct(config, 'text', SCHEMA, captions=data.captions())
    classes = tuple(data.classes) if config['train']['labels'] else ()
    return Facts(tuple(data.shape), classes, tokenizer, data.dtype, len(data), data.fingerprint)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that a config and the facts of its data define, as pure functions.

    network: with the parameters of a learned uncertainty among its own, which it does not see; denoiser: of
    `precond.denoiser`; moments: of `variance.moments`, None where no variance is learned; memory: () -> what the loss
    begins with.
    """

    config: configs.Config
    facts: Facts
    process: Any
    network: functional.Network
    denoiser: Any
    moments: Any
    null: dict
    loss: Any
    memory: Any
    optimizer: Any
    ema: ema.EMA
    train: Train
    preview: Preview

    def inputs(self, batch: dict) -> dict:
        """What the training step takes of a batch of the data: the images and the conditions in use."""
        return {name: batch[name] for name in ('image', *self.null)}

    def batch_shapes(self) -> dict:
        """Shapes and types of `inputs` for a global batch."""
        batch = self.train.batch
        image = jax.ShapeDtypeStruct((batch, *self.facts.shape), self.facts.dtype)
        cond = {k: jax.ShapeDtypeStruct((batch, *v.shape), v.dtype) for k, v in self.null.items()}
        return {'image': image, **cond}


def experiment(config: configs.Config, known: Facts) -> Experiment:
    """Wires a resolved config. Nothing is computed and no device touched but to trace shapes."""
    make = functools.partial(configs.construct, config, schema=SCHEMA)
    train = make('train')
    length = known.tokenizer.length if known.tokenizer else 0
    conditions = {'classes': len(known.classes), 'length': length}
    vocabulary = known.tokenizer.size if known.tokenizer else 0
    shape = {'channels': known.shape[-1]} | ({'outputs': 2 * known.shape[-1]} if train.variance_steps else {})
    network = functional.functional(lambda rngs: make('net', vocabulary=vocabulary, rngs=rngs, **shape, **conditions))
    network = _with_uncertainty(network) if train.uncertainty else network
    null = condition.null(**conditions)
    _check_guidance(config, known, null, train.cond_dropout, UNSTEERED)
    _check_variance(config, train)
    forward, target = make('process'), make('precond')
    _check_grid(config, forward)
    _check_reach(config, forward, None)
    denoiser = precond.denoiser(target, network.apply)
    moments = variance.moments(target, network.apply) if train.variance_steps else None
    denoising = loss.denoising(
        moments or denoiser,
        target,
        forward,
        make('density'),
        null,
        train.cond_dropout,
        weighting=make('weighting') if 'weighting' in config else None,
        adapt=bool(train.adaptive),
        uncertain=train.uncertainty,
        variance_steps=train.variance_steps,
    )

    def batch_loss(params, batch, key, memory):
        return denoising(params, loss.to_unit(batch['image']), {name: batch[name] for name in null}, key, memory)

    def memory():
        return {'adaptive': adaptive.initial(train.adaptive)} if train.adaptive else {}

    built = make('optimizer')(train.batch)
    _check_shape(network, known.shape, null)
    return Experiment(
        config,
        known,
        forward,
        network,
        (lambda *args: moments(*args)[0]) if moments else denoiser,
        moments,
        null,
        batch_loss,
        memory,
        built,
        make('ema'),
        train,
        make('preview'),
    )


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
    weak: Experiment | None = None
    log_prob: Callable | None = None
    push: float = 1.0

    def arrays(self, run: Experiment) -> dict:
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


def _check_guidance(config, known, null, cond_dropout, steering):
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
        _check_null(scale, null, cond_dropout, steering)


def _check_idle(name, values, steering):
    defaults = inspect.signature(SCHEMA['guidance'].constructors[name]).parameters
    idle = [f'config.guidance.{key}' for key in defaults if key != 'scale' and values[key] != defaults[key].default]
    idle += ['a negative prompt'] if steering.negative else []
    idle += ['a weaker model'] if steering.weak else []
    if idle:
        raise configs.ConfigError(f'{idle[0]} has no effect at guidance 1: add --guidance=2, say, or leave it out')


def _check_null(scale, null, cond_dropout, steering):
    if not null:
        raise configs.ConfigError(
            f'guidance {scale}: this model has no condition to be guided by; use --guidance=1, or autoguidance '
            '(--guide-step)'
        )
    if not cond_dropout and (steering.negative is None or 'label' in null):
        raise configs.ConfigError(
            f'guidance {scale} needs a model trained with condition dropout (train.cond_dropout, e.g. 0.1), '
            'this one was not: use --guidance=1, or autoguidance (--guide-step)'
        )


def _check_reach(config, forward, weak):
    """Refuses noise levels of guidance that no step of the grid comes near."""
    values = config['guidance']
    if not weak and not any(values.get(key) for key in ('sigma_low', 'sigma_high', 'zero_above')):
        return
    levels = np.asarray(_levels(config, forward))[:-1]
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


def _check_variance(config, train):
    if config['sampler'].get('learned') and not train.variance_steps:
        raise configs.ConfigError(
            'config.sampler.learned needs a model that learned the variance (train.variance_steps, e.g. 1000), '
            'this one did not: leave it out'
        )


def _check_grid(config, forward):
    """A grid that cannot have so many steps says so before anything is compiled."""
    try:
        jax.eval_shape(lambda: configs.construct(config, 'grid', SCHEMA)(forward, config['sample']['steps']))
    except ValueError as error:
        raise configs.ConfigError(f'config.sample.steps: {error}') from error


def _with_uncertainty(network):
    return functional.Network(
        lambda key: {**network.init(key), **uncertainty.initial()},
        lambda params, *args: network.apply(uncertainty.without(params), *args),
    )


def _check_shape(network, shape, null):
    """One abstract call: a net that cannot take these images says so before anything is compiled."""

    def call(key):
        cond = {name: value[None] for name, value in null.items()}
        return network.apply(network.init(key), jnp.zeros((1, *shape)), jnp.zeros(1), cond, None)

    try:
        jax.eval_shape(call, jax.eval_shape(lambda: jax.random.key(0)))
    except ValueError as error:
        raise configs.ConfigError(f'config.net does not fit the data: {error}') from error


def sampling(run: Experiment, config: configs.Config, steering: Steering = UNSTEERED):
    """(params, seeds: [B], cond: dict of [B, ...], sigmas: [N + 1], scale, beside) -> `chain.Sampled`, to be jitted.

    config: the run's own, or with other values in the sections of `SAMPLING`. beside: `Steering.arrays`, and the weaker
    model's parameters as 'weak' where there is one; other values of these compile nothing. The images are of the data's
    dtype. Image i depends on its own seed alone, not on the batch.
    """
    sampler = configs.construct(config, 'sampler', SCHEMA)
    _check_guidance(config, run.facts, run.null, run.train.cond_dropout, steering)
    _check_reach(config, run.process, steering.weak)
    _check_variance(config, run.train)
    guided = config['guidance'].get('scale', 1.0) != 1 or steering.also
    learned = config['sampler'].get('learned', False)
    steered = guided or steering.log_prob or 'threshold' in config
    values = {key: value for key, value in config['guidance'].items() if key != 'name'}
    guide = SCHEMA['guidance'].constructors[config['guidance']['name']]
    limit = configs.construct(config, 'threshold', SCHEMA) if 'threshold' in config else threshold.none()

    def draw(params, seeds, cond, sigmas, scale, beside):
        keys = randomness.examples(randomness.stream(jax.random.key(0), 'sample'), seeds)
        rule = guide(**{**values, 'scale': scale}) if guided else guidance.none()
        denoise = rule(functools.partial(_conditional, run.denoiser, params), cond, _beside(beside, cond, steering))
        if steering.log_prob:
            denoise = guidance.classifier(denoise, steering.log_prob, beside['push'])
        denoise = limit(denoise)
        if learned:
            denoise = _with_fraction(denoise if steered else None, functools.partial(run.moments, params), cond)
        drawn = chain.generate(denoise, sampler, sigmas, keys, run.facts.shape)
        return drawn._replace(x=loss.to_uint8(drawn.x)) if run.facts.dtype == 'uint8' else drawn

    return draw


def _beside(arrays, cond, steering):
    """`guidance.Beside` for a batch of cond."""

    def everywhere(values):
        return {name: jnp.broadcast_to(value, cond[name].shape) for name, value in values.items()}

    weak = steering.weak and functools.partial(_conditional, steering.weak.denoiser, arrays['weak'])
    return guidance.Beside(everywhere(arrays['null']), tuple(map(everywhere, arrays['also'])), arrays['scales'], weak)


def _with_fraction(guided, moments, cond):
    """(x, sigma) -> (E[x_0 | x], fraction): the variance of the conditional model, and the guided mean where something
    steers, which then takes an evaluation of the network more."""

    def both(x, sigma):
        x0, fraction = moments(x, sigma, cond, None)
        return (guided(x, sigma) if guided else x0), fraction

    return both


def _conditional(denoiser, params, x, sigma, cond):
    return denoiser(params, x, sigma, cond, None)


def denoise(run: Experiment, params, cond: dict, scale: float = 1.0):
    """The Denoise of a run's model under cond: dict of [B, ...]; classifier-free guidance where scale is not 1."""
    rule = guidance.none() if scale == 1 else guidance.classifier_free(scale)
    beside = _beside(UNSTEERED.arrays(run), cond, UNSTEERED)
    return rule(functools.partial(_conditional, run.denoiser, params), cond, beside)


def sigmas(run: Experiment, config: configs.Config):
    """The noise levels [N + 1] that a config's grid and sample.steps give."""
    return _levels(config, run.process)


def paces_itself(config: configs.Config) -> bool:
    """Whether the config's sampler chooses its own steps, so that sample.steps means nothing to it."""
    return config['sampler']['name'] in ode.__all__


def _levels(config, forward):
    grid = configs.construct(config, 'grid', SCHEMA)
    if paces_itself(config):
        # The two ends alone: of a fine grid, since the last level of some depends on the steps.
        return grid(forward, 1000)[jnp.asarray([0, -2, -1])]
    return grid(forward, config['sample']['steps'])
