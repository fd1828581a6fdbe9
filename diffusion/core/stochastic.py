"""Samplers whose purpose is the noise: the reverse SDE, Langevin corrections, restarts.

The contract is that of `samplers`.
"""

import jax.numpy as jnp
from jax import lax

from diffusion.core import chain, precond, randomness, samplers

__all__ = ['euler_maruyama', 'predictor_corrector', 'restart']


def euler_maruyama(eta: float = 1.0):
    """Euler-Maruyama on the reverse SDE in the time sigma**2, where its noise has unit strength.

    x' = x - (1 + eta) / 2 (s**2 - s'**2) / s**2 (x - D) + sqrt(eta (s**2 - s'**2)) z: with eta = 1 score_sde's "reverse
    diffusion" step for VE (Song et al. 2011.13456, App. E); any eta >= 0 keeps the marginals (SiT 2401.08740), 0 is the
    ODE. The last step is without noise and returns D. Order: 1 (weak). NFE: N.
    """
    if eta < 0:
        raise ValueError(f'eta={eta}: must be at least 0')

    def sample(denoise, x, sigmas, keys):
        def step(x, sigma, sigma_next, way):
            return _reverse(denoise, x, sigma, sigma_next, way.noise(keys), eta)

        return chain.finish(denoise, chain.fold(step, x, sigmas[:-1], keys), sigmas, 1)

    return sample


def _reverse(denoise, x, sigma, sigma_next, noise, eta):
    variance = (sigma - sigma_next) * (sigma + sigma_next)
    x0 = denoise(x, chain.level(sigma, x))
    return x - (1 + eta) / 2 * variance / sigma**2 * (x - x0) + jnp.sqrt(eta * variance) * noise


def predictor_corrector(corrections: int = 1, snr: float = 0.16, annealed: bool = True):
    """Reverse diffusion, each step led by Langevin corrections: Song et al. 2011.13456, Algorithms 2, 4 and 5 (App. G).

    corrections: Langevin steps x' = x + e score + sqrt(2 e) z at each level; snr: r in e = 2 (r sigma)**2 ("annealed
    Langevin dynamics", Algorithm 5's); annealed=False: e = 2 (r |z| / |score|)**2, the same where noise prevails, but a
    function of x, which in few dimensions biases the law. Its norms are an example's own, where theirs are means over
    the batch: a sample must not depend on its neighbours. The last step is without noise and returns D; the others take
    1 + corrections evaluations. The error of a Langevin step depends on snr and does not vanish with N. Order: none.
    NFE: 2 N - 1.
    """
    if corrections < 0 or snr <= 0:
        raise ValueError(f'corrections={corrections} must be at least 0, snr={snr} above 0')

    def correct(denoise, x, sigma, keys):
        score = (denoise(x, chain.level(sigma, x)) - x) / sigma**2
        noise = randomness.normal(keys, x.shape[1:])
        norms = (_norm(noise) / _norm(score)) if not annealed else chain.level(sigma, x)
        size = precond.per_example(2 * (snr * norms) ** 2, x)
        return x + size * score + jnp.sqrt(2 * size) * noise

    def sample(denoise, x, sigmas, keys):
        drawn = randomness.substream(keys, 'corrector')

        def step(x, sigma, sigma_next, way):
            # Keyed by the level itself, not by its number, which another grid gives to another level.
            at_level = randomness.at_step(drawn, lax.bitcast_convert_type(sigma, jnp.uint32))
            for k in range(corrections):
                x = correct(denoise, x, sigma, randomness.at_step(at_level, k))
            return _reverse(denoise, x, sigma, sigma_next, way.noise(keys), 1.0)

        return chain.finish(denoise, chain.fold(step, x, sigmas[:-1], keys), sigmas, 1 + corrections)

    return sample


def _norm(x):
    return jnp.sqrt(jnp.sum(x.reshape(len(x), -1) ** 2, 1))


def restart(low: float = 0.05, high: float = 0.3, times: int = 2, steps: int = 4):
    """Heun's ODE, interrupted by restarts: Xu et al. 2306.14878, Algorithm 1, with one interval.

    When a step first ends at or below `low`, noise takes x back to `high`, and `steps` Heun steps lead down again (on
    Karras's grid with rho = 7), `times` times over: 2 N - 1 + 2 times steps evaluations. A grid that has no positive
    level at or below `low`, or begins there, is never interrupted. The error of the restarts depends on `steps` and
    does not vanish with N. Order: none. NFE: 2 N + 15.
    """
    if not 0 < low < high or times < 1 or steps < 1:
        raise ValueError(f'low={low}, high={high}, times={times}, steps={steps}: need 0 < low < high, at least 1 each')

    def sample(denoise, x, sigmas, keys):
        drawn = randomness.substream(keys, 'restart')

        def again(x, level):
            ramp = jnp.linspace(high ** (1 / 7), level ** (1 / 7), steps + 1) ** 7
            ramp = ramp.at[-1].set(level)

            def once(x, k):
                noise = randomness.normal(randomness.at_step(drawn, k), x.shape[1:])
                x = x + jnp.sqrt((high - level) * (high + level)) * noise
                return chain.fold(lambda x, s, s_next, _: samplers.heun_step(denoise, x, s, s_next), x, ramp), None

            return lax.scan(once, x, jnp.arange(times))[0]

        def step(x, sigma, sigma_next, way):
            x = samplers.heun_step(denoise, x, sigma, sigma_next)
            crossing = _crosses(sigma, sigma_next, low)
            return lax.cond(crossing, lambda x: again(x, jnp.maximum(sigma_next, 1e-6)), lambda x: x, x)

        count = len(sigmas) - 1
        restarted = jnp.any(_crosses(sigmas[:-1], sigmas[1:], low))
        found = chain.sampled(chain.fold(step, x, sigmas), 2 * count - 1, count)
        more = restarted * times * steps
        return found._replace(nfe=found.nfe + 2 * more, accepted=found.accepted + more)

    return sample


def _crosses(sigma, sigma_next, low):
    return (sigma > low) & (sigma_next <= low) & (sigma_next > 0)
