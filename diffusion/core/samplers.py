"""Samplers: from noise to an image.

Sampler = (denoise, x, sigmas, keys) -> `chain.Sampled` with denoise: (x, sigma: [B]) -> E[x_0 | x], x: [B, H, W, C]
float32 at noise level sigmas[0], sigmas: [N + 1] decreasing to 0 (see `grids`), keys: [B], one an example. A sampler is
one `lax.scan` over the N steps. In these coordinates the probability-flow ODE is dx/dsigma = (x - D(x, sigma)) / sigma
(Karras et al. 2206.00364, Eq. 1 with s = 1) for every process.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from diffusion.core import chain, randomness, variance

__all__ = ['euler', 'heun', 'ancestral', 'ddim']

Sampler = Callable


def euler() -> Sampler:
    """First order on the probability-flow ODE; the same as DDIM with eta = 0. N evaluations."""
    return ddim(eta=0.0)


def heun(churn: float = 0.0, churn_min: float = 0.0, churn_max: float = 1e9, churn_noise: float = 1.0) -> Sampler:
    """Second order, with optional churn: Karras et al. 2206.00364, Algorithms 1 and 2. 2 N - 1 evaluations.

    churn: S_churn, the noise added over the whole trajectory, in steps; churn_min, churn_max: the range of sigma
    it acts in; churn_noise: S_noise.
    """

    def sample(denoise, x, sigmas, keys):
        gamma_max = min(churn / (len(sigmas) - 1), 2**0.5 - 1)

        def step(x, sigma, sigma_next, index):
            if churn:
                gamma = jnp.where((sigma >= churn_min) & (sigma <= churn_max), gamma_max, 0.0)
                noise = randomness.normal(randomness.at_step(keys, index), x.shape[1:])
                # sqrt(raised**2 - sigma**2), written so that rounding cannot make it the root of a negative number.
                x = x + churn_noise * sigma * jnp.sqrt(gamma * (2 + gamma)) * noise
                sigma = sigma * (1 + gamma)
            slope = (x - denoise(x, chain.level(sigma, x))) / sigma
            ahead = x + (sigma_next - sigma) * slope

            def correct(ahead):
                slope_ahead = (ahead - denoise(ahead, chain.level(sigma_next, x))) / sigma_next
                return x + (sigma_next - sigma) * (slope + slope_ahead) / 2

            return lax.cond(sigma_next > 0, correct, lambda ahead: ahead, ahead)

        steps = len(sigmas) - 1
        return chain.sampled(chain.fold(step, x, sigmas), 2 * steps - 1, steps)

    return sample


def ddim(eta: float = 0.0) -> Sampler:
    """DDIM, from the ODE (eta = 0) to DDPM's ancestral sampling (eta = 1): Song et al. 2010.02502, Eqs. 12 and 16.

    Divided by alpha, Eq. 16 is var = eta**2 s'**2 (s**2 - s'**2) / s**2 for a step from s to s', for every process.
    With eta = 1 this is the posterior variance of Ho et al. 2006.11239, Eq. 7. N evaluations.
    """

    def sample(denoise, x, sigmas, keys):
        def step(x, sigma, sigma_next, index):
            x0 = denoise(x, chain.level(sigma, x))
            ratio = sigma_next / sigma
            std = eta * ratio * jnp.sqrt((sigma - sigma_next) * (sigma + sigma_next))
            kept = jnp.sqrt(jnp.maximum(sigma_next**2 - std**2, 0.0)) / sigma if eta else ratio
            x = x0 + kept * (x - x0)
            if eta:
                x = x + std * randomness.normal(randomness.at_step(keys, index), x.shape[1:])
            return x

        steps = len(sigmas) - 1
        return chain.sampled(chain.fold(step, x, sigmas), steps, steps)

    return sample


def ancestral(eta: float = 1.0, learned: bool = False) -> Sampler:
    """Ancestral sampling of the reverse Markov chain: Ho et al. 2006.11239, Algorithm 2; `ddim` with eta = 1.

    learned: with the variance that the network has learned, Nichol & Dhariwal 2102.09672, Eq. 15. Then, of all samplers
    it alone is handed not a Denoise but (x, sigma) -> (E[x_0 | x], fraction): see `variance`.
    """
    if not learned:
        return ddim(eta)
    if eta != 1:
        raise ValueError(f'eta={eta:g} and learned=True contradict each other: leave one of them out')

    def sample(moments, x, sigmas, keys):
        def step(x, sigma, sigma_next, index):
            x0, fraction = moments(x, chain.level(sigma, x))
            noise = randomness.normal(randomness.at_step(keys, index), x.shape[1:])
            return x0 + (sigma_next / sigma) ** 2 * (x - x0) + variance.std(fraction, sigma, sigma_next) * noise

        steps = len(sigmas) - 1
        return chain.sampled(chain.fold(step, x, sigmas), steps, steps)

    return sample
