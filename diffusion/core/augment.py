"""Augmentation of training images on the device, each example by its own key.

Augment = (keys: [B], x0: [B, H, W, C]) -> x0, labels: [B, n]: what was done to an example goes to the network as n
numbers, all 0 where nothing was. A network that is told so learns the images as they are under label 0, and samples are
drawn there: the augmentation does not leak into them (Karras et al. 2206.00364, App. F.2).
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.core import randomness

__all__ = ['flip', 'edm']

# The low-pass pair of the wavelet CDF 9/7, from the centre outwards: Cohen, Daubechies & Feauveau 1992, Table 6.2. The
# first is orthogonal to the second's shifts by 2, so that a picture made larger by one is made smaller by the other
# without loss; both are symmetric, so that this is so of a mirrored or quarter-turned picture too.
SMALLER = (0.602949018236358, 0.266864118442872, -0.078223266528988, -0.016864118442875, 0.026748757410810)
LARGER = (1.115087052456994, 0.591271763114247, -0.057543526228500, -0.091271763114250)
SCALE = 2**0.2  # standard deviation of a scaling and of a stretching, as a factor
SHIFT = 1 / 8  # of a translation, as a share of the side


@dataclasses.dataclass(frozen=True)
class Augment:
    """labels: how many numbers the network is told, 0: none; apply: see the top of the file."""

    labels: int
    apply: Callable


def flip(p: float = 0.5) -> Augment:
    """Left and right exchanged with probability p. The network is not told: mirrored images are drawn as well."""
    _check(p)

    def apply(keys, x):
        return _chosen(randomness.uniform(keys) < p, x[:, :, ::-1], x), jnp.zeros((len(x), 0))

    return Augment(0, apply)


def edm(p: float = 0.12) -> Augment:
    """Left and right exchanged in half of the images and, each with probability p, top and bottom exchanged, scaled,
    rotated, stretched along a direction, shifted; the network is told which and how much by nine numbers.

    Karras et al. 2206.00364, Table 6, with its constants; p is 0.12 for their CIFAR-10, 0.15 for FFHQ and AFHQ.
    """
    _check(p)

    def apply(keys, x):
        def uniform(name):
            return randomness.uniform(randomness.substream(keys, name))

        def normal(name):
            return jnp.where(on[name], randomness.normal(randomness.substream(keys, f'{name} by'), (2,)).T, 0.0)

        on = {name: uniform(name) < p for name in ('top', 'scale', 'turn', 'stretch', 'shift')}
        mirrored, upended = uniform('mirror') < 0.5, on['top'] & (uniform('top by') < 0.5)
        turn = jnp.where(on['turn'], jnp.pi * (2 * uniform('turn by') - 1), 0.0)
        along = jnp.pi * (2 * uniform('stretch along') - 1)
        scale, stretch, shift = normal('scale')[0], normal('stretch')[0], normal('shift')
        labels = [mirrored, upended, scale, jnp.cos(turn) - 1, jnp.sin(turn)]
        labels += [stretch * jnp.cos(along), stretch * jnp.sin(along), *shift]
        x = _chosen(mirrored, x[:, :, ::-1], x)
        x = _chosen(upended, x[:, ::-1], x)
        sides = jnp.asarray(x.shape[2:0:-1], jnp.float32)
        warped = jax.vmap(warp)(x, _inverse(scale, turn, along, stretch), (SHIFT * sides[:, None] * shift).T)
        moved = on['scale'] | on['turn'] | on['stretch'] | on['shift']
        return _chosen(moved, warped, x), jnp.stack(labels, -1).astype(jnp.float32)

    return Augment(9, apply)


def _check(p):
    if not 0 <= p <= 1:
        raise ValueError(f'p={p}: a probability, in [0, 1]')


def _chosen(which, one, other):
    return jnp.where(which[:, None, None, None], one, other)


def _rotation(angle):
    """[B] -> [B, 2, 2]: from x towards y."""
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([jnp.stack([cos, -sin], -1), jnp.stack([sin, cos], -1)], -2)


def _inverse(scale, turn, along, stretch):
    """The inverse of: scaled by SCALE**scale, turned, stretched by SCALE**stretch in the direction along and by its
    inverse across: [B] each -> [B, 2, 2]."""
    factors = jnp.stack([SCALE**-stretch, SCALE**stretch], -1)
    stretched = _product(_rotation(along) * factors[:, None], _rotation(-along))
    return SCALE ** -scale[:, None, None] * _product(_rotation(-turn), stretched)


def _product(a, b):
    # Not a matrix product, which some accelerators round to a few bits.
    return jnp.sum(a[..., :, :, None] * b[..., None, :, :], -2)


def warp(x, inverse, shift):
    """The picture that has at p + shift what x: [H, W, C] has at inverse @ p, p: (x, y) from its centre in pixels.

    inverse: [2, 2], shift: [2]; H, W at least 2. Beyond its edges x goes on as its mirror image. x is made larger by 2
    by a wavelet, read off between four points at twice the pixels wanted, and made smaller again (as Karras et al.
    2206.00364, App. F.2, with another wavelet), so that a picture may shrink by 2 without aliases. Quarter turns of
    squares, mirrorings and shifts by whole pixels move pixels and change none, up to rounding.
    """
    height, width, _ = x.shape
    (taller, shorter), (wider, narrower) = _filters(height), _filters(width)
    exactly = jax.lax.Precision.HIGHEST
    large = jnp.einsum('hi,iwc->hwc', taller, x, precision=exactly)
    large = jnp.einsum('wj,hjc->hwc', wider, large, precision=exactly)
    # Places in half pixels: between -4 and 4 beyond the last, as far as the filter reaches.
    centre = jnp.asarray([width - 1.0, height - 1.0])
    y, x = jnp.meshgrid(*(jnp.arange(side.shape[1]) - 4.0 for side in (shorter, narrower)), indexing='ij')
    x, y = x - centre[0] - 2 * shift[0], y - centre[1] - 2 * shift[1]
    read = _bilinear(
        large,
        inverse[1, 0] * x + inverse[1, 1] * y + centre[1],
        inverse[0, 0] * x + inverse[0, 1] * y + centre[0],
    )
    small = jnp.einsum('hi,iwc->hwc', shorter, read, precision=exactly)
    return jnp.einsum('wj,hjc->hwc', narrower, small, precision=exactly)


def _filters(side):
    """What makes a side larger and smaller, as matrices: [2 side - 1, side], [side, 2 side + 7]."""
    larger = np.zeros((2 * side - 1, side), np.float32)
    for place in range(2 * side - 1):
        for source in range((place - 2) // 2, (place + 3) // 2 + 1):
            larger[place, _mirrored(source, side)] += LARGER[abs(place - 2 * source)]
    smaller = np.zeros((side, 2 * side + 7), np.float32)
    for place in range(side):
        for tap in range(-4, 5):
            smaller[place, 2 * place + tap + 4] = SMALLER[abs(tap)]
    return larger, smaller


def _mirrored(index, side):
    """The index: int in [0, side) that a mirror image beyond the edges shows, the edge itself once."""
    period = 2 * side - 2
    return side - 1 - abs(index % period - (side - 1))


def _bilinear(image, row, column):
    """image: [H, W, C] at places row, column: [...], between its four neighbours -> [..., C]."""
    height, width, channels = image.shape
    flat = image.reshape(-1, channels)
    top, left = jnp.floor(row), jnp.floor(column)
    down, right = (row - top)[..., None], (column - left)[..., None]

    def at(below, beside):
        i = _mirrored(top.astype(jnp.int32) + below, height)
        return flat[i * width + _mirrored(left.astype(jnp.int32) + beside, width)]

    upper = at(0, 0) * (1 - right) + at(0, 1) * right
    lower = at(1, 0) * (1 - right) + at(1, 1) * right
    return upper * (1 - down) + lower * down
