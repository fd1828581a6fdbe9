"""Densities: at which noise levels a network is trained.

Density = (process, u) -> sigma, a quantile function: u: [B] in [0, 1) is spread evenly over the global batch by
`stratified`, and comes back as noise-to-signal ratios.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy import special

__all__ = ['log_normal', 'uniform_t', 'logit_normal', 'mode', 'cosmap']

Density = Callable


def stratified(key, batch: int, places=None):
    """Low-discrepancy u: [batch] in [0, 1), u_i = (u_0 + i / batch) mod 1: Kingma et al. 2107.00630, App. I.1.

    places: int [b], for those of the batch alone that stand there.
    """
    places = jnp.arange(batch) if places is None else places
    return jnp.mod(jax.random.uniform(key) + places / batch, 1.0)


def _gaussian(u):
    return special.ndtri(jnp.clip(u, 1e-6, 1 - 1e-6))


def log_normal(mean: float = -1.2, std: float = 1.2) -> Density:
    """log sigma ~ N(mean, std**2), whatever the process: Karras et al. 2206.00364, Table 1."""
    return lambda process, u: jnp.exp(mean + std * _gaussian(u))


def uniform_t() -> Density:
    """t uniform in [t_min, t_max] of the process."""
    return lambda process, u: process.nsr(process.t_min + (process.t_max - process.t_min) * u)


def logit_normal(mean: float = 0.0, std: float = 1.0) -> Density:
    """logit t ~ N(mean, std**2), kept inside [t_min, t_max]: Esser et al. 2403.03206, Eq. 19."""
    return lambda process, u: process.nsr(
        jnp.clip(jax.nn.sigmoid(mean + std * _gaussian(u)), process.t_min, process.t_max)
    )


def mode(scale: float = 1.29) -> Density:
    """t = u + scale (u - sin(pi u / 2)**2), kept inside [t_min, t_max]: Esser et al. 2403.03206, Eq. 20, from 1 - u.

    scale: in [-1, 2 / (pi - 2)]; above 0 it favours the middle of [0, 1], below its ends, and 0 is uniform.
    """
    if not -1 <= scale <= 2 / (math.pi - 2):
        raise ValueError(f'scale={scale}: must be in [-1, 1.75], else t does not rise with u')

    def density(process, u):
        t = u + scale * (u - jnp.sin(0.5 * math.pi * u) ** 2)
        return process.nsr(jnp.clip(t, process.t_min, process.t_max))

    return density


def cosmap() -> Density:
    """The noise levels of the cosine schedule, sigma = tan(pi u / 2), for any process, kept inside its range.

    Esser et al. 2403.03206, Eq. 21: t = 1 - 1 / (tan(pi u / 2) + 1) of the straight path, where sigma = t / (1 - t).
    """
    return lambda process, u: jnp.clip(
        jnp.sin(0.5 * math.pi * u) / jnp.sin(0.5 * math.pi * (1 - u)), *process.nsr_range()
    )
