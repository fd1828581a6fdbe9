"""How long a supervisor waits, and for what; and the clock by which it does."""

import dataclasses
import threading
import time


@dataclasses.dataclass(frozen=True)
class Pace:
    """Seconds. poll: between two looks; first and most: waits after something went wrong, doubled each time; steady:
    an attempt that lasted as long was sound, whatever ended it; queue: how long one zone is waited for, if there are
    others; linger: how long the other hosts may outlive one that has ended. failures: in a row, before it is given up.
    """

    poll: float = 20.0
    first: float = 15.0
    most: float = 900.0
    steady: float = 900.0
    queue: float = 1800.0
    linger: float = 90.0
    failures: int = 4
    silent: int = 6


class Clock:
    """Time, and a sleep from which a signal wakes."""

    def __init__(self):
        self.woken = threading.Event()

    def now(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        self.woken.wait(seconds)
        self.woken.clear()
