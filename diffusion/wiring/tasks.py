"""What an edit asks of the samples: a measurement that they are to have, and a picture that they start from."""

import dataclasses
from collections.abc import Callable

import numpy as np

from diffusion import config as configs
from diffusion.core import editing_guided, editing_trained, operators
from diffusion.wiring import schema
from diffusion.wiring.levels import paces_itself

# Methods that know how large the noise of a measurement is.
HEEDS_NOISE = ('pigdm', 'mmps', 'ddnm', *editing_trained.__all__)


@dataclasses.dataclass(frozen=True)
class Task:
    """shape: (H, W, C) of the results; operator: arrays -> what the measurement is made with, None where nothing is
    measured; arrays: 'around', what the samples start from, and where something is measured 'value' and 'noise',
    besides 'kept' and 'change' of masks, see `operators.Measurement`; strength: of the start, see `editing.shortened`.
    """

    shape: tuple[int, int, int]
    arrays: dict[str, np.ndarray]
    operator: Callable[[dict], operators.Operator] | None = None
    strength: float = 1.0

    def measurement(self, arrays: dict) -> operators.Measurement:
        """Of the arrays as they are handed to the compiled sampler."""
        return operators.Measurement(self.operator(arrays), arrays['value'], arrays['noise'], arrays.get('change'))


def leads(config: configs.Config) -> bool:
    """Whether the method of config.edit leads the config's sampler; the others take steps of their own."""
    return config['edit']['name'] in (*editing_guided.__all__, *editing_trained.__all__)


def editor(config: configs.Config, task: Task | None):
    """The `editing.Editor` of a config, None where there is nothing to be heeded. Raises ConfigError."""
    if task is None:
        return None
    if config['sampler'].get('learned'):
        raise configs.ConfigError('config.sampler.learned: editing has no use for the learned variance: leave it out')
    if task.operator is None:
        return None
    name = config['edit']['name']
    if name == 'differential' and 'change' not in task.arrays:
        raise configs.ConfigError(f'config.edit.name={name} is for masks: choose another --method')
    if not leads(config) and paces_itself(config):
        raise configs.ConfigError(
            f'--method={name} takes steps of its own, and the sampler of this run would choose them: add --sampler=heun'
        )
    if task.arrays['noise'] and name not in HEEDS_NOISE:
        raise configs.ConfigError(
            f'--method={name} knows nothing of noise: leave out --noise, or choose one of {", ".join(HEEDS_NOISE)}'
        )
    return configs.construct(config, 'edit', schema.SCHEMA)
