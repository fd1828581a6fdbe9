"""The training loss: denoising at random noise levels.

Loss = (params, x0, cond, key, memory) -> scalar, (metrics, memory), where memory is what the loss keeps from step to
step, a dict of arrays, empty or None where it keeps nothing. A metric is a mean, or a pair [sum, weight].
"""

import dataclasses
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffusion.core import adaptive, augment, randomness, uncertainty, variance
from diffusion.core import density as densities
from diffusion.core import precond as preconds
from diffusion.core import weighting as weightings

# Ranges of sigma whose losses are logged apart.
EDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
HYBRID = 0.001  # weight of the variational bound that teaches the variance: Nichol & Dhariwal 2102.09672, Eq. 16


@dataclasses.dataclass(frozen=True)
class Loss:
    """The loss of a global batch, which can be taken in parts.

    part: (params, x0: [b, ...], cond, key, memory, place) -> scalar, (metrics, seen), where place = (places, B): these
    rows stand at places: int [b] of a global batch of B, whose loss is the mean over its parts of one size.
    remember: (memory, seen) -> memory, seen summed over the parts.
    """

    part: Callable
    remember: Callable

    def __call__(self, params, x0, cond, key, memory=None):
        """scalar, (metrics, memory) of a whole batch at once."""
        place = jnp.arange(x0.shape[0]), x0.shape[0]
        value, (metrics, seen) = self.part(params, x0, cond, key, memory, place)
        return value, (metrics, self.remember(memory, seen))


def drop(keys, cond, null, rate):
    """cond with whole examples replaced by the null condition with probability rate: Ho & Salimans 2207.12598.

    keys: [B]; cond: dict of [B, ...]; null: dict of [...] without the batch axis.
    """
    dropped = randomness.uniform(keys) < rate
    return {name: jnp.where(preconds.per_example(dropped, value), null[name], value) for name, value in cond.items()}


def denoising(
    denoiser,
    precond,
    process,
    density,
    null,
    cond_dropout: float = 0.0,
    *,
    weighting: weightings.Weighting | None = None,
    adapt: bool = False,
    uncertain: bool = False,
    variance_steps: int = 0,
    augmentation: augment.Augment | None = None,
    dropouts: dict[str, float] | None = None,
    pictures: Callable | None = None,
) -> Loss:
    """E weight |D(x_0 + sigma eps; sigma) - x_0|**2: Karras et al. 2206.00364, Eq. 2.

    Noise level, noise, dropout, the dropped conditions and the augmentation of an example follow from key and its place
    in the global batch.

    denoiser: see `precond.denoiser`; null: the null condition, dict of [...]; cond_dropout: in [0, 1]; weighting:
    None for `weighting.uniform`, the plain squared error of the network F for every prediction type; adapt: whether
    noise levels follow `adaptive`, which finds its memory under that name; uncertain: whether the loss is tempered by
    the `uncertainty` in params; variance_steps: T of the chain whose reverse variance is learned besides, with
    `variance.moments` as the denoiser (0: none); augmentation: of x0, before the noise, whose labels, where it has any,
    the denoiser finds in cond as 'augment', also where the other conditions are dropped; dropouts: of single
    conditions by name, each dropped by itself besides the cond_dropout of all together; pictures: of `conditioning`,
    made of the augmented x0, which the denoiser finds in cond as 'picture'.

    Returns the loss with x0: [B, H, W, C] float32, cond: dict of [B, ...], memory: dict. Its metric `loss` is that
    expectation whatever the options; `loss_sigma_*` are pairs [sum, weight], the loss in ranges of sigma.
    """
    weigh = weighting or weightings.uniform()

    def part(params, x0, cond, key, memory, place):
        places, batch = place
        keys = randomness.examples(randomness.stream(key, 'examples'), places)
        u = densities.stratified(randomness.stream(key, 'sigma'), batch, places)
        u, importance = adaptive.draw(memory['adaptive'], u) if adapt else (u, jnp.ones(u.shape))
        sigma, slope = jax.jvp(lambda u: density(process, u), (u,), (jnp.ones_like(u),))
        noise = randomness.normal(randomness.substream(keys, 'noise'), x0.shape[1:])
        if cond and cond_dropout:
            cond = drop(randomness.substream(keys, 'cond'), cond, null, cond_dropout)
        for name, rate in (dropouts or {}).items():
            cond = cond | drop(randomness.substream(keys, f'cond {name}'), {name: cond[name]}, null, rate)
        if augmentation:
            x0, labels = augmentation.apply(randomness.substream(keys, 'augment'), x0)
            cond = {**cond, 'augment': labels} if augmentation.labels else cond
        if pictures:
            cond = {**cond, 'picture': pictures(randomness.substream(keys, 'picture'), x0)}
        x = x0 + preconds.per_example(sigma, x0) * noise
        found = denoiser(params, x, sigma, cond, randomness.substream(keys, 'dropout'))
        estimate, fraction = found if variance_steps else (found, None)
        weight = weigh(weightings.Level(sigma, precond(sigma).out, slope / sigma)) * importance
        metrics = {}
        if uncertain:
            log_loss = uncertainty.log_loss(params, sigma)
            value = _mean(weight * jnp.exp(-log_loss), estimate - x0) + jnp.mean(importance * log_loss)
            metrics['loss'] = _mean(weight, estimate - x0)
        else:
            value = metrics['loss'] = _mean(weight, estimate - x0)
        if variance_steps:
            level = (process, sigma, slope, variance_steps)
            metrics['vlb'] = jnp.mean(importance * _bound(x0, estimate, fraction, *level))
            value = value + HYBRID * metrics['vlb']
        error = jax.lax.stop_gradient(weight * _per_example_mean((estimate - x0) ** 2))
        metrics |= _by_sigma(sigma, error, importance)
        seen = adaptive.seen(memory['adaptive']['weight'].size, u, error / importance) if adapt else {}
        return value, (metrics, seen)

    def remember(memory, seen):
        return {**memory, 'adaptive': adaptive.remember(memory['adaptive'], seen)} if adapt else memory

    return Loss(part, remember)


