"""The memory of this process and of those it has started."""

import os
import resource
import sys
import threading
import time
from pathlib import Path

PROC = Path('/proc')


def family() -> dict[int, int]:
    """{process: bytes resident} of this process and its descendants; where there is no /proc, of this one alone, its
    most so far. Pages that processes share count in each of them."""
    me = os.getpid()
    try:
        found = dict(_all())
    except OSError:
        return {me: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)}
    family, before = {me}, 0
    while len(family) > before:
        before = len(family)
        family |= {process for process, (parent, _) in found.items() if parent in family}
    return {process: found[process][1] for process in family if process in found}


def _all():
    """(process, (its parent, bytes)) of every process that can be looked at."""
    page = os.sysconf('SC_PAGE_SIZE')
    for entry in PROC.iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / 'stat').read_text().rpartition(')')[2].split()
            except OSError:
                continue  # it has ended meanwhile
            yield int(entry.name), (int(fields[1]), int(fields[21]) * page)


class Watch:
    """Looks at `family` every so often; a context manager. samples: [(seconds since the start, bytes together,
    processes)]."""

    def __init__(self, every: float = 0.2):
        self.samples: list[tuple[float, int, int]] = []
        self._every, self._over = every, threading.Event()
        self._begin = time.monotonic()
        self._thread = threading.Thread(target=self._look, name='memory', daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()
        self._take()

    def _look(self):
        while not self._over.wait(self._every):
            self._take()

    def _take(self):
        found = family()
        self.samples.append((time.monotonic() - self._begin, sum(found.values()), len(found)))

    def peak(self) -> tuple[int, int]:
        """Bytes and processes of the largest sample."""
        _, size, processes = max(self.samples, key=lambda sample: sample[1])
        return size, processes
