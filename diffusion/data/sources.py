"""Where examples come from: a source knows its shape and classes at once, and opens its data late."""

import dataclasses
import functools
import threading
from collections.abc import Callable

import numpy as np

from diffusion.data import buckets as bucketing
from diffusion.data import records

__all__ = ['emoji', 'mixture', 'tfds']


@dataclasses.dataclass(frozen=True)
class Source:
    """Examples by index.

    shape: (H, W, C) of an image; classes: their names, () if there are no labels; captioned:
    whether there are captions; open: the data itself, which need not be there for the others;
    dtype: 'uint8' for pictures in [0, 255], 'float32' for numbers that are taken as they are.

    Everything else opens the data and raises FileNotFoundError with the commands that prepare it.
    """

    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    captioned: bool
    open: Callable[[], records.Records] = dataclasses.field(repr=False)
    dtype: str = 'uint8'

    def __len__(self) -> int:
        return self.open().length

    @property
    def fingerprint(self) -> str:
        """Names the content: equal for equal data, whatever machine it lies on."""
        return self.open().fingerprint

    def captions(self) -> list[str]:
        """All captions in index order; ValueError if there are none. Reads the whole of a large
        set."""
        if not self.captioned:
            raise ValueError('this data set has no captions')
        return self.open().captions()

    @property
    def buckets(self) -> bucketing.Buckets | None:
        """Which of several sizes each example has in training, None where all have `shape`."""
        found = self.open().buckets
        return found and found()

    def gather(self, indices: np.ndarray, size: tuple[int, int] | None = None) -> dict:
        """indices: int64 [B] in [0, len) -> 'image': uint8 [B, H, W, C] (float32 for points), with
        'label': int32 [B] (-1 where the set does not tell) if there are classes and 'caption': list
        of B strings if there are captions. Threads may call it at once.

        size: (height, width) of the images, one of those of the buckets where there are any; None for
        that of the commonest, whichever they are in.
        """
        found, indices = self.open(), np.asarray(indices, np.int64)
        if found.buckets is None:
            return found.gather(indices)
        return found.gather(indices, size or found.buckets().commonest)


def emoji(subset: str = 'faces', image_size: int = 16, data_dir: str = '') -> Source:
    """The bundled emoji, prepared as the TFDS set `emoji/SUBSET_SIZE` on first use; no download, no
    TensorFlow.

    subset: 'faces' or 'all'; image_size: 16 or 32; data_dir: '' for TFDS's own. Images are RGB on
    white, captions are Unicode's names, classes Unicode's subgroups. Raises ValueError.
    """
    for key, value, known in (('subset', subset, ('faces', 'all')), ('image_size', image_size, (16, 32))):
        if value not in known:
            raise ValueError(f'emoji: {key}={value!r}: it is {known[0]!r} or {known[1]!r}')
    dataset = f'emoji/{subset}_{image_size}'

    def opened(source):
        records.prepare(dataset, data_dir)
        return source.open()

    source = tfds(dataset, data_dir=data_dir)
    return dataclasses.replace(source, open=_once(functools.partial(opened, source)))


def tfds(
    dataset: str,
    split: str = 'train',
    image_size: int = 0,
    data_dir: str = '',
    buckets: int = 0,
    multiple: int = 16,
) -> Source:
    """Any TFDS set with an image feature, prepared as array_record, read without TensorFlow.

    dataset: 'name', 'name/config' or 'name:version'; split: as in TFDS, e.g. 'train[:90%]';
    image_size: 0 for the set's own size, else the central square is resized by Pillow's antialiased
    bicubic filter; data_dir: '' for TFDS's own. Sets of at most 200 000 images and 1 GiB decoded
    are kept in memory, larger ones decoded as they are read. buckets: at most so many shapes of about
    image_size**2 pixels, of sides that are multiples of `multiple`, to which images of other ratios
    are cut rather than to squares (`buckets.choose`); 0 for none; they are chosen by the sizes of all
    images, and decoded as they are read. Raises ValueError for a set that is unknown or has no image.
    """
    if image_size < 0:
        raise ValueError(f'tfds: image_size={image_size}: it is 0 (the set’s own) or a number of pixels')
    if buckets:
        bucketing.check(buckets, image_size, multiple)
    chosen = records.fields(records.builder(dataset, data_dir).info, image_size)
    shapes = (buckets, multiple) if buckets else ()
    opened = functools.partial(records.open_split, dataset, split, data_dir, chosen, *shapes)
    return Source(chosen.shape, chosen.classes, bool(chosen.caption), _once(opened))


def mixture(modes: int = 8, radius: float = 1.0, scale: float = 0.05, examples: int = 50000, seed: int = 0) -> Source:
    """Points in the plane: `modes` Gaussians of deviation `scale`, evenly on a circle, with equal
    weights.

    'image' is float32 [B, 1, 1, 2]; mode m, the label, is centred at radius * (cos, sin)(2 pi m /
    modes).
    """
    if modes < 1 or examples < 1 or scale < 0:
        raise ValueError(f'mixture: modes={modes}, examples={examples}, scale={scale}: at least 1, 1 and 0')

    def opened():
        rng = np.random.default_rng(seed)
        labels = rng.integers(modes, size=examples, dtype=np.int32)
        angles = 2 * np.pi * labels / modes
        centres = radius * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        points = (centres + scale * rng.standard_normal((examples, 2))).astype(np.float32)
        points = points.reshape(examples, 1, 1, 2)
        return records.Records(
            length=examples,
            fingerprint=records.digest('mixture', modes, radius, scale, examples, seed),
            gather=lambda indices: {'image': points[indices], 'label': labels[indices]},
            captions=list,
            in_memory=True,
        )

    return Source((1, 1, 2), tuple(f'mode {m}' for m in range(modes)), False, _once(opened), 'float32')


class _once:
    """`make`, called on the first call alone, also when threads race for it; a failure is tried again.

    What it made does not travel to another process, which makes it anew.
    """

    def __init__(self, make: Callable[[], records.Records]):
        self._make, self._made, self._lock = make, [], threading.Lock()

    def __call__(self) -> records.Records:
        with self._lock:
            if not self._made:
                self._made.append(self._make())
        return self._made[0]

    def __reduce__(self):
        return _once, (self._make,)
