"""Buckets of aspect ratio: few static shapes for pictures of many, and the stream of batches of one shape each."""

import dataclasses
import functools
import hashlib

import numpy as np

# No shape is longer than this many times its other side: what a longer picture shows is cut.
LONGEST = 4
# Each is a program of its own to compile and an order of its own to remember.
MOST = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Buckets:
    """sizes: (height, width) of each; of: uint8 [N], which one each example is in; cut: what share of its area an
    example of each loses in the mean."""

    sizes: tuple[tuple[int, int], ...]
    of: np.ndarray
    cut: tuple[float, ...]

    @functools.cached_property
    def members(self) -> tuple[np.ndarray, ...]:
        """The examples of each, ascending: int64 [n]."""
        return tuple(np.flatnonzero(self.of == bucket) for bucket in range(len(self.sizes)))

    @property
    def commonest(self) -> tuple[int, int]:
        """The size of the bucket with most examples, the first of several."""
        return self.sizes[int(np.argmax([len(ids) for ids in self.members]))]


def cut(pictures: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """What share of its area each picture loses that is made to cover each size: [N, 2], [S, 2] -> [N, S].

    Both are (height, width). It depends on the ratios of the sides alone.
    """
    pictures, sizes = np.asarray(pictures, np.int64)[:, None], np.asarray(sizes, np.int64)[None]
    one, other = pictures[..., 0] * sizes[..., 1], pictures[..., 1] * sizes[..., 0]
    return 1 - np.minimum(one, other) / np.maximum(one, other)


def mark(fingerprint: str, count: int, multiple: int) -> str:
    """The fingerprint of a set that is put into buckets."""
    return hashlib.sha256(f'{fingerprint} in {count} buckets of {multiple}'.encode()).hexdigest()[:32]


def check(count: int, side: int, multiple: int) -> None:
    """Raises ValueError where there can be no buckets of about side**2 pixels."""
    if not 1 <= count <= MOST:
        raise ValueError(f'buckets={count}: 1 to {MOST} shapes are wanted')
    if multiple < 1 or side < multiple:
        raise ValueError(f'image_size={side}, multiple={multiple}: buckets want a size of at least one multiple')


def candidates(side: int, multiple: int) -> list[tuple[int, int]]:
    """Sizes of multiples of `multiple` of at most side**2 pixels, of which neither side could be longer; flat ones
    first."""
    found = []
    for height in range(multiple, LONGEST * side + 1, multiple):
        width = side**2 // height // multiple * multiple
        if width and (height + multiple) * width > side**2 and max(height, width) <= LONGEST * min(height, width):
            found.append((height, width))
    return found


def choose(pictures: np.ndarray, count: int, side: int, multiple: int) -> Buckets:
    """At most count of the `candidates`, those that cut least in the mean, with every picture in the one that cuts it
    least. pictures: int [N, 2], height and width. The same everywhere: no size is a rounded one.
    """
    check(count, side, multiple)
    pictures = np.asarray(pictures, np.int64)
    if not len(pictures) or pictures.min() < 1:
        raise ValueError('buckets: pictures of at least one pixel are wanted')
    kinds, kind, weights = np.unique(pictures, axis=0, return_inverse=True, return_counts=True)
    known = candidates(side, multiple)
    lost = cut(kinds, known)
    # A picture loses least to one of the two chosen shapes that its own lies between.
    between = np.searchsorted([h / w for h, w in known], kinds[:, 0] / kinds[:, 1], side='right')
    sizes = [known[i] for i in _best(lost * weights[:, None], between, min(count, len(known)))]
    lost = cut(kinds, sizes)
    nearest = np.argmin(lost, 1)
    used = np.unique(nearest)
    means = [np.average(lost[nearest == i, i], weights=weights[nearest == i]) for i in used]
    of = np.searchsorted(used, nearest)[kind.reshape(-1)]
    return Buckets(tuple(sizes[i] for i in used), of.astype(np.uint8), tuple(map(float, means)))


def _best(lost, between, count):
    """Which at most count columns of lost: [K, C] have the least sum of each row's least, ascending.

    between: [K], how many columns lie before each row: rows rise on both sides of it. Over the last column chosen, by
    dynamic programming.
    """
    columns = lost.shape[1]
    order = np.argsort(between, kind='stable')
    lost, starts = lost[order], np.searchsorted(between[order], np.arange(columns + 2))
    gaps = np.zeros((columns, columns))
    for first in range(columns):
        for last in range(first + 1, columns):
            rows = slice(starts[first + 1], starts[last + 1])
            gaps[first, last] = np.minimum(lost[rows, first], lost[rows, last]).sum()
    before = np.array([lost[: starts[i + 1], i].sum() for i in range(columns)])
    after = np.array([lost[starts[i + 1] :, i].sum() for i in range(columns)])
    sums, came = [before], []
    for _ in range(count - 1):
        ways = sums[-1][:, None] + np.where(np.tri(columns, dtype=bool), np.inf, gaps)
        came.append(np.argmin(ways, 0))
        sums.append(ways.min(0))
    chosen = int(np.argmin([(total + after).min() for total in sums]))
    path = [int(np.argmin(sums[chosen] + after))]
    for step in reversed(came[:chosen]):
        path.append(int(step[path[-1]]))
    return path[::-1]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Which bucket each batch of a stream without end is of.

    counts: examples of each bucket. Each bucket is a stream of its own, in which every example comes once an epoch, cut
    into batches without a rest: the last batch of an epoch goes on into the next. By the end of epoch e bucket b has
    had floor((e + 1) counts[b] / batch) batches, so that it is behind by less than one; in which order the buckets come
    within an epoch is drawn from (seed, epoch). With one bucket it is the stream without buckets.
    """

    counts: tuple[int, ...]
    batch: int
    seed: int

    def before(self, epoch: int) -> list[int]:
        """How many batches of each bucket come before an epoch."""
        return [epoch * count // self.batch for count in self.counts]

    def place(self, number: int) -> tuple[int, int]:
        """(bucket, which of its batches) of a batch, all counted from 0."""
        epoch = self._epoch(number)
        start = self.before(epoch)
        order = _order(self, epoch)
        rank = number - sum(start)
        bucket = int(order[rank])
        return bucket, start[bucket] + int(np.count_nonzero(order[:rank] == bucket))

    def _epoch(self, number):
        """The last one before which no more than `number` batches come."""
        # Each bucket's share is rounded down, by less than a batch.
        low = number * self.batch // sum(self.counts)
        high = (number + len(self.counts)) * self.batch // sum(self.counts) + 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if sum(self.before(middle)) <= number else (low, middle - 1)
        return low


@functools.lru_cache(maxsize=4)
def _order(schedule, epoch):
    starts, ends = schedule.before(epoch), schedule.before(epoch + 1)
    order = np.repeat(np.arange(len(starts)), np.subtract(ends, starts))
    bits = np.random.PCG64(np.random.SeedSequence((schedule.seed, epoch, len(starts)))).random_raw(len(order))
    return order[np.argsort(bits, kind='stable')]
