"""Decoded examples by index: small sets once and for all in memory, large ones as they are read."""

import concurrent.futures
import dataclasses
import os
from collections.abc import Callable

import numpy as np

from diffusion.data import buckets as bucketing
from diffusion.data import entries, pictures

# A set below both limits is decoded once and kept; 1 GiB leaves room on a
# laptop, 200 000 images decode in seconds.
MEMORY_BYTES = 2**30
MEMORY_IMAGES = 200_000
MEMORY = ('auto', 'always', 'never')
# Looked at before a large set is trained on, spread over it: a set that is wrong throughout is an error at once.
PROBED = 32


@dataclasses.dataclass(frozen=True)
class Bad:
    """An image that cannot be read. reason: one line."""

    index: int
    name: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Records:
    """Examples by index. gather: int64 [B] -> {'image': [B, H, W, C], 'label': int32 [B], 'caption': list} and, only
    where some are substitutes, 'bad': bool [B]; captions: all of them, in index order; bad: int64 [B] -> those of
    them that cannot be read; resident: whether the images lie in memory, so that reading costs nothing, other processes
    would only copy them, and `bad` looks nothing up; buckets: None where images have one size, else what looks for
    them, and gather takes the size (height, width) too.

    Of an image that cannot be read the example is another one, the next in index order that can be: a function of the
    index and the data, the same in every process and after every restart.
    """

    length: int
    fingerprint: str
    gather: Callable[..., dict]
    captions: Callable[[], list[str]]
    bad: Callable[[np.ndarray], list[Bad]] = lambda indices: []
    resident: bool = False
    buckets: Callable[[], bucketing.Buckets] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class _Decoded:
    """Every image of a set. stands: which example is given for each, int64 [N]; unreadable: those that stand for none,
    by index."""

    images: np.ndarray
    labels: np.ndarray
    texts: list[str]
    classes: tuple[str, ...]
    captioned: bool
    stands: np.ndarray
    unreadable: dict[int, Bad]

    def gather(self, indices: np.ndarray) -> dict:
        given = self.stands[indices]
        batch = {'image': self.images[given]}
        if self.classes:
            batch['label'] = self.labels[given]
        if self.captioned:
            batch['caption'] = [self.texts[i] for i in given]
        bad = given != indices
        return {**batch, 'bad': bad} if bad.any() else batch

    def captions(self) -> list[str]:
        return list(self.texts)

    def bad(self, indices: np.ndarray) -> list[Bad]:
        return [self.unreadable[i] for i in np.asarray(indices).tolist() if i in self.unreadable]


@dataclasses.dataclass(frozen=True, eq=False)
class Read:
    """Images decoded each time they are wanted."""

    stored: entries.Entries
    fit: pictures.Fit
    shape: tuple[int, int, int]
    dtype: str

    def gather(self, indices: np.ndarray) -> dict:
        stored = self.stored
        examples = stored.read(indices)
        images = np.empty((len(indices), *self.shape), self.dtype)
        bad = np.zeros(len(indices), bool)
        for row, example in enumerate(examples):
            try:
                images[row] = decoded(example, self.fit, self.shape, self.dtype)
            except pictures.Unreadable:
                bad[row] = True
                images[row], examples[row] = self.substitute(int(indices[row]))
        batch = {'image': images}
        if stored.classes:
            batch['label'] = np.array([example.label for example in examples], np.int32)
        if stored.captioned:
            batch['caption'] = [example.caption for example in examples]
        return {**batch, 'bad': bad} if bad.any() else batch

    def substitute(self, index: int) -> tuple[np.ndarray, entries.Example]:
        for step in range(1, self.stored.length):
            (example,) = self.stored.read(np.array([(index + step) % self.stored.length]))
            try:
                return decoded(example, self.fit, self.shape, self.dtype), example
            except pictures.Unreadable:
                continue
        raise ValueError('not one image of the set can be read')

    def bad(self, indices: np.ndarray) -> list[Bad]:
        found = []
        for i in np.asarray(indices).tolist():
            (example,) = self.stored.read(np.array([i]))
            try:
                decoded(example, self.fit, self.shape, self.dtype)
            except pictures.Unreadable as error:
                found.append(Bad(i, example.name, str(error)))
        return found


