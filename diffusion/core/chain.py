"""What every sampler shares: the noise it starts from, the loop over noise levels, and what it returns."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from diffusion.core import brownian, randomness


class Sampled(NamedTuple):
    """What a sampler returns: x: [B, ...] at the last noise level, and its costs an example, int32 [B] each.

    nfe: evaluations of the denoiser (a guided one counts as one); accepted, rejected: steps, of which a fixed grid
    rejects none; finished: bool [B], whether x came to its end, which a fixed grid always does.
    """

    x: jax.Array
    nfe: jax.Array
    accepted: jax.Array
    rejected: jax.Array
    finished: jax.Array


def initial_noise(keys, shape, sigma_max):
    """x at the noisiest level: sigma_max times normal noise. keys: [B]; returns [B, *shape] float32."""
    return sigma_max * randomness.normal(randomness.substream(keys, 'initial'), shape)


def level(sigma, x):
    """One noise level for the whole batch x: [B, ...]: [B]."""
    return jnp.full(x.shape[0], sigma, x.dtype)


def sampled(x, nfe: int, steps: int) -> Sampled:
    """What a sampler of a fixed number of evaluations and steps returns."""
    cost = jnp.zeros(x.shape[0], jnp.int32)
    return Sampled(x, cost + nfe, cost + steps, cost, cost == 0)


def finish(denoise, x, sigmas, each: int) -> Sampled:
    """The last step, to sigma = 0, where x becomes D, after N - 1 steps of `each` evaluations that led to x."""
    steps = len(sigmas) - 1
    return sampled(denoise(x, level(sigmas[-2], x)), each * (steps - 1) + 1, steps)


class Way(NamedTuple):
    """The paths' places at the two ends of a step, see `brownian`."""

    here: brownian.Place
    there: brownian.Place

    def noise(self, keys):
        """The step's own standard normal noise [B, ...]."""
        return brownian.between(keys, self.here, self.there)


def fold(step, x, sigmas, keys=None):
    """Folds step(x, sigma, sigma_next, way) over consecutive noise levels: one `lax.scan`.

    keys: [B] of the Brownian paths that the noise of the steps comes from; without them the ways are None.
    """

    def walk(carry, levels):
        x, here = carry
        sigma, sigma_next = levels
        # Nothing ends at 0 but the last step, and that has no noise.
        there = brownian.place(keys, x.shape[1:], jnp.where(sigma_next > 0, sigma_next, sigma))
        return (step(x, sigma, sigma_next, Way(here, there)), there), None

    levels = (sigmas[:-1], sigmas[1:])
    if keys is None:
        return lax.scan(lambda x, s: (step(x, *s, None), None), x, levels)[0]
    return lax.scan(walk, (x, brownian.place(keys, x.shape[1:], sigmas[0])), levels)[0][0]


def generate(denoise, sampler, sigmas, keys, shape, around=0.0) -> Sampled:
    """x_0: [B, *shape] from nothing but keys: [B]; the whole chain, to be called inside one `jit`.

    around: the picture that it starts from at level sigmas[0], of a shape that goes with x (SDEdit: Meng et al.
    2108.01073, Alg. 1).
    """
    x = around + initial_noise(keys, shape, sigmas[0])
    return sampler(denoise, x, sigmas, randomness.substream(keys, 'steps'))
