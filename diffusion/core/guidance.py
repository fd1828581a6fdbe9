"""Guidance: from a conditional denoiser, and what is held against it, to a denoiser.

A conditional denoiser is (x, sigma, cond) -> E[x_0 | x, cond], with cond a dict of arrays [B, ...] and sigma: [B], one
an example. Guidance = (denoise, cond, beside: `Beside`) -> Denoise.

Every rule but `none` moves the wanted prediction D_c away from another one, D_o (that of the null or a negative
condition, or of a weaker model): D_c + (scale - 1) direction(D_c, D_o). Scale 1 is the wanted prediction, bit for bit.
What the rules share:

scale: may be traced; sigma_low, sigma_high: guidance acts where sigma_low < sigma <= sigma_high and elsewhere the
scale is 1 (0: no bound), the limited interval of Kynkaanniemi et al. 2404.07724; rescale: see `rescaled`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffusion.core import precond as preconds

__all__ = ['none', 'classifier_free', 'zero_star', 'apg', 'frequency_decoupled', 'auto']


class Beside(NamedTuple):
    """What a guidance leans on besides the condition.

    null: the condition to move away from, the null one or a negative prompt's, dict of [B, ...]; also: further
    conditions, each with its own scale in scales: [K] (`classifier_free`); weak: a conditional denoiser (`auto`).
    """

    null: dict
    also: tuple[dict, ...] = ()
    scales: jax.Array | tuple = ()
    weak: Callable | None = None


def none():
    """The conditional model as it is."""
    return lambda denoise, cond, beside: lambda x, sigma: denoise(x, sigma, cond)


def classifier_free(scale: float = 1.0, sigma_low: float = 0.0, sigma_high: float = 0.0, rescale: float = 0.0):
    """D_null + scale (D_cond - D_null), in one call of twice the batch: Ho & Salimans 2207.12598.

    Their weight w is scale - 1: here scale 1 is exactly the conditional model and scale 0 the unconditional one.
    Further conditions add scales_i (D_i - D_null) each, in the same call: Liu et al. 2206.01714. Outside of the
    interval they are off, too.
    """
    _check(sigma_low, sigma_high, rescale)

    def guide(denoise, cond, beside):
        predict = _together(denoise, cond, beside.null, *beside.also)

        def guided(x, sigma):
            wanted, other, *others = predict(x, sigma)
            inside = _inside(sigma, sigma_low, sigma_high)
            strength = jnp.where(inside, scale, 1.0)
            mixed = wanted + _each(strength - 1, x) * (wanted - other)
            for weight, prediction in zip(beside.scales, others, strict=True):
                mixed = mixed + weight * (prediction - other)
            changed = inside if others else strength != 1
            return jnp.where(_each(changed, x), rescaled(mixed, wanted, rescale), wanted)

        return guided

    return guide


def zero_star(
    scale: float = 1.0,
    sigma_low: float = 0.0,
    sigma_high: float = 0.0,
    rescale: float = 0.0,
    zero_above: float = 0.0,
):
    """CFG-Zero*: classifier-free, with the null velocity first scaled to fit the conditional one best.

    Fan et al. 2503.18886, Sec. 4: v = s v_null + scale (v_cond - s v_null), s = <v_cond, v_null> / |v_null|**2, for the
    velocity of the straight path, which in these coordinates is v = (x / (1 + sigma) - D) (1 + sigma) / sigma for
    every process. zero_above: see `zero_init` (0: off; the paper zeroes the first 4 % of the steps).
    """
    _check_at_least_zero('zero_above', zero_above)

    def direction(wanted, other, x, sigma):
        rest = at_rest(x, sigma)
        fit = _dot(rest - wanted, rest - other) / _positive(_dot(rest - other, rest - other))
        return wanted - (rest + fit * (other - rest))

    rule = _away(direction, scale, sigma_low, sigma_high, rescale)
    if not zero_above:
        return rule
    return lambda denoise, cond, beside: zero_init(rule(denoise, cond, beside), zero_above)


def apg(
    scale: float = 1.0,
    sigma_low: float = 0.0,
    sigma_high: float = 0.0,
    rescale: float = 0.0,
    parallel: float = 0.0,
    norm: float = 0.0,
):
    """Adaptive projected guidance: D_cond + (scale - 1) (orthogonal + parallel part) of D_cond - D_null to D_cond.

    Sadat et al. 2410.02416. parallel: their eta, the share kept of the part along D_cond, which is what
    saturates; with 1 and norm = 0 this is `classifier_free`. norm: their r, the longest D_cond - D_null may be over all
    pixels of an image (0: any length). Their momentum is left out: it makes a denoiser remember its earlier calls,
    whose order only a sampler knows.
    """
    _check_at_least_zero('norm', norm)

    def direction(wanted, other, x, sigma):
        difference = wanted - other
        if norm:
            difference = difference * (norm / jnp.maximum(jnp.sqrt(_dot(difference, difference)), norm))
        along = wanted * (_dot(difference, wanted) / _positive(_dot(wanted, wanted)))
        return (difference - along) + parallel * along

    return _away(direction, scale, sigma_low, sigma_high, rescale)


def frequency_decoupled(
    scale: float = 1.0,
    sigma_low: float = 0.0,
    sigma_high: float = 0.0,
    rescale: float = 0.0,
    low: float = 0.5,
    octaves: int = 1,
):
    """Classifier-free with a scale for fine structure and a smaller one for coarse: Sadat et al. 2506.19713, Alg. 2.

    low: the coarse band's scale is 1 + low (scale - 1): 1 is `classifier_free`, 0 leaves the coarse band unguided;
    octaves: how many octaves of frequency are fine, see `coarse`. The paper splits by a Laplacian pyramid, here without
    its decimation, so that nothing depends on whether a side is even.
    """
    _check_at_least_zero('low', low)
    if octaves < 1:
        raise ValueError(f'octaves={octaves}: at least 1')

    def direction(wanted, other, x, sigma):
        difference = wanted - other
        return difference + (low - 1) * coarse(difference, octaves)

    return _away(direction, scale, sigma_low, sigma_high, rescale)


def auto(scale: float = 1.0, sigma_low: float = 0.0, sigma_high: float = 0.0, rescale: float = 0.0):
    """Autoguidance, D_weak + scale (D - D_weak): Karras et al. 2406.02507.

    The weak model (smaller, or trained for less long) is told the same condition. Both are called on the batch itself.
    """

    def predictions(denoise, cond, beside):
        return lambda x, sigma: (denoise(x, sigma, cond), beside.weak(x, sigma, cond))

    return _away(_difference, scale, sigma_low, sigma_high, rescale, predictions)


def classifier(denoise, log_prob, scale=1.0):
    """D + scale sigma**2 grad_x log p(y | x, sigma): Dhariwal & Nichol 2105.05233, Sec. 4, in these coordinates.

    denoise: a Denoise of p(x); log_prob: (x, sigma: [B]) -> [B], differentiable, of noisy x. With the exact log
    p(y | x) and scale 1 this is the denoiser of p(x | y); for the gradient by x_t, theirs by x is divided by alpha.
    """

    def guided(x, sigma):
        # The sum, because the examples do not depend on each other: its gradient is that of each.
        gradient = jax.grad(lambda x: jnp.sum(log_prob(x, sigma)))(x)
        return denoise(x, sigma) + scale * _each(sigma, x) ** 2 * gradient

    return guided


def zero_init(denoise, above):
    """denoise, but for sigma > above the velocity of the straight path is 0: Fan et al. 2503.18886, Sec. 4.2.

    There the first steps of a sampler leave x_t = x / (1 + sigma) where it is.
    """
    return lambda x, sigma: jnp.where(_each(sigma > above, x), at_rest(x, sigma), denoise(x, sigma))


def at_rest(x, sigma):
    """The prediction x / (1 + sigma) under which the straight path's x_t does not move: [B, ...]."""
    return x / (1 + _each(sigma, x))


