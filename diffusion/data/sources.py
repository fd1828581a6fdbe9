"""Where examples come from: a source knows its shape and classes at once, and opens its data late."""

import dataclasses
import functools
import threading
from collections.abc import Callable

import numpy as np

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

    def gather(self, indices: np.ndarray) -> dict:
        """indices: int64 [B] in [0, len) -> 'image': uint8 [B, H, W, C] (float32 for points), with
        'label': int32 [B] (-1 where the set does not tell) if there are classes and 'caption': list
        of B strings if there are captions. Threads may call it at once.
        """
        return self.open().gather(np.asarray(indices, np.int64))


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


def tfds(dataset: str, split: str = 'train', image_size: int = 0, data_dir: str = '') -> Source:
    """Any TFDS set with an image feature, prepared as array_record, read without TensorFlow.

    dataset: 'name', 'name/config' or 'name:version'; split: as in TFDS, e.g. 'train[:90%]';
    image_size: 0 for the set's own size, else the central square is resized by Pillow's antialiased
    bicubic filter; data_dir: '' for TFDS's own. Sets of at most 200 000 images and 1 GiB decoded
    are kept in memory, larger ones decoded as they are read. Raises ValueError for a set that is
    unknown or has no image.
    """
    if image_size < 0:
        raise ValueError(f'tfds: image_size={image_size}: it is 0 (the set’s own) or a number of pixels')
    chosen = records.fields(records.builder(dataset, data_dir).info, image_size)
    opened = functools.partial(records.open_split, dataset, split, data_dir, chosen)
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
        )

    return Source((1, 1, 2), tuple(f'mode {m}' for m in range(modes)), False, _once(opened), 'float32')


def _once(make):
    """`make`, called on the first call alone, also when threads race for it; a failure is tried
    again."""
    lock = threading.Lock()
    made = []

    def get():
        with lock:
            if not made:
                made.append(make())
        return made[0]

    return get