def _mean(weight, error):
    return jnp.mean(preconds.per_example(weight, error) * error**2)


def _per_example_mean(x):
    return jnp.mean(x, range(1, x.ndim))


def _bound(x0, estimate, fraction, process, sigma, slope, steps):
    """The terms L_1 ... L_{T-1} of the variational bound of a chain of T steps, nats a dimension: [B], whose mean over
    the density is their sum. A step from t to t - 1 / T, or to t_min where that is nearer; slope: d sigma / du."""
    t, rate = jax.jvp(process.nsr_inverse, (sigma,), (slope,))
    before = jnp.maximum(t - 1 / steps, process.t_min)
    inside = before < t
    sigma_next = jnp.where(inside, process.nsr(before), 0.5 * sigma)
    levels = (preconds.per_example(value, x0) for value in (sigma, sigma_next))
    terms = _per_example_mean(variance.divergence(x0, estimate, fraction, *levels))
    return steps * rate * jnp.where(inside, terms, 0.0)


def _by_sigma(sigma, error, importance):
    """{'loss_sigma_...': [sum of error, sum of importance]}: error, importance: [B], the first times the second."""
    pairs = jnp.stack([error, importance], -1)
    index = jnp.searchsorted(jnp.asarray(EDGES), sigma, side='right')
    inside = jax.nn.one_hot(index, len(EDGES) + 1, dtype=bool)
    ends = itertools.pairwise(['0', *(f'{edge:g}' for edge in EDGES), 'inf'])
    return {
        # Chosen, not multiplied by 0: what is not finite in one range must not be so in the others.
        f'loss_sigma_{i}_{low}-{high}': jnp.sum(jnp.where(inside[:, i, None], pairs, 0.0), 0)
        for i, (low, high) in enumerate(ends)
    }


def to_unit(image) -> jax.Array:
    """uint8 [0, 255] to float32 [-1, 1]; arrays that are float already stay as they are."""
    return image.astype(jnp.float32) / 127.5 - 1 if image.dtype == jnp.uint8 else image


def to_uint8(x) -> jax.Array:
    """float [-1, 1] to uint8, rounded and clipped: the inverse of `to_unit`."""
    return jnp.clip(jnp.round((x + 1) * 127.5), 0, 255).astype(jnp.uint8)