def rescaled(guided, wanted, share):
    """guided with its standard deviation over an image brought back to wanted's: Lin et al. 2305.08891, Sec. 3.4.

    share: their phi in [0, 1], how far. They apply it to the network's output, which is v in their model; here it is
    the predicted image, the only one of the two whose contrast is that of the result, whatever the network predicts.
    """
    if not share:
        return guided
    axes = tuple(range(1, guided.ndim))
    want, have = (jnp.std(prediction, axes, keepdims=True) for prediction in (wanted, guided))
    return guided * (share * want / _positive(have) + (1 - share))


def coarse(x, octaves: int):
    """The coarse part of x: [B, H, W, C], without its upper octaves of frequency.

    Each octave is a pass of the binomial filter (1, 4, 6, 4, 1) / 16 (Burt & Adelson 1983) along both sides, with twice
    the spacing of the one before; pixels outside mirror those inside, so the mean stays.
    """
    for octave in range(octaves):
        for axis in (1, 2):
            size, gap = x.shape[axis], 2**octave
            # Positions reflected at the borders, however far outside and however small the side.
            places = (jnp.arange(size)[:, None] + gap * jnp.arange(-2, 3)) % (2 * size)
            places = jnp.minimum(places, 2 * size - 1 - places)
            taps = jnp.moveaxis(jnp.take(x, places, axis=axis), axis + 1, -1)
            x = jnp.sum(taps * jnp.asarray([1.0, 4.0, 6.0, 4.0, 1.0]) / 16, -1)
    return x


