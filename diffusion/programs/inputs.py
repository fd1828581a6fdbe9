"""The pictures, fields and masks that an edit is given."""

import dataclasses
from pathlib import Path

import numpy as np

from diffusion import build
from diffusion.core import loss
from diffusion.runtime import pictures


@dataclasses.dataclass(frozen=True)
class Given:
    """values: [H, W, C], uint8 or float32; change: float32 [H, W] in [0, 1], how much each pixel may change as the file
    says it by its opacity or its missing values, None where it says nothing."""

    values: np.ndarray
    change: np.ndarray | None

    @property
    def unit(self) -> np.ndarray:
        """The values as the model has them, float32."""
        return np.asarray(loss.to_unit(self.values))


def read(path: str, facts: build.Facts) -> Given:
    """A picture, or for a run on numbers an .npy, with what the file itself says of a mask. Raises ValueError."""
    if facts.dtype != 'uint8':
        return _field(path, facts)
    if path.lower().endswith('.npy'):
        raise ValueError(f'{path}: this run draws pictures: PNG, JPEG or WebP is wanted')
    values, opacity = pictures.read(path, facts.shape[-1])
    hidden = opacity is not None and opacity.min() < 255
    return Given(values, 1 - opacity.astype(np.float32) / 255 if hidden else None)


def _field(path, facts):
    channels = facts.shape[-1]
    if not path.lower().endswith('.npy'):
        raise ValueError(f'{path}: this run draws numbers, which no picture holds: an .npy of floats is wanted')
    values = _array(path)
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[-1] != channels:
        raise ValueError(f'{path} has shape {values.shape}: [H, W, {channels}] is wanted, as this run draws')
    missing = np.isnan(values)
    if np.isinf(values).any():
        raise ValueError(f'{path} holds infinite values: missing ones are NaN')
    if missing.any() and np.any(missing != missing[..., :1]):
        raise ValueError(f'{path}: a pixel is missing (NaN) in all its channels or in none')
    change = missing[..., 0].astype(np.float32) if missing.any() else None
    return Given(np.where(missing, 0, values).astype(np.float32), change)


def _array(path) -> np.ndarray:
    if not Path(path).is_file():
        raise ValueError(f'there is no file {path!r}')
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f'{path!r} cannot be read as .npy: {error}') from error
    if not isinstance(values, np.ndarray) or values.dtype.kind not in 'biuf':
        raise ValueError(f'{path!r} does not hold an array of numbers')
    return values


def mask(path: str | None, given: Given, picture: str) -> np.ndarray:
    """How much each pixel may change: float32 [H, W] in [0, 1], 1 = white = change. Raises ValueError."""
    change = given.change
    if path is not None:
        if change is not None:
            raise ValueError(f'{picture} says by itself what may change (transparent, or NaN): leave out --mask')
        change = _mask(path)
        size = given.values.shape[:2]
        if change.shape != size:
            raise ValueError(
                f'the mask {path!r} is {change.shape[1]} x {change.shape[0]} pixels, the picture '
                f'{size[1]} x {size[0]}: they must be of one size'
            )
    if change is None:
        raise ValueError(f'nothing says what may change: add --mask=FILE (white = change); {picture} has no gaps')
    named = repr(path) if path else f'of {picture!r}'
    if not change.any():
        raise ValueError(f'the mask {named} is empty (black), so nothing may change: white = change')
    if (change == 1).all():
        raise ValueError(f'the mask {named} covers all, so nothing is kept: draw with diffusion sample instead')
    return change


def _mask(path):
    if not path.lower().endswith('.npy'):
        return pictures.read_grey(path).astype(np.float32) / 255
    values = _array(path)
    values = values[..., 0] if values.ndim == 3 and values.shape[-1] == 1 else values
    if values.ndim != 2 or not np.all((values >= 0) & (values <= 1)):
        raise ValueError(f'the mask {path!r} has shape {values.shape}: [H, W] of numbers in [0, 1] is wanted')
    return values.astype(np.float32)


def blended(before: np.ndarray, after: np.ndarray, change: np.ndarray) -> np.ndarray:
    """before + change (after - before), rounded for pictures; where change is 0 it is before, bit for bit.

    before, after: [H, W, C] of one dtype; change: [H, W] in [0, 1].
    """
    mixed = before + change[..., None].astype(np.float64) * (after.astype(np.float64) - before)
    mixed = np.rint(mixed) if before.dtype == np.uint8 else mixed
    return np.where(change[..., None] > 0, mixed.astype(before.dtype), before)
