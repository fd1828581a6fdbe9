"""Whether a model heeds its condition: what guidance amplifies, and what silently fails to be learned."""

import jax.numpy as jnp

from diffusion.core import density as densities
from diffusion.core import precond as preconds
from diffusion.core import randomness


def condition_gap(denoiser, process, density, null):
    """The difference that the condition makes, as a share of what is still wrong: root mean squares of
    D(x; sigma, c) - D(x; sigma, null) over D(x; sigma, c) - x_0, at the noise levels of the training.

    0: the condition is ignored. denoiser: see `precond.denoiser`; null: the null condition, dict of [...]. Returns
    (params, x0: [B, H, W, C], cond: dict of [B, ...], key) -> scalar.
    """

    def gap(params, x0, cond, key):
        batch = x0.shape[0]
        keys = randomness.examples(randomness.stream(key, 'gap'), jnp.arange(batch))
        u = densities.stratified(randomness.stream(key, 'gap levels'), batch, jnp.arange(batch))
        sigma = density(process, u)
        x = x0 + preconds.per_example(sigma, x0) * randomness.normal(keys, x0.shape[1:])
        without = {name: jnp.broadcast_to(null[name], value.shape) for name, value in cond.items()}
        told = denoiser(params, x, sigma, cond)
        untold = denoiser(params, x, sigma, without)
        return jnp.sqrt(jnp.mean((told - untold) ** 2) / jnp.mean((told - x0) ** 2))

    return gap
