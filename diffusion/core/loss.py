"""The training loss: denoising at random noise levels.

Loss = (params, x0, cond, key) -> scalar, metrics.
"""

import jax
import jax.numpy as jnp

from diffusion.core import density as densities
from diffusion.core import precond as preconds
from diffusion.core import randomness


def drop(keys, cond, null, rate):
    """cond with whole examples replaced by the null condition with probability rate: Ho & Salimans 2207.12598.

    keys: [B]; cond: dict of [B, ...]; null: dict of [...] without the batch axis.
    """
    dropped = randomness.uniform(keys) < rate
    return {name: jnp.where(preconds.per_example(dropped, value), null[name], value) for name, value in cond.items()}


def denoising(denoiser, precond, process, density, null, cond_dropout: float = 0.0):
    """E |D(x_0 + sigma eps; sigma) - x_0|**2 / out(sigma)**2: Karras et al. 2206.00364, Eqs. 2 and 8.

    With this weight the loss is the plain squared error of the network F, for every prediction type. Noise level,
    noise, dropout and the dropped conditions of an example follow from key and its place in the global batch.

    denoiser: see `precond.denoiser`; null: the null condition, dict of [...]; cond_dropout: in [0, 1].
    Returns the loss with x0: [B, H, W, C] float32, cond: dict of [B, ...].
    """

    def loss(params, x0, cond, key):
        batch = x0.shape[0]
        keys = randomness.examples(randomness.stream(key, 'examples'), jnp.arange(batch))
        sigma = density(process, densities.stratified(randomness.stream(key, 'sigma'), batch))
        noise = randomness.normal(randomness.substream(keys, 'noise'), x0.shape[1:])
        if cond and cond_dropout:
            cond = drop(randomness.substream(keys, 'cond'), cond, null, cond_dropout)
        x = x0 + preconds.per_example(sigma, x0) * noise
        error = denoiser(params, x, sigma, cond, randomness.substream(keys, 'dropout')) - x0
        weight = preconds.per_example(1 / precond(sigma).out ** 2, x0)
        value = jnp.mean(weight * error**2)
        return value, {'loss': value}

    return loss


def to_unit(image) -> jax.Array:
    """uint8 [0, 255] to float32 [-1, 1]; arrays that are float already stay as they are."""
    return image.astype(jnp.float32) / 127.5 - 1 if image.dtype == jnp.uint8 else image


def to_uint8(x) -> jax.Array:
    """float [-1, 1] to uint8, rounded and clipped: the inverse of `to_unit`."""
    return jnp.clip(jnp.round((x + 1) * 127.5), 0, 255).astype(jnp.uint8)
