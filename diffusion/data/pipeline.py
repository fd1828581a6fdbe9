"""An endless stream of batches whose only position is the step."""

import dataclasses
import functools
import sys
from collections.abc import Callable

import grain
import numpy as np
from grain import experimental

from diffusion.data import buckets, sources

# Up to here an epoch's order is kept as a table of at most 16 MiB; beyond, single places of it are
# computed by grain's cipher, which needs no table but takes 0.1 ms a place where examples are few.
TABLE = 2**22
# grain's own choice.
ROUNDS = 4


def example_ids(positions: np.ndarray, examples: int, seed: int, order: Callable | None = None) -> np.ndarray:
    """Which example stands at each position of the stream: int64 [B] -> int64 [B] in [0, examples).

    Position p is number k of epoch e, (e, k) = divmod(p, examples). Every epoch is a permutation of
    its own, keyed by (seed, e). order: (examples, seed, e) -> that permutation, None for one that remembers a few.
    """
    order = order or _order
    epochs, ranks = np.divmod(positions, examples)
    ids = np.empty(len(positions), np.int64)
    for epoch in np.unique(epochs).tolist():
        here = epochs == epoch
        if examples <= TABLE:
            ids[here] = order(examples, seed, epoch)[ranks[here]]
        else:
            ids[here] = _places(ranks[here], examples, seed, epoch)
    return ids


def _shuffled(examples, seed, epoch):
    # Sorting raw bits, whose stream numpy promises never to change, as it does not for permutation().
    bits = np.random.PCG64(np.random.SeedSequence((seed, epoch))).random_raw(examples)
    return np.argsort(bits, kind='stable').astype(np.int32)


_order = functools.lru_cache(maxsize=4)(_shuffled)
# Of every bucket the epoch it is in, and one more where a batch goes on into the next.
_bucket_order = functools.lru_cache(maxsize=2 * buckets.MOST)(_shuffled)


def _places(ranks, examples, seed, epoch):
    key = int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
    place = functools.partial(experimental.index_shuffle, max_index=examples - 1, seed=key, rounds=ROUNDS)
    return [place(index=rank) for rank in ranks.tolist()]


def batch_ids(
    source: sources.Source, first: int, rows: np.ndarray, batch: int, seed: int
) -> tuple[np.ndarray, int | None]:
    """The examples at rows of the global batch that begins at position `first` of the stream, int64 [b], and which
    bucket they are of, None where there are none.

    With buckets positions count whole batches: `first` between two stands for the one it lies in.
    """
    if source.buckets is None:
        return example_ids(first + rows, len(source), seed), None
    members = source.buckets.members
    bucket, number = buckets.Schedule(tuple(map(len, members)), batch, seed).place(first // batch)
    ids = members[bucket]
    return ids[example_ids(number * batch + rows, len(ids), seed, _bucket_order)], bucket


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """Item i is this process's rows of the global batch of step start + i, a pure function of the fields and i."""

    source: sources.Source
    batch: int
    seed: int
    encode: Callable[[list[str]], np.ndarray] | None
    rows: np.ndarray
    start: int
    offset: int

    def __len__(self) -> int:
        return (sys.maxsize - self.offset) // self.batch - self.start

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        first = (self.start + int(i)) * self.batch + self.offset
        ids, bucket = batch_ids(self.source, first, self.rows, self.batch, self.seed)
        batch = self.source.gather(ids, bucket)
        captions = batch.pop('caption', None)
        if self.encode is not None:
            batch['tokens'] = self.encode(captions)
        return {**batch, 'index': ids}


def batches(
    source: sources.Source,
    *,
    batch: int,
    seed: int,
    encode: Callable[[list[str]], np.ndarray] | None = None,
    rows: np.ndarray | None = None,
    start: int = 0,
    offset: int = 0,
    threads: int = 2,
    ahead: int = 4,
) -> grain.DatasetIterator:
    """Some rows of each global batch, from step `start` on, without end.

    offset: examples that are passed over besides, so that step s begins at example s x batch + offset;
    batch: global batch size; encode: captions -> int32 [B, L]; rows: int [b] in [0, batch), those that this process
    needs (`runtime.mesh.rows`), None for all; threads, ahead: how many threads read how many batches ahead. A batch is
    {'image': [b, H, W, C], 'index': int64 [b] (example ids), 'label': int32 [b] if there are classes, 'tokens': int32
    [b, L] with `encode`}. Over all rows every example appears once an epoch, in an order that depends on neither the
    processes nor, but for where it is cut, on `batch`; with buckets it is `buckets.Schedule` that says when, and the
    images of a batch have the size of theirs.

    The iterator's `close()` ends its threads. Raises ValueError for what cannot be.
    """
    if batch < 1 or min(start, offset, seed) < 0:
        raise ValueError(f'batch={batch} is at least 1, start={start}, offset={offset} and seed={seed} at least 0')
    rows = np.arange(batch) if rows is None else np.asarray(rows, np.int64)
    if not len(rows) or rows.min() < 0 or rows.max() >= batch:
        raise ValueError(f'rows={rows}: places in a batch of {batch}')
    if encode is not None and not source.captioned:
        raise ValueError('encode: this data set has no captions')
    # Opened here, so that missing data is an error of this call, not of a thread later on.
    len(source)
    items = Batches(source, batch, seed, encode, rows, start, offset)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(ahead, threads))
    return iter(grain.MapDataset.source(items).to_iter_dataset(options))
