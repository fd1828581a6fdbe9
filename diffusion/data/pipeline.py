"""An endless stream of batches whose only position is the step."""

import dataclasses
import functools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable

import grain
import numpy as np
from absl import flags
from grain import experimental

from diffusion.data import buckets as bucketing
from diffusion.data import sources

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
_bucket_order = functools.lru_cache(maxsize=2 * bucketing.MOST)(_shuffled)


def _places(ranks, examples, seed, epoch):
    key = int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
    place = functools.partial(experimental.index_shuffle, max_index=examples - 1, seed=key, rounds=ROUNDS)
    return [place(index=rank) for rank in ranks.tolist()]


def batch_ids(
    found: bucketing.Buckets | None, examples: int, first: int, rows: np.ndarray, batch: int, seed: int
) -> tuple[np.ndarray, tuple[int, int] | None]:
    """The examples at rows of the global batch that begins at position `first` of the stream, int64 [b], and the size
    of their bucket, None without buckets.

    With buckets positions count whole batches: `first` between two stands for the one it lies in.
    """
    if found is None:
        return example_ids(first + rows, examples, seed), None
    bucket, number = bucketing.Schedule(tuple(map(len, found.members)), batch, seed).place(first // batch)
    ids = found.members[bucket]
    return ids[example_ids(number * batch + rows, len(ids), seed, _bucket_order)], found.sizes[bucket]


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
    # Looked for once, not by every process that the source is opened anew in.
    buckets: bucketing.Buckets | None = None

    def __len__(self) -> int:
        return (sys.maxsize - self.offset) // self.batch - self.start

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        first = (self.start + int(i)) * self.batch + self.offset
        ids, size = batch_ids(self.buckets, len(self.source), first, self.rows, self.batch, self.seed)
        batch = self.source.gather(ids, size)
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
    workers: int = 0,
) -> grain.DatasetIterator:
    """Some rows of each global batch, from step `start` on, without end.

    offset: examples that are passed over besides, so that step s begins at example s x batch + offset;
    batch: global batch size; encode: captions -> int32 [B, L]; rows: int [b] in [0, batch), those that this process
    needs (`runtime.mesh.rows`), None for all; threads, ahead: how many threads read how many batches ahead;
    workers: how many processes do so instead, each with one thread and the set opened anew, 0 for none; none of the
    three changes a batch. A batch is {'image': [b, H, W, C], 'index': int64 [b] (example ids), 'label': int32 [b] if
    there are classes, 'tokens': int32 [b, L] with `encode`}. Over all rows every example appears once an epoch, in an
    order that depends on neither the processes nor, but for where it is cut, on `batch`; with buckets it is
    `buckets.Schedule` that says when, and the images of a batch have the size of theirs.

    The iterator's `close()` ends its threads and processes. Raises ValueError for what cannot be.
    """
    if batch < 1 or min(start, offset, seed) < 0:
        raise ValueError(f'batch={batch} is at least 1, start={start}, offset={offset} and seed={seed} at least 0')
    if min(threads, ahead) < 1 or workers < 0:
        raise ValueError(f'threads={threads} and ahead={ahead} are at least 1, workers={workers} at least 0')
    rows = np.arange(batch) if rows is None else np.asarray(rows, np.int64)
    if not len(rows) or rows.min() < 0 or rows.max() >= batch:
        raise ValueError(f'rows={rows}: places in a batch of {batch}')
    if encode is not None and not source.captioned:
        raise ValueError('encode: this data set has no captions')
    # Opened here, so that missing data is an error of this call, not of a thread later on.
    len(source)
    items = Batches(source, batch, seed, encode, rows, start, offset, source.buckets)
    if workers:
        return _by_processes(grain.MapDataset.source(items), workers, ahead)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(ahead, threads))
    return iter(grain.MapDataset.source(items).to_iter_dataset(options))


def _by_processes(items: grain.MapDataset, workers: int, ahead: int) -> grain.DatasetIterator:
    """Worker k of n makes items k, k + n, k + 2 n, ...; they are taken in their order."""
    # grain asks absl for its flags, and absl answers nobody before it has seen the command line, which is not its own.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    stream = items.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    each = max(-(-ahead // workers), 1)
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=each)
    return iter(stream.mp_prefetch(options, worker_init_fn=_serve).map(_own))


def _own(batch: dict) -> dict:
    """The batch outside the shared memory in which it came, which grain counts as leaked for as long as it is held."""
    return {name: np.array(value) for name, value in batch.items()}


def _serve(worker: int, workers: int) -> None:
    """What a worker process does first. It ends when it is told to or when its parent is gone, however that went: a
    signal to the whole group, as a terminal's Ctrl-C, is the parent's to answer, who wants a last batch or two."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
