"""Grids: the noise levels a sampler visits.

Grid = (process, steps) -> sigmas: [steps + 1], decreasing from the process's largest noise-to-signal ratio to exactly
0, so that N steps are N steps. A bound given as 0 means the process's own.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

__all__ = ['karras', 'uniform_t', 'log_linear', 'trailing', 'discrete']

Grid = Callable


def _close(sigmas):
    return jnp.concatenate([sigmas, jnp.zeros(1)]).astype(jnp.float32)


def _bounds(process, sigma_min, sigma_max):
    low, high = process.nsr_range()
    return sigma_min or low, sigma_max or high


def karras(rho: float = 7.0, sigma_min: float = 0.0, sigma_max: float = 0.0) -> Grid:
    """Even steps in sigma**(1 / rho): Karras et al. 2206.00364, Eq. 5."""

    def grid(process, steps):
        low, high = _bounds(process, sigma_min, sigma_max)
        ramp = jnp.linspace(high ** (1 / rho), low ** (1 / rho), steps)
        return _close(ramp**rho)

    return grid


def log_linear(sigma_min: float = 0.0, sigma_max: float = 0.0) -> Grid:
    """Even steps in log sigma."""

    def grid(process, steps):
        low, high = _bounds(process, sigma_min, sigma_max)
        return _close(jnp.exp(jnp.linspace(jnp.log(high), jnp.log(low), steps)))

    return grid


def uniform_t() -> Grid:
    """Even steps in t from t_max to t_min, then 0."""
    return lambda process, steps: _close(process.nsr(jnp.linspace(process.t_max, process.t_min, steps)))


def trailing() -> Grid:
    """Even steps in t from t_max to 0 ("trailing" spacing): Lin et al. 2305.08891, Sec. 3.4."""
    return lambda process, steps: _close(
        process.nsr(process.t_max * (1 - jnp.arange(steps, dtype=jnp.float32) / steps))
    )


def discrete(levels: int = 1000, spacing: str = 'trailing') -> Grid:
    """Some of the levels t = t_max i / levels, i = 1 ... levels: those of a `DDPM` of so many levels are its own.

    spacing: 'trailing' or 'leading', even strides from the noisiest or from the cleanest level on (leading starts
    below the noisiest), or 'linspace', both ends: Lin et al. 2305.08891, Table 2. With steps = levels all visit all.
    """
    if spacing not in ('trailing', 'leading', 'linspace'):
        raise ValueError(f"spacing={spacing!r}: one of 'trailing', 'leading', 'linspace'")

    def grid(process, steps):
        if steps > levels:
            raise ValueError(f'grid discrete: {steps} steps, but there are {levels} levels')
        if spacing == 'trailing':
            chosen = np.round(np.arange(levels, 0, -levels / steps))[:steps]
        elif spacing == 'leading':
            chosen = 1 + np.arange(steps)[::-1] * (levels // steps)
        else:
            chosen = np.round(np.linspace(levels, 1, steps))
        return _close(process.nsr(jnp.asarray(process.t_max * chosen / levels, jnp.float32)))

    return grid
