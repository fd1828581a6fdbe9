"""Pictures that the network is told beside the noisy one, as further input channels: what is known of a picture with a
hole, a small picture to be enlarged, edges to be filled.

A maker is a frozen dataclass with

    width                           K, the channels of the condition
    null                            numpy [1, 1, K], the condition that says nothing
    dropped                         the share of examples trained with it; 0: the model always needs a condition
    serves                          the actions of editing that such a model can be asked for
    pictures(keys: [B], x0)         [B, H, W, K] of x0: [B, H, W, C], what it is trained with; by the keys alone
    given(value, change, noise)     [1, H, W, K] of what an edit is given, see `operators.Measurement`
    shown(picture)                  [B, H, W, C] in the units of x_0, for the eye
    adherence(picture, x0, drawn)   {name: scalar}, how well samples keep to conditions that were made of x0

x0 is in the model's units: pictures in [-1, 1].
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jax import lax

from diffusion.core import masks, operators, randomness

__all__ = ['Inpaint', 'SuperResolution', 'Edges']

CLOSE = 0.125  # two values of a pixel agree within it: 16 levels of 8 bits
NEAR = 64  # an edge is found within this part of the longer side
MARK = (1.0, -1.0, 1.0)  # what is hidden, to the eye: magenta, as no picture is


@dataclasses.dataclass(frozen=True)
class Inpaint:
    """What is not hidden, 0 elsewhere, and the mask, 1 = hidden.

    boxes, strokes, half: how often each kind of mask is drawn against the others (`masks`); full: the share of examples
    of which all is hidden, which a model needs to draw from nothing, and for methods that do not use the condition.
    """

    boxes: float = 1.0
    strokes: float = 1.0
    half: float = 1.0
    full: float = 0.1
    channels: int = 3

    serves: ClassVar = ('inpaint', 'outpaint')

    def __post_init__(self):
        if min(self.boxes, self.strokes, self.half) < 0 or not 0 <= self.full <= 1:
            raise ValueError('boxes, strokes and half are at least 0, full is a share in [0, 1]')
        if not self.boxes + self.strokes + self.half and self.full < 1:
            raise ValueError('boxes, strokes and half are all 0, so no mask can be drawn: leave one above 0')

    @property
    def width(self) -> int:
        return self.channels + 1

    @property
    def null(self) -> np.ndarray:
        return np.asarray([0] * self.channels + [1], np.float32).reshape(1, 1, -1)

    @property
    def dropped(self) -> float:
        return self.full

    def check(self, shape) -> None:
        """Any picture can have holes."""

    def masks(self, keys, height: int, width: int):
        """keys: [B] -> [B, H, W, 1]."""
        kinds = (masks.boxes, masks.strokes, masks.half)
        shares = np.asarray([self.boxes, self.strokes, self.half], np.float64)
        shares = (1 - self.full) * shares / max(shares.sum(), 1e-12)
        chosen = jnp.searchsorted(
            jnp.asarray(np.cumsum(shares), jnp.float32), randomness.uniform(randomness.substream(keys, 'kind')), 'right'
        )
        every = [kind(randomness.substream(keys, kind.__name__), height, width) for kind in kinds]
        every.append(masks.full(keys, height, width))
        return jnp.take_along_axis(jnp.stack(every), chosen[None, :, None, None], 0)[0, ..., None]

    def pictures(self, keys, x0):
        return _hidden(x0, self.masks(keys, *x0.shape[1:3]))

    def given(self, value, change, noise):
        if noise:
            raise ValueError('--noise: this model knows nothing of noise in what is kept: leave it out')
        return _hidden(value, (change > 0).astype(value.dtype))

    def shown(self, picture):
        mark = jnp.asarray(MARK if self.channels == 3 else (0.0,) * self.channels)
        return jnp.where(picture[..., -1:] > 0, mark, picture[..., :-1])

    def adherence(self, picture, x0, drawn):
        """agreement: the share of the known pixels that are the given ones within CLOSE in all channels; colour: the
        mean |difference| there."""
        known = 1 - picture[..., -1]
        apart = jnp.abs(drawn - x0)
        count = jnp.maximum(jnp.sum(known), 1.0)
        return {
            'agreement': jnp.sum(known * jnp.all(apart <= CLOSE, -1)) / count,
            'colour': jnp.sum(known * jnp.mean(apart, -1)) / count,
        }


def _hidden(x0, mask):
    return jnp.concatenate([x0 * (1 - mask), mask], -1)


@dataclasses.dataclass(frozen=True)
class SuperResolution:
    """The means over squares of pixels, each repeated to the size of the picture, with noise, and how much noise.

    factor: side of a square; noise: the largest standard deviation of the noise, drawn evenly from [0, noise] for each
    example (conditioning augmentation, Ho et al. 2106.15282, Sec. 4), so that what is enlarged may be the work of
    another model; dropout: share of examples without the condition. The last channel is the deviation over `noise`.
    """

    factor: int = 2
    noise: float = 0.2
    dropout: float = 0.1
    channels: int = 3

    serves: ClassVar = ('upscale',)

    def __post_init__(self):
        if self.factor < 2 or not self.noise >= 0 or not 0 <= self.dropout < 1:
            raise ValueError('factor is at least 2, noise at least 0, dropout a share in [0, 1)')

    @property
    def width(self) -> int:
        return self.channels + 1

    @property
    def null(self) -> np.ndarray:
        return np.asarray([0] * self.channels + [-1], np.float32).reshape(1, 1, -1)

    @property
    def dropped(self) -> float:
        return self.dropout

    def check(self, shape) -> None:
        if shape[0] % self.factor or shape[1] % self.factor:
            raise ValueError(f'pictures of {shape[0]} x {shape[1]} do not divide by factor={self.factor}')

    def pictures(self, keys, x0):
        small = operators.downsample(self.factor).apply(x0)
        level = self.noise * randomness.uniform(randomness.substream(keys, 'level'))[:, None, None, None]
        small = small + level * randomness.normal(randomness.substream(keys, 'noise'), small.shape[1:])
        return _dropped(keys, self._picture(small, level), self)

    def given(self, value, change, noise):
        if noise > self.noise:
            raise ValueError(f'--noise: this model knows noise up to a deviation of {self.noise * 127.5:.3g} levels')
        return self._picture(value, jnp.full((1, 1, 1, 1), noise, value.dtype))

    def _picture(self, small, level):
        large = jnp.repeat(jnp.repeat(small, self.factor, 1), self.factor, 2)
        share = level / self.noise if self.noise else jnp.zeros_like(level)
        return jnp.concatenate([large, jnp.broadcast_to(share, (*large.shape[:3], 1)).astype(large.dtype)], -1)

    def shown(self, picture):
        return picture[..., :-1]

    def adherence(self, picture, x0, drawn):
        """agreement: the share of the squares whose means are the given ones (without the noise) within CLOSE in all
        channels; colour: the mean |difference| of the means."""
        told = (picture[:, 0, 0, -1] >= 0).astype(jnp.float32)
        shrunk = operators.downsample(self.factor).apply
        apart = jnp.abs(shrunk(drawn) - shrunk(x0))
        count = jnp.maximum(jnp.sum(told), 1.0)
        return {
            'agreement': jnp.sum(told * jnp.mean(jnp.all(apart <= CLOSE, -1), (1, 2))) / count,
            'colour': jnp.sum(told * jnp.mean(apart, (1, 2, 3))) / count,
        }


@dataclasses.dataclass(frozen=True)
class Edges:
    """Where a picture has edges: 1 there, -1 elsewhere, in one channel.

    threshold: of the length of the gradient, in units of x_0 a pixel, Sobel's, of the mean over the channels; dropout:
    share of examples without the condition, which is 0 everywhere.
    """

    threshold: float = 0.2
    dropout: float = 0.1
    channels: int = 3

    serves: ClassVar = ('trace',)

    def __post_init__(self):
        if not self.threshold > 0 or not 0 <= self.dropout < 1:
            raise ValueError('threshold is above 0, dropout a share in [0, 1)')

    width: ClassVar = 1
    null: ClassVar = np.zeros((1, 1, 1), np.float32)

    @property
    def dropped(self) -> float:
        return self.dropout

    def check(self, shape) -> None:
        """Any picture may have edges."""

    def pictures(self, keys, x0):
        return _dropped(keys, self.given(x0, None, 0.0), self)

    def given(self, value, change, noise):
        if noise:
            raise ValueError('--noise: edges are taken as they are: leave it out')
        return 2 * edges(value, self.threshold) - 1

    def shown(self, picture):
        return jnp.broadcast_to(-picture, (*picture.shape[:3], self.channels))

    def adherence(self, picture, x0, drawn):
        """edge_f1: F1 of the edges of the samples and the given ones, each found where the other has one within a 64th
        of the longer side: in small pictures at the same pixel."""
        told = jnp.any(picture != 0, (1, 2, 3), keepdims=True)
        wanted, found = (told * edges(x, self.threshold) for x in (x0, drawn))
        reach = max(x0.shape[1:3]) // NEAR
        precision = jnp.sum(found * _spread(wanted, reach)) / jnp.maximum(jnp.sum(found), 1.0)
        recall = jnp.sum(wanted * _spread(found, reach)) / jnp.maximum(jnp.sum(wanted), 1.0)
        return {'edge_f1': 2 * precision * recall / jnp.maximum(precision + recall, 1e-6)}


def edges(x, threshold: float):
    """x: [B, H, W, C] -> [B, H, W, 1] of 0 and 1: where Sobel's gradient of the mean over C is longer than threshold.

    The gradient is of the picture continued by its border, in units of x a pixel.
    """
    grey = jnp.pad(jnp.mean(x, -1), ((0, 0), (1, 1), (1, 1)), mode='edge')

    def slope(a, along):
        first, middle, last = (a[:, i : a.shape[1] - 2 + i] for i in range(3))
        blurred = first + 2 * middle + last if along else last - first
        left, centre, right = (blurred[:, :, i : a.shape[2] - 2 + i] for i in range(3))
        return (right - left if along else left + 2 * centre + right) / 8

    length = jnp.sqrt(slope(grey, True) ** 2 + slope(grey, False) ** 2)
    return (length > threshold).astype(x.dtype)[..., None]


def _spread(mask, reach: int):
    """A mask [B, H, W, 1] and all within reach pixels of it, across corners too."""
    size = 2 * reach + 1
    return lax.reduce_window(mask, 0.0, lax.max, (1, size, size, 1), (1, 1, 1, 1), 'SAME')


def _dropped(keys, picture, maker):
    """The null condition in place of some of the pictures."""
    gone = randomness.uniform(randomness.substream(keys, 'dropped')) < maker.dropout
    return jnp.where(gone[:, None, None, None], maker.null, picture)