def _difference(wanted, other, x, sigma):
    return wanted - other


def _away(direction, scale, sigma_low, sigma_high, rescale, predictions=None):
    """Guidance by one direction (wanted, other, x, sigma) -> [B, ...]."""
    _check(sigma_low, sigma_high, rescale)
    predictions = predictions or (lambda denoise, cond, beside: _together(denoise, cond, beside.null))

    def guide(denoise, cond, beside):
        predict = predictions(denoise, cond, beside)

        def guided(x, sigma):
            wanted, other = predict(x, sigma)
            strength = jnp.where(_inside(sigma, sigma_low, sigma_high), scale, 1.0)
            mixed = wanted + _each(strength - 1, x) * direction(wanted, other, x, sigma)
            return jnp.where(_each(strength != 1, x), rescaled(mixed, wanted, rescale), wanted)

        return guided

    return guide


def _together(denoise, *conds):
    """(x, sigma) -> one prediction a condition, [len(conds), B, ...], in one call."""
    count = len(conds)
    mixed = jax.tree.map(_interleave, *conds)

    def predict(x, sigma):
        found = denoise(_interleave(*[x] * count), _interleave(*[sigma] * count), mixed)
        return jnp.moveaxis(found.reshape(-1, count, *x.shape[1:]), 1, 0)

    return predict


def _interleave(*arrays):
    # Side by side, not end to end: a batch that is sharded over devices stays where it is.
    return jnp.stack(arrays, 1).reshape(len(arrays) * arrays[0].shape[0], *arrays[0].shape[1:])


def _inside(sigma, low, high):
    inside = sigma > low
    return inside & (sigma <= high) if high else inside


def _each(value, x):
    return preconds.per_example(value, x)


def _dot(a, b):
    """Inner products over an image: [B, 1, ...]."""
    return jnp.sum(a * b, tuple(range(1, a.ndim)), keepdims=True)


def _positive(value):
    """A divisor: where it is 0, so is what it divides."""
    return jnp.where(value > 0, value, 1.0)


def _check(sigma_low, sigma_high, rescale):
    _check_at_least_zero('sigma_low', sigma_low)
    if sigma_high and sigma_high <= sigma_low:
        raise ValueError(f'sigma_high={sigma_high}: above sigma_low={sigma_low}, or 0 for no bound')
    if not 0 <= rescale <= 1:
        raise ValueError(f'rescale={rescale}: must be in [0, 1]')


def _check_at_least_zero(name, value):
    if value < 0:
        raise ValueError(f'{name}={value}: must not be negative')
