"""Batches read ahead of their use, as many as the pace of the steps asks for."""

import collections
import threading
from collections.abc import Callable, Iterator
from typing import Any

# What a read-ahead bridges: a slow disk, a worker that meets large images, another program for a moment.
BRIDGE = 2.0  # seconds
FEWEST, MOST = 4, 64  # batches
MEMORY = 2**30  # bytes of batches, unless FEWEST take more


def depth(pace: float | None, batch_bytes: int) -> int:
    """How many batches to hold: so many as the steps of BRIDGE seconds take, within FEWEST, MOST and MEMORY.

    pace: seconds a step would take if no data were waited for, None where that is not known yet.
    """
    wanted = BRIDGE / max(pace, 1e-9) if pace is not None else FEWEST
    return max(FEWEST, int(min(wanted, MOST, MEMORY // max(batch_bytes, 1))))


class Ahead:
    """The items of an endless stream, in their order, which a thread takes from it before they are asked for.

    limit: () -> how many may lie ready, asked before each is taken; close: ends the stream. An error of the stream is
    raised where its item would have been.
    """

    def __init__(self, stream: Iterator, limit: Callable[[], int], close: Callable[[], Any]):
        self._stream, self._limit, self._close = stream, limit, close
        self._ready: collections.deque = collections.deque()
        self._changed = threading.Condition()
        self._over = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name='ahead', daemon=True)
        self._thread.start()

    def _read(self):
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._over or len(self._ready) < self._limit())
                if self._over:
                    return
            try:
                item = next(self._stream)
            except BaseException as error:  # raised by next(), in the thread that asks
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._ready.append(item)
                self._changed.notify_all()

    def next(self) -> Any:
        """Waits for the next item. Raises what the stream raised, and RuntimeError once it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._error or self._over)
            if self._over:
                raise RuntimeError('this stream is closed')
            if not self._ready:
                raise self._error
            item = self._ready.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Ends the thread and the stream."""
        with self._changed:
            self._over = True
            self._ready.clear()
            self._changed.notify_all()
        self._close()
        self._thread.join(timeout=30)
