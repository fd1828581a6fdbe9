"""The variational bound on the likelihood: what ancestral sampling in N steps guarantees.

With x = x_0 + sigma eps at levels sigma_N > ... > sigma_0, a step of the chain is normal with DDPM's posterior variance
(Ho et al. 2006.11239, Eq. 7) around the mean that the denoiser gives, and the last step draws x_0 around D(x; sigma_0).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy import special

from diffusion.core import chain, dequantisation, randomness

__all__ = ['gaussian', 'eight_bit']


class Bound(NamedTuple):
    """The three terms of an upper bound on -log p(x_0), unbiased estimates in nats a picture: [B] each."""

    prior: jax.Array
    diffusion: jax.Array
    reconstruction: jax.Array


def variational(denoise, x0, sigmas, keys, reconstruction) -> Bound:
    """Sohl-Dickstein et al. 1503.03585; in terms of signal to noise Kingma et al. 2107.00630, Eqs. 11 to 14.

    x0: [B, ...]; sigmas: [N + 1], decreasing and all above 0; keys: [B]; reconstruction: one of this module. The term
    of the step from s to s' is (1 / s'**2 - 1 / s**2) / 2 |x_0 - D(x_0 + s eps, s)|**2, for every process. Each step
    draws its own noise. N + 1 evaluations. The prior's term is the exact divergence of N(x_0, s**2 I) from
    N(0, s**2 I) at s = sigma_N.
    """
    axes = tuple(range(1, x0.ndim))

    def noised(sigma, index):
        noise = randomness.normal(randomness.at_step(keys, index), x0.shape[1:], x0.dtype)
        return denoise(x0 + sigma * noise, chain.level(sigma, x0))

    def term(total, step):
        sigma, sigma_next, index = step
        square = jnp.sum((x0 - noised(sigma, index)) ** 2, axes)
        gain = 0.5 * (sigma - sigma_next) * (sigma + sigma_next) / (sigma * sigma_next) ** 2
        return total + gain * square, None

    count = len(sigmas) - 1
    levels = (sigmas[:-1], sigmas[1:], jnp.arange(count))
    diffusion, _ = lax.scan(term, jnp.zeros(len(x0), x0.dtype), levels)
    prior = 0.5 * jnp.sum(x0**2, axes) / sigmas[0] ** 2
    return Bound(prior, diffusion, -reconstruction(x0, noised(sigmas[-1], count), sigmas[-1]))


def gaussian(x0, mean, sigma):
    """log N(x0; mean, sigma**2 I): [B]. As sigma shrinks the true posterior of x_0 has this variance too."""
    square = jnp.sum((x0 - mean) ** 2, tuple(range(1, x0.ndim))) / sigma**2
    return -0.5 * square - math.prod(x0.shape[1:]) * (jnp.log(sigma) + 0.5 * math.log(2 * math.pi))


def eight_bit(x0, mean, sigma):
    """The log-probability [B] of 8-bit values under N(mean, sigma**2 I), the outermost bins reaching to infinity.

    Ho et al. 2006.11239, Eq. 13. x0: [B, ...] as `loss.to_unit` makes it.
    """
    half = dequantisation.BIN / 2
    low = jnp.where(x0 < -1 + half, -jnp.inf, (x0 - half - mean) / sigma)
    high = jnp.where(x0 > 1 - half, jnp.inf, (x0 + half - mean) / sigma)
    # In the upper tail both distributions are 1 in float32: there the bin's mirror image is measured.
    flip = low > -high
    low, high = jnp.where(flip, -high, low), jnp.where(flip, -low, high)
    above, below = special.log_ndtr(high), special.log_ndtr(low)
    return jnp.sum(above + jnp.log(-jnp.expm1(below - above)), tuple(range(1, x0.ndim)))


def levels(sigma_min, sigma_max, steps: int):
    """sigmas: [steps + 1] from sigma_max to sigma_min, evenly in log sigma."""
    return jnp.exp(jnp.linspace(jnp.log(sigma_max), jnp.log(sigma_min), steps + 1))
