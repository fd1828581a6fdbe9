"""Preconditioning: what the network is asked to predict, one row of EDM's Table 1 a prediction type.

The denoiser is D(x; sigma) = skip x + out F(inp x; noise) (Karras et al. 2206.00364, Eq. 7) in the coordinates of
`process` (x = x_t / alpha, sigma = noise-to-signal ratio). All rows hand the network noise = log(sigma) / 4, so that a
network does not depend on the row it is used with.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

__all__ = ['eps', 'x0', 'v', 'flow', 'edm']


class Coeffs(NamedTuple):
    """Scales of the skip connection, the output and the input, and the noise level as the network sees it: [B] each."""

    skip: jax.Array
    out: jax.Array
    inp: jax.Array
    noise: jax.Array


Precond = Callable[[jax.Array], Coeffs]


def _variance_preserving(sigma):
    return 1 / jnp.sqrt(1 + sigma**2)


def eps() -> Precond:
    """F predicts the noise: Ho et al. 2006.11239, Eq. 15, x_0 = (x_t - sigma_t eps) / alpha_t."""
    return lambda s: Coeffs(jnp.ones_like(s), -s, _variance_preserving(s), jnp.log(s) / 4)


def x0() -> Precond:
    """F predicts the image."""
    return lambda s: Coeffs(jnp.zeros_like(s), jnp.ones_like(s), _variance_preserving(s), jnp.log(s) / 4)


def v() -> Precond:
    """F predicts v = alpha eps - sigma x_0 of a variance-preserving process: Salimans & Ho 2202.00512, App. D."""
    return lambda s: Coeffs(1 / (1 + s**2), -s * _variance_preserving(s), _variance_preserving(s), jnp.log(s) / 4)


def flow() -> Precond:
    """F predicts the velocity eps - x_0 of the straight path, whose input is (1 - t) x: Liu et al. 2209.03003."""
    return lambda s: Coeffs(1 / (1 + s), -s / (1 + s), 1 / (1 + s), jnp.log(s) / 4)


def edm(sigma_data: float = 0.5) -> Precond:
    """EDM's own row: input and target have unit variance at every sigma: Karras et al. 2206.00364, Table 1."""

    def coeffs(s):
        norm = jnp.sqrt(s**2 + sigma_data**2)
        return Coeffs(sigma_data**2 / norm**2, s * sigma_data / norm, 1 / norm, jnp.log(s) / 4)

    return coeffs


def denoiser(precond: Precond, network: Callable) -> Callable:
    """Denoiser = (params, x, sigma, cond, keys) -> x0_hat from a network F = (params, x, noise, cond, keys).

    x: [B, H, W, C] float32; sigma: [B] > 0; cond: dict of [B, ...]; keys: [B] for dropout or None.
    The result is float32 whatever the network computes in.
    """

    def denoise(params, x, sigma, cond, keys=None):
        skip, out, inp, noise = precond(sigma)
        skip, out, inp = (per_example(c, x) for c in (skip, out, inp))
        return skip * x + out * network(params, inp * x, noise, cond, keys).astype(x.dtype)

    return denoise


def per_example(value, x):
    """value: [B] or scalar, with trailing axes of size 1 so that it multiplies x: [B, ...]."""
    return jnp.reshape(value, jnp.shape(value) + (1,) * (x.ndim - jnp.ndim(value)))
