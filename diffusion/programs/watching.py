"""`diffusion evaluate --watch`: each new checkpoint of a running training, once, as it comes."""

import contextlib
import fcntl
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from diffusion import usage
from diffusion.programs import results, workdir
from diffusion.runtime import checkpoint, manifest, status, store

POLL = 2.0  # s between two looks
LOCK = '.watching'


def arrive(folder: str) -> None:
    """Returns when there is a run with a checkpoint. Raises ValueError for a folder that is and will be none.

    Nothing is written into the folder before: a training begins in an empty one alone.
    """
    with _line() as line:
        while not (Path(folder) / workdir.FILE).exists():
            workdir.check_free(folder)
            line.wait_for(f'waits for a training to begin in {folder}')
            time.sleep(POLL)
        while not store.steps(Path(folder) / checkpoint.FOLDER):
            line.wait_for(f'waits for the first checkpoint of {folder}')
            time.sleep(POLL)


@contextlib.contextmanager
def alone(folder: str) -> Iterator[None]:
    """While this process is the only one that watches a workdir. Raises ValueError where another one does."""
    path = Path(folder) / results.FOLDER / LOCK
    path.parent.mkdir(exist_ok=True)
    with open(path, 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(f'{folder} is being watched by another process: one at a time') from error
        yield


def follow(folder: str, measure: Callable[[int], object]) -> bool:
    """Measures every checkpoint, the oldest first, until the training's last step has been. Whether that one was.

    measure: raises UsageError for a checkpoint that cannot be measured. One that a training removes meanwhile is passed
    over; a damaged one is looked at again when its files have changed.
    """
    place = Path(folder) / checkpoint.FOLDER
    settled: dict[int, bool] = {}  # whether it was measured, by step
    damaged: dict[int, tuple] = {}  # what the files were like

    def new():
        return [step for step in store.steps(place) if step not in settled and damaged.get(step) != _files(place, step)]

    while True:
        for step in new()[:1]:
            before = _files(place, step)
            try:
                measure(step)
                settled[step] = True
            except Exception as error:  # whatever reading meets where files vanish under it
                if not (place / str(step) / manifest.FILE).exists():
                    settled[step] = False
                    _say(f'step {step} is passed over: the training removed it while it was read (train.keep)')
                elif isinstance(error.__cause__, manifest.Damaged):
                    damaged[step] = before
                    _say(f'step {step} is passed over until its files change: {error}')
                elif isinstance(error, usage.UsageError):
                    settled[step] = False
                    _say(f'step {step} is passed over: {error}')
                else:
                    raise
        last, latest = workdir.read(folder)[0]['train']['steps'], max(settled, default=0)
        if latest >= last:
            return settled[latest]
        if new():
            continue
        with _line() as line:
            line.wait_for(f'waits for a checkpoint after step {max((latest, *damaged))} of {last}')
            while not new():
                time.sleep(POLL)


def _files(place, step):
    """What can be told of the files of a checkpoint without reading them."""
    found = []
    for path in sorted((place / str(step)).rglob('*')):
        with contextlib.suppress(FileNotFoundError):
            found.append((path.name, path.stat().st_size, path.stat().st_mtime_ns))
    return tuple(found)


def _line():
    return status.Status('watch', 0)


def _say(message):
    print(message, file=sys.stderr, flush=True)
