"""Dequantisation: noise that makes a density of 8-bit pictures comparable with their probability.

The 256 values of a channel lie BIN = 1 / 127.5 apart in [-1, 1] (`loss.to_unit`). With u ~ q inside the bin around a
picture x, log P(x) = log of the integral of p over the bin >= E_q[log p(x + u) - log q(u)], by Jensen's inequality.

Each function takes keys: [B], shape and sigma, the noise level that the density belongs to, and returns u: [B, *shape]
and log q(u): [B] in nats.
"""

import math

import jax
import jax.numpy as jnp
from jax.scipy import special

__all__ = ['uniform', 'truncated_normal']

BIN = 1 / 127.5


def uniform(keys, shape, sigma):
    """Evenly over the bin: Theis et al. 1511.01844, Sec. 3.1. sigma goes unused."""
    u = jax.vmap(lambda key: jax.random.uniform(key, shape, minval=-BIN / 2, maxval=BIN / 2))(keys)
    return u, jnp.full(len(u), -math.prod(shape) * math.log(BIN))


def truncated_normal(keys, shape, sigma):
    """Normal noise of deviation sigma, cut off at the bin's edges: Zheng et al. 2305.03935 (i-DODE).

    At a small sigma this is the noise that the model was trained to see in a picture, where uniform noise is not.
    """
    edge = BIN / 2 / sigma
    unit = jax.vmap(lambda key: jax.random.truncated_normal(key, -edge, edge, shape))(keys)
    mass = jnp.log(special.erf(edge / math.sqrt(2)))
    density = -0.5 * unit**2 - 0.5 * math.log(2 * math.pi) - jnp.log(sigma) - mass
    return sigma * unit, jnp.sum(density, tuple(range(1, unit.ndim)))
