"""A run in which nothing moves any more ends, and shows where it stands."""

import threading
import time
from collections.abc import Callable


class Watchdog:
    """Calls alarm(reason) from a thread when `beat` was not called for so many seconds; a context manager."""

    def __init__(self, seconds: float, alarm: Callable[[str], None]):
        """seconds: 0 for never."""
        self._seconds, self._alarm = seconds, alarm
        self._last, self._doing = time.monotonic(), 'start'
        self._over = threading.Event()

    def __enter__(self):
        if self._seconds:
            threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._over.set()

    def beat(self, doing: str) -> None:
        """Something has finished; doing: what comes now."""
        self._last, self._doing = time.monotonic(), doing

    def _watch(self):
        while not self._over.wait(max(self._last + self._seconds - time.monotonic(), 0.01)):
            if time.monotonic() - self._last >= self._seconds:
                self._alarm(f'nothing has finished for {self._seconds:g} s (runtime.watchdog) at: {self._doing}')
                return
