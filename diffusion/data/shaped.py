"""Pictures of many shapes, decoded to the few sizes of their buckets."""

import concurrent.futures
import dataclasses
import functools
import os

import numpy as np

from diffusion.data import buckets, entries, pictures, records


@dataclasses.dataclass(frozen=True, eq=False)
class _Sized:
    """A set whose pictures are cut to the size that each call names. count, multiple: of its buckets."""

    stored: entries.Entries
    fit: pictures.Fit
    shape: tuple[int, int, int]
    dtype: str
    count: int
    multiple: int

    @functools.cached_property
    def _found(self):
        return buckets.choose(_sizes(self.stored, self.fit), self.count, self.fit.image_size, self.multiple)

    def buckets(self) -> buckets.Buckets:
        return self._found

    def reader(self, size: tuple[int, int]) -> records.Read:
        fit = dataclasses.replace(self.fit, image_size=size[0], width=size[1])
        return records.Read(self.stored, fit, (*size, self.shape[2]), self.dtype)

    def gather(self, indices: np.ndarray, size: tuple[int, int]) -> dict:
        return self.reader(size).gather(indices)

    def bad(self, indices: np.ndarray) -> list[records.Bad]:
        return self.reader(self.shape[:2]).bad(indices)


def build(
    stored: entries.Entries,
    fit: pictures.Fit,
    shape: tuple[int, int, int],
    dtype: str,
    max_bad: float,
    count: int,
    multiple: int,
) -> records.Records:
    """The examples of a set in at most count buckets of sides that are multiples of multiple, of about fit.image_size
    squared pixels; each is decoded when it is read. Otherwise as `records.build`."""
    sized = _Sized(stored, fit, shape, dtype, count, multiple)
    records.probe(sized.reader(shape[:2]), max_bad)
    mark = buckets.mark(stored.fingerprint, count, multiple)
    return records.Records(stored.length, mark, sized.gather, stored.captions, sized.bad, buckets=sized.buckets)


def check(count: int, fit: pictures.Fit, multiple: int, memory: str = 'auto') -> None:
    """Raises ValueError where pictures cannot be put into count buckets, 0 for none."""
    if not count:
        return
    buckets.check(count, fit.image_size, multiple)
    if fit.crop != 'center':
        raise ValueError(f'buckets={count}: pictures are cut to their shapes, leave crop={fit.crop!r} out')
    if memory == 'always':
        raise ValueError(f'buckets={count}: pictures are decoded as they are read, leave memory={memory!r} out')


def _sizes(stored, fit):
    """(height, width) of every picture as it would be shown: int64 [N, 2]; a square for one that cannot be read, in
    whose place another one is shown."""

    def measured(example):
        try:
            found = pictures.measure(example.image, fit.oriented)
        except pictures.Unreadable:
            return fit.image_size, fit.image_size
        return found.height, found.width

    def look(start):
        indices = np.arange(start, min(start + 256, stored.length))
        return [measured(example) for example in stored.read(indices)]

    with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return np.concatenate([np.array(part) for part in pool.map(look, range(0, stored.length, 256))])
