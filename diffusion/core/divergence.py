"""The divergence of a function of pictures, beside its value.

Each constructor takes keys: [B], shape and count and returns a trace: (function, x: [B, *shape]) -> function(x) and
estimates: [B, P] of the sum of d function_i / d x_i of each example. They are forward derivatives: P products with the
Jacobian, no matrix and nothing stored.
"""

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.core import randomness

__all__ = ['rademacher', 'gaussian', 'exact']

# Dimensions up to which the exact trace, one derivative a dimension, is sensible.
EXACT_MOST = 256


def rademacher(keys, shape, count: int):
    """Skilling-Hutchinson with signs: E v . J v, the least noisy choice of independent v; P = count.

    Skilling (1989); Hutchinson, Comm. Stat. Sim. 19 (1990); Grathwohl et al. 1810.01367, Sec. 3.1. The directions are
    drawn here, once: an ODE needs the same ones all along its way.
    """
    draw = jax.vmap(lambda key: jax.random.rademacher(key, shape, jnp.float32))
    return _hutchinson(keys, count, draw)


def gaussian(keys, shape, count: int):
    """Skilling-Hutchinson with normal v, of variance 2 |J|**2 for a symmetric J; signs leave its diagonal out."""
    return _hutchinson(keys, count, lambda keys: randomness.normal(keys, shape))


def exact(keys, shape, count: int):
    """The trace itself, a derivative a dimension; keys and count go unused, P = 1. Raises ValueError for many."""
    dims = int(np.prod(shape))
    check_exact(dims)
    basis = jnp.eye(dims).reshape(dims, 1, *shape)

    def trace(function, x):
        value, along = _along(function, x, jnp.broadcast_to(basis, (dims, *x.shape)))
        return value, jnp.sum(along, 1, keepdims=True)

    return trace


def check_exact(dims: int) -> None:
    """Raises ValueError where an exact trace would take too many derivatives."""
    if dims > EXACT_MOST:
        raise ValueError(
            f'the exact trace takes a derivative a dimension, here {dims} (at most {EXACT_MOST}): use rademacher probes'
        )


def _hutchinson(keys, count, draw):
    directions = jax.vmap(lambda index: draw(randomness.at_step(keys, index)))(jnp.arange(count))
    return lambda function, x: _along(function, x, directions)


def _along(function, x, directions):
    """function(x), and v . J v: [B, P] for directions v: [P, B, ...]."""

    def one(v):
        value, change = jax.jvp(function, (x,), (v.astype(x.dtype),))
        return value, jnp.sum(v * change, tuple(range(1, x.ndim)))

    # The value does not depend on v: vmap computes it once and repeats it.
    value, along = jax.vmap(one)(directions)
    return value[0], along.T
