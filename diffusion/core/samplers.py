"""Samplers of one step at a time: from noise to an image.

Sampler = (denoise, x, sigmas, keys) -> `chain.Sampled` with denoise: (x, sigma: [B]) -> E[x_0 | x], x: [B, H, W, C]
float32 at noise level sigmas[0], sigmas: [N + 1] decreasing to 0 (see `grids`), keys: [B], one an example. A sampler is
one `lax.scan` over the N steps. In these coordinates the probability-flow ODE is dx/dsigma = (x - D(x, sigma)) / sigma
(Karras et al. 2206.00364, Eq. 1 with s = 1) for every process. `multistep` and `stochastic` hold more of them, `ode`
those that choose their own steps.

Between two levels, with h = log(sigma / sigma'), a frozen D gives the exact solution
x' = D + exp(-(1 + eta) h) (x - D) + sigma' sqrt(1 - exp(-2 eta h)) z of the SDE
dx = -(1 + eta) (x - D) dh + sqrt(2 eta) sigma dw, which keeps every marginal for any eta >= 0: 0 is the ODE, 1 the
reverse SDE (Lu et al. 2211.01095; Xue et al. 2309.05019).
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from diffusion.core import brownian, chain, variance

__all__ = ['euler', 'heun', 'midpoint', 'dpm_solver_2', 'dpm_solver_3', 'dpmpp_2s', 'dpmpp_2s_sde', 'ddim', 'ancestral']

Sampler = Callable


def euler() -> Sampler:
    """Euler's method on the probability-flow ODE; the same as DDIM with eta = 0.

    Order: 1. NFE: N.
    """
    return ddim(eta=0.0)


def heun(churn: float = 0.0, churn_min: float = 0.0, churn_max: float = 1e9, churn_noise: float = 1.0) -> Sampler:
    """Second order, with optional churn: Karras et al. 2206.00364, Algorithms 1 and 2.

    churn: S_churn, the noise added over the whole trajectory, in steps; churn_min, churn_max: the range of sigma
    it acts in; churn_noise: S_noise.

    Order: 2. NFE: 2 N - 1.
    """

    def sample(denoise, x, sigmas, keys):
        steps = len(sigmas) - 1
        gamma_max = min(churn / steps, 2**0.5 - 1)

        def step(x, sigma, sigma_next, way):
            if churn:
                gamma = jnp.where((sigma >= churn_min) & (sigma <= churn_max), gamma_max, 0.0)
                noise = way.noise(keys)
                # sqrt(raised**2 - sigma**2), written so that rounding cannot make it the root of a negative number.
                x = x + churn_noise * sigma * jnp.sqrt(gamma * (2 + gamma)) * noise
                sigma = sigma * (1 + gamma)
            return heun_step(denoise, x, sigma, sigma_next)

        return chain.sampled(chain.fold(step, x, sigmas, keys if churn else None), 2 * steps - 1, steps)

    return sample


def heun_step(denoise, x, sigma, sigma_next):
    """One step of Heun's method, of Euler's where it ends at 0: Karras et al. 2206.00364, Algorithm 1."""
    slope = (x - denoise(x, chain.level(sigma, x))) / sigma
    ahead = x + (sigma_next - sigma) * slope

    def correct(ahead):
        slope_ahead = (ahead - denoise(ahead, chain.level(sigma_next, x))) / sigma_next
        return x + (sigma_next - sigma) * (slope + slope_ahead) / 2

    return lax.cond(sigma_next > 0, correct, lambda ahead: ahead, ahead)


def midpoint() -> Sampler:
    """The slope in the middle of the step in sigma.

    Order: 2. NFE: 2 N.
    """

    def sample(denoise, x, sigmas, keys):
        def step(x, sigma, sigma_next, way):
            middle = (sigma + sigma_next) / 2
            slope = (x - denoise(x, chain.level(sigma, x))) / sigma
            ahead = x + (middle - sigma) * slope
            return x + (sigma_next - sigma) * (ahead - denoise(ahead, chain.level(middle, x))) / middle

        steps = len(sigmas) - 1
        return chain.sampled(chain.fold(step, x, sigmas), 2 * steps, steps)

    return sample


def dpm_solver_2() -> Sampler:
    """The slope in the middle of the step in log sigma: Lu et al. 2206.00927, Algorithm 1.

    The step that ends at 0 has no middle in log sigma and returns D. Order: 2. NFE: 2 N - 1.
    """

    def sample(denoise, x, sigmas, keys):
        def step(x, sigma, sigma_next, way):
            middle = jnp.sqrt(sigma * sigma_next)
            slope = (x - denoise(x, chain.level(sigma, x))) / sigma
            ahead = x + (middle - sigma) * slope
            return x + (sigma_next - sigma) * (ahead - denoise(ahead, chain.level(middle, x))) / middle

        return chain.finish(denoise, chain.fold(step, x, sigmas[:-1]), sigmas, 2)

    return sample


def dpm_solver_3() -> Sampler:
    """Slopes at thirds of the step in log sigma: Lu et al. 2206.00927, Algorithm 2 with r_1 = 1/3, r_2 = 2/3.

    The step that ends at 0 returns D. Order: 3. NFE: 3 N - 2.
    """

    def sample(denoise, x, sigmas, keys):
        def slope(x, sigma):
            return (x - denoise(x, chain.level(sigma, x))) / sigma

        def step(x, sigma, sigma_next, way):
            h = jnp.log(sigma / sigma_next)
            third, two_thirds = sigma * jnp.exp(-h / 3), sigma * jnp.exp(-2 * h / 3)
            first = slope(x, sigma)
            change = slope(x + (third - sigma) * first, third) - first
            curve = 2 * two_thirds * (jnp.expm1(2 * h / 3) / (2 * h / 3) - 1)
            change = slope(x + (two_thirds - sigma) * first - curve * change, two_thirds) - first
            return x + (sigma_next - sigma) * first - 1.5 * sigma_next * (jnp.expm1(h) / h - 1) * change

        return chain.finish(denoise, chain.fold(step, x, sigmas[:-1]), sigmas, 3)

    return sample


def dpmpp_2s(eta: float = 0.0) -> Sampler:
    """DPM-Solver++(2S), D from the middle of the step in log sigma: Lu et al. 2211.01095, Algorithm 1 with r = 1/2.

    eta: 0 for the ODE, 1 for the SDE, in between and beyond for less or more noise. Order: 2. NFE: 2 N - 1.
    """
    _check_eta(eta)

    def sample(denoise, x, sigmas, keys):
        def step(x, sigma, sigma_next, way):
            middle = jnp.sqrt(sigma * sigma_next)
            first = denoise(x, chain.level(sigma, x))
            half = chain.Way(way.here, brownian.place(keys, x.shape[1:], middle)) if eta else None
            ahead = relax(x, first, sigma, middle, half, keys, eta)
            second = denoise(ahead, chain.level(middle, x))
            return relax(x, second, sigma, sigma_next, way, keys, eta)

        return chain.finish(denoise, chain.fold(step, x, sigmas[:-1], keys if eta else None), sigmas, 2)

    return sample


def dpmpp_2s_sde(eta: float = 1.0) -> Sampler:
    """DPM-Solver++(2S) of the reverse SDE; `dpmpp_2s` with eta = 1.

    Order: 2 (weak). NFE: 2 N - 1.
    """
    return dpmpp_2s(eta)


def relax(x, x0, sigma, sigma_next, way, keys, eta):
    """x at sigma_next > 0 for a denoiser that stays at x0: the exact step of the head of this file."""
    ratio = sigma_next / sigma
    x = x0 + ratio ** (1 + eta) * (x - x0)
    if eta:
        std = sigma_next * jnp.sqrt(-jnp.expm1(2 * eta * jnp.log(ratio)))
        x = x + std * way.noise(keys)
    return x


def ddim(eta: float = 0.0) -> Sampler:
    """DDIM, from the ODE (eta = 0) to DDPM's ancestral sampling (eta = 1): Song et al. 2010.02502, Eqs. 12 and 16.

    Divided by alpha, Eq. 16 is var = eta**2 s'**2 (s**2 - s'**2) / s**2 for a step from s to s', for every process.
    With eta = 1 this is the posterior variance of Ho et al. 2006.11239, Eq. 7. eta: in [0, 1]. Order: 1. NFE: N.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f'eta={eta}: must be in [0, 1]')

    def sample(denoise, x, sigmas, keys):
        def step(x, sigma, sigma_next, way):
            x0 = denoise(x, chain.level(sigma, x))
            ratio = sigma_next / sigma
            std = eta * ratio * jnp.sqrt((sigma - sigma_next) * (sigma + sigma_next))
            kept = jnp.sqrt(jnp.maximum(sigma_next**2 - std**2, 0.0)) / sigma if eta else ratio
            x = x0 + kept * (x - x0)
            if eta:
                x = x + std * way.noise(keys)
            return x

        steps = len(sigmas) - 1
        return chain.sampled(chain.fold(step, x, sigmas, keys if eta else None), steps, steps)

    return sample


