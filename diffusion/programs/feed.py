"""The batches of a run: from a step on, and from another one when it goes back."""

import os
from collections.abc import Callable

from diffusion.data import ahead, pipeline
from diffusion.programs import badfiles
from diffusion.runtime import mesh

# More processes than this share little on one host: the parent takes each batch through one pipe.
WORKERS = 16
# Threads read as much there: a process of its own costs a copy of each batch and a start of seconds.
FEW = 4


class Feed:
    """What this process needs of each global batch, read ahead by so much as the pace of the steps asks for."""

    def __init__(
        self,
        setup,
        step: int,
        offset: int,
        bad: badfiles.BadFiles,
        pace: Callable[[], float | None] = lambda: None,
    ):
        """setup: `train.Setup`; step: whose batches came before; offset: examples passed over; bad: is told of images
        that could not be read; pace: seconds a step takes beside the waiting for data, None where that is not known
        yet."""
        self._setup, self._bad, self._pace = setup, bad, pace
        self._open(step, offset)

    def _open(self, step, offset):
        run = self._setup.run
        rows = mesh.rows(self._setup.mesh, run.train.batch)
        stream = opened(run.config, run.facts, self._setup.data, rows, step, offset)
        self._ahead = ahead.Ahead(stream, limit(run.config, run.facts, len(rows), self._pace), stream.close)

    def go_to(self, step: int, offset: int) -> None:
        self.close()
        self._open(step, offset)

    def next(self) -> dict:
        return self._bad.see(self._ahead.next())

    def close(self) -> None:
        self._ahead.close()


def opened(config, facts, data, rows, step: int = 0, offset: int = 0):
    """The stream of a run's batches. rows: those of each global batch that are needed here."""
    train, runtime = config['train'], config['runtime']
    return pipeline.batches(
        data,
        batch=train['batch'],
        seed=train['seed'],
        encode=facts.tokenizer.encode if facts.tokenizer else None,
        rows=rows,
        start=step,
        offset=offset,
        workers=workers(runtime['workers'], data),
    )


def limit(config, facts, rows: int, pace: Callable[[], float | None]) -> Callable[[], int]:
    """() -> how many batches may lie ready; rows: of each batch."""
    fixed = config['runtime']['ahead']
    height, width, channels = facts.shape
    size = rows * height * width * channels * (1 if facts.dtype == 'uint8' else 4)
    return lambda: fixed or ahead.depth(pace(), size)


def workers(asked: int, data) -> int:
    """How many processes read: those asked for, and where that is left to the data (-1) none for a set that is kept
    in memory or on fewer than FEW cores, else as many as there are cores to spare beside the training's own."""
    if asked >= 0:
        return asked
    cores = _cores()
    return 0 if data.open().resident or cores < FEW else min(cores - 1, WORKERS)


def _cores() -> int:
    """Those that this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
