"""The learned uncertainty of the loss at each noise level: Karras et al. 2312.02696, Eqs. 14-16 and 21.

With u(sigma) learned beside the network, loss(sigma) / exp(u) + u makes every noise level count alike, as if each were
weighed by the inverse of its own loss: at the optimum exp(u(sigma)) is the expected loss at sigma.
"""

import jax.numpy as jnp
from jax.scipy import special

# Where these parameters stand among those of the network, which does not see them.
NAME = 'uncertainty'
FEATURES = 64


def initial() -> dict:
    """Parameters with which u = 0: the loss is what it would be without."""
    return {NAME: {'coefficients': jnp.zeros(FEATURES)}}


def log_loss(params, sigma):
    """u: [B] at sigma: [B]: a linear layer on fixed Fourier features of log(sigma) / 4."""
    index = jnp.arange(FEATURES)
    # Frequencies as if drawn from N(0, 1) and phases as if uniform, but the same in every version of every library.
    frequency, phase = special.ndtri((index + 0.5) / FEATURES), jnp.mod(index * 0.6180339887, 1.0)
    features = jnp.cos(2 * jnp.pi * (frequency * jnp.log(sigma)[:, None] / 4 + phase))
    return jnp.sum(features * params[NAME]['coefficients'], -1)


def without(params: dict) -> dict:
    """The network's own parameters."""
    return {name: value for name, value in params.items() if name != NAME}