def ancestral(eta: float = 1.0, learned: bool = False) -> Sampler:
    """Ancestral sampling of the reverse Markov chain; `ddim` with eta = 1.

    In these coordinates the DDPM posterior (Ho et al. 2006.11239, Algorithm 2), score_sde's ancestral step for VE (Song
    et al. 2011.13456, Eq. 47) and the Euler ancestral step are one formula: x' = D + (s'/s)**2 (x - D) + noise of
    variance s'**2 (s**2 - s'**2) / s**2.

    learned: with the variance that the network has learned, Nichol & Dhariwal 2102.09672, Eq. 15. Then, of all samplers
    it alone is handed not a Denoise but (x, sigma) -> (E[x_0 | x], fraction): see `variance`.
    Order: 1 (weak). NFE: N.
    """
    if not learned:
        return ddim(eta)
    if eta != 1:
        raise ValueError(f'eta={eta:g} and learned=True contradict each other: leave one of them out')

    def sample(moments, x, sigmas, keys):
        def step(x, sigma, sigma_next, way):
            x0, fraction = moments(x, chain.level(sigma, x))
            std = variance.std(fraction, sigma, sigma_next)
            return x0 + (sigma_next / sigma) ** 2 * (x - x0) + std * way.noise(keys)

        steps = len(sigmas) - 1
        return chain.sampled(chain.fold(step, x, sigmas, keys), steps, steps)

    return sample


def _check_eta(eta):
    if eta < 0:
        raise ValueError(f'eta={eta}: must be at least 0')
