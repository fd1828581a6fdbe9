"""The noise levels that samples are drawn over."""

import jax.numpy as jnp

from diffusion import config as configs
from diffusion.core import editing, ode
from diffusion.wiring.schema import SCHEMA


def paces_itself(config: configs.Config) -> bool:
    """Whether the config's sampler chooses its own steps, so that sample.steps means nothing to it."""
    return config['sampler']['name'] in ode.__all__


def levels(config: configs.Config, forward, strength: float = 1.0):
    """The noise levels [N + 1] that a config's grid and sample.steps give for a process, or the last share of them."""
    grid = configs.construct(config, 'grid', SCHEMA)
    if paces_itself(config):
        # The two ends alone: of a fine grid, since the last level of some depends on the steps.
        return editing.shortened(grid(forward, 1000), strength)[jnp.asarray([0, -2, -1])]
    return editing.shortened(grid(forward, config['sample']['steps']), strength)
