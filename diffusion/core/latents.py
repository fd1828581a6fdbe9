"""Latent codes: the noise that the probability-flow ODE pairs with each picture (Song et al. 2011.13456, Sec. 4.3).

Any denoiser will do, conditional or guided; the code belongs to that denoiser. With a large guidance scale the ODE
turns sharply and the way there and back loses accuracy at the same tolerance. Decoded by another denoiser, that of
another prompt, a code gives another picture of the same layout (DDIM inversion: Song et al. 2010.02502, Sec. 4.3).
"""

import jax.numpy as jnp

from diffusion.core import ode


def encode(denoise, x0, sigma_min, sigma_max, method: ode.Method) -> ode.Solution:
    """The code of x0: [B, ...], like a unit normal, as the solution's state: x at sigma_max over sigma_max.

    The ODE starts at sigma_min, where x0 stands for its own noised self.
    """
    found = ode.flow(denoise, x0, sigma_min, sigma_max, method)
    return found._replace(state=found.state / sigma_max)


def decode(denoise, code, sigma_min, sigma_max, method: ode.Method) -> ode.Solution:
    """The picture of a code: [B, ...], the inverse of `encode`: it ends at sigma_min, with no denoising step to 0."""
    return ode.flow(denoise, sigma_max * code, sigma_max, sigma_min, method)


def slerp(a, b, weights):
    """Along the great circle from a to b: [...] each, weights: [N] in [0, 1] -> [N, ...]; Shoemake (1985).

    Codes lie close to a sphere, which a straight line would leave. Codes in the same direction are joined by that
    line; exactly opposite ones have no shortest way and give what is not finite.
    """
    cosine = jnp.vdot(a, b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b))
    angle = jnp.arccos(jnp.clip(cosine, -1, 1))
    near = angle < 1e-3
    safe = jnp.where(near, 1.0, angle)
    weights = jnp.reshape(weights, (-1, *(1,) * a.ndim))
    first, second = (jnp.where(near, share, jnp.sin(share * safe) / jnp.sin(safe)) for share in (1 - weights, weights))
    return first * a + second * b