def decoded(example: entries.Example, fit: pictures.Fit, shape: tuple[int, int, int], dtype: str) -> np.ndarray:
    """The image of an example as `dtype` [H, W, C]. Raises `pictures.Unreadable`, and `pictures.Misfit` naming it where
    it has another size, channels or type than the set."""
    try:
        image = pictures.decode(example.image, fit)
    except pictures.Misfit as error:
        raise pictures.Misfit(f'{example.name}: {error}') from error
    if image.shape != shape or image.dtype != dtype:
        raise pictures.Misfit(
            f'{example.name} is {_said(image.shape, image.dtype)} where the set is {_said(shape, dtype)}: give an '
            'image_size, and channels where these differ'
        )
    return image


def _said(shape, dtype):
    return f'{" x ".join(map(str, shape))} {dtype}'


def look(stored: entries.Entries, fit: pictures.Fit) -> tuple[tuple[int, int, int], str]:
    """Shape and dtype of a set's images once they are fitted: those of the first that can be read.

    Raises ValueError where none of those looked at can be.
    """
    reason = ''
    for i in range(min(stored.length, PROBED)):
        (example,) = stored.read(np.array([i]))
        try:
            image = pictures.decode(example.image, fit)
        except pictures.Unreadable as error:
            reason = reason or f'{example.name}: {error}'
            continue
        except pictures.Misfit as error:
            raise pictures.Misfit(f'{example.name}: {error}') from error
        return image.shape, str(image.dtype)
    raise ValueError(f'none of the first {min(stored.length, PROBED)} images can be read ({reason})')


def build(
    stored: entries.Entries,
    fit: pictures.Fit,
    shape: tuple[int, int, int],
    dtype: str,
    memory: str = 'auto',
    max_bad: float = 0.01,
) -> Records:
    """The examples of a set, each image as `dtype` `shape`.

    memory: 'always' decodes all now and keeps them, 'never' each when it is read, 'auto' keeps sets of at most 200,000
    images and 1 GiB decoded; max_bad: share of images that may be unreadable. Raises ValueError where more are found
    now: all are looked at where they are kept, else 32 spread over the set.
    """
    if memory not in MEMORY:
        raise ValueError(f'memory={memory!r}: it is one of {", ".join(MEMORY)}')
    size = stored.length * int(np.prod(shape)) * np.dtype(dtype).itemsize
    small = stored.length <= MEMORY_IMAGES and size <= MEMORY_BYTES
    reader = Read(stored, fit, shape, dtype)
    if memory == 'always' or (memory == 'auto' and small):
        kept = _keep(reader, max_bad)
        return Records(stored.length, stored.fingerprint, kept.gather, kept.captions, kept.bad, True)
    probe(reader, max_bad)
    return Records(stored.length, stored.fingerprint, reader.gather, stored.captions, reader.bad)


def probe(reader: Read, max_bad: float) -> None:
    """Looks at some images of a set. Raises ValueError where too many of them cannot be read."""
    probed = np.unique(np.linspace(0, reader.stored.length - 1, PROBED).astype(np.int64))
    found = reader.bad(probed)
    # Of few images one in a hundred is none: half of them says that this is not how the set is stored.
    if 2 * len(found) > len(probed):
        raise ValueError(too_many(found, len(probed), max_bad))


def too_many(found: list[Bad], count: int, max_bad: float) -> str:
    """What is said of a set with more unreadable images than it may have."""
    named = '; '.join(f'{one.name}: {one.reason}' for one in found[:3])
    return (
        f'{len(found)} of {count} images cannot be read, more than data.max_bad={max_bad:g} allows ({named}): '
        '`diffusion data check` names all'
    )


def _keep(reader: Read, max_bad: float) -> _Decoded:
    stored = reader.stored
    images = np.empty((stored.length, *reader.shape), reader.dtype)
    labels = np.empty(stored.length, np.int32)
    texts = [''] * stored.length

    def fill(start):
        stop = min(start + 256, stored.length)
        found = []
        for i, example in zip(range(start, stop), stored.read(np.arange(start, stop))):
            labels[i], texts[i] = example.label, example.caption
            try:
                images[i] = decoded(example, reader.fit, reader.shape, reader.dtype)
            except pictures.Unreadable as error:
                found.append(Bad(i, example.name, str(error)))
        return found

    with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = [bad for some in pool.map(fill, range(0, stored.length, 256)) for bad in some]
    if len(found) > max_bad * stored.length:
        raise ValueError(too_many(found, stored.length, max_bad))
    stands, unreadable = np.arange(stored.length), {one.index: one for one in found}
    for index in unreadable:
        after = (i % stored.length for i in range(index + 1, index + stored.length))
        stands[index] = next(i for i in after if i not in unreadable)
    return _Decoded(images, labels, texts, stored.classes, stored.captioned, stands, unreadable)
