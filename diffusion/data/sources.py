"""Where examples come from: a source knows its shape and classes at once, and decodes its data late."""

import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator

import numpy as np

from diffusion.data import buckets as bucketing
from diffusion.data import formats, pictures, prepared, records, shaped, stock, storage

__all__ = ['emoji', 'images', 'mixture', 'tfds']


@dataclasses.dataclass(frozen=True)
class Source:
    """Examples by index.

    shape: (H, W, C) of an image; classes: their names, () if there are no labels; captioned:
    whether there are captions; open: the data itself, which need not be there for the others;
    dtype: 'uint8' for pictures in [0, 255], 'float32' for numbers that are taken as they are; max_bad: share of
    images that may be unreadable before a training ends.

    Everything else opens the data and raises FileNotFoundError with the commands that prepare it. A source can be sent
    to another process, which opens it itself where the data lie in memory here.
    """

    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    captioned: bool
    open: Callable[[], records.Records] = dataclasses.field(repr=False)
    dtype: str = 'uint8'
    max_bad: float = 0.01

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

    def parts(self, batch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Every example that can be read, in order: indices [n] and images [n, H, W, C], at most `batch` at a time."""
        for start in range(0, len(self), batch):
            ids = np.arange(start, min(start + batch, len(self)))
            found = self.gather(ids)
            kept = ~found['bad'] if 'bad' in found else slice(None)
            if len(ids[kept]):
                yield ids[kept], found['image'][kept]


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
    return _named(dataset, 'train', 0, data_dir, 0, 0, stock.write)


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
    are kept in memory, larger ones decoded as they are read. buckets, multiple: as for `images`.
    Raises ValueError for a set that is unknown or has no image.
    """
    if image_size < 0:
        raise ValueError(f'tfds: image_size={image_size}: it is 0 (the set’s own) or a number of pixels')
    return _named(dataset, split, image_size, data_dir, buckets, multiple, None)


def _named(dataset, split, image_size, data_dir, count, multiple, prepare):
    """A set that TFDS knows, described by its builder whether or not it is there."""
    chosen = prepared.used(stock.builder(dataset, data_dir).info)
    height, width, channels = chosen.shape
    if image_size:
        height = width = image_size
    if not (height and width):
        raise ValueError(f'TFDS set {dataset}: its images differ in size; give an image_size, e.g. image_size=64')
    # Taken as TFDS itself decodes it: opacity dropped, no rotation by EXIF.
    fit = pictures.Fit(image_size=height, width=width, background=(), channels=channels, oriented=False)
    shaped.check(count, dataclasses.replace(fit, image_size=image_size), multiple)
    opened = functools.partial(_open_named, dataset, split, data_dir, fit, prepare, count, multiple)
    return Source((height, width, channels), chosen.classes, bool(chosen.caption), Once(opened))


def _open_named(dataset, split, data_dir, fit, prepare, count, multiple):
    if prepare:
        prepare(dataset, data_dir)
    stored = prepared.open_named(dataset, split, data_dir)
    shape = *fit.size[::-1], fit.channels
    if count:
        return shaped.build(stored, fit, shape, 'uint8', 0.01, count, multiple)
    return records.build(stored, fit, shape, 'uint8')


def images(
    path: str,
    split: str = '',
    image_size: int = 0,
    crop: str = 'center',
    filter: str = 'bicubic',
    background: tuple[int, ...] = (255, 255, 255),
    channels: int = 0,
    label: str = 'auto',
    caption: str = 'auto',
    memory: str = 'auto',
    max_bad: float = 0.01,
    buckets: int = 0,
    multiple: int = 16,
) -> Source:
    """Images wherever they lie, see docs/data.md: a folder, Parquet, WebDataset tars, .npz, .npy, a prepared TFDS
    folder, 'tfds:NAME'; local or gs://.

    path, split, label, caption: of `formats.open`; image_size, crop, filter, background, channels: of `pictures.Fit`;
    memory, max_bad: of `records.build`; buckets: at most so many shapes of about image_size**2 pixels, of sides that
    are multiples of `multiple`, to which images are cut rather than to squares (`buckets.choose`), 0 for none. Without
    an image_size all images must have the size of the first. Raises ValueError and FileNotFoundError.
    """
    if not 0 <= max_bad < 1:
        raise ValueError(f'max_bad={max_bad}: a share in [0, 1)')
    if memory not in records.MEMORY:
        raise ValueError(f'memory={memory!r}: it is one of {", ".join(records.MEMORY)}')
    fit = pictures.Fit(image_size, crop, filter, tuple(background), channels)
    shaped.check(buckets, fit, multiple, memory)
    stored = formats.open(path, split, label, caption)
    try:
        shape, dtype = records.look(stored, fit)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error
    opened = functools.partial(records.build, stored, fit, shape, dtype, memory, max_bad)
    if buckets:
        opened = functools.partial(shaped.build, stored, fit, shape, dtype, max_bad, buckets, multiple)
    return Source(shape, stored.classes, stored.captioned, Once(opened), dtype, max_bad)


def mixture(modes: int = 8, radius: float = 1.0, scale: float = 0.05, examples: int = 50000, seed: int = 0) -> Source:
    """Points in the plane: `modes` Gaussians of deviation `scale`, evenly on a circle, with equal
    weights.

    'image' is float32 [B, 1, 1, 2]; mode m, the label, is centred at radius * (cos, sin)(2 pi m /
    modes).
    """
    if modes < 1 or examples < 1 or scale < 0:
        raise ValueError(f'mixture: modes={modes}, examples={examples}, scale={scale}: at least 1, 1 and 0')

    opened = functools.partial(_points, modes, radius, scale, examples, seed)
    return Source((1, 1, 2), tuple(f'mode {m}' for m in range(modes)), False, Once(opened), 'float32')


def _points(modes, radius, scale, examples, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(modes, size=examples, dtype=np.int32)
    angles = 2 * np.pi * labels / modes
    centres = radius * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    points = (centres + scale * rng.standard_normal((examples, 2))).astype(np.float32)
    points = points.reshape(examples, 1, 1, 2)
    return records.Records(
        length=examples,
        fingerprint=storage.digest('mixture', modes, radius, scale, examples, seed),
        gather=lambda indices: {'image': points[indices], 'label': labels[indices]},
        captions=list,
        resident=True,
    )


class Once:
    """`make`, called on the first call alone, also when threads race for it; a failure is tried again.

    In another process it makes again what lies in memory here, and is sent what does not.
    """

    def __init__(self, make: Callable[[], records.Records]):
        self._make, self._made, self._lock = make, None, threading.Lock()

    def __call__(self) -> records.Records:
        with self._lock:
            if self._made is None:
                self._made = self._make()
        return self._made

    def __getstate__(self):
        sent = None if self._made is None or self._made.resident else self._made
        return {'make': self._make, 'made': sent}

    def __setstate__(self, state):
        self._make, self._made, self._lock = state['make'], state['made'], threading.Lock()
