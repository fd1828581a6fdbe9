"""All processes of a job stop at the same place when one of them is asked to.

A training passes check-points, the same ones in the same order on every process: after each step, between parts of a
sheet of samples. Asked to stop, a process tells process 0, which tells all to hold at their next check-point and to
report how many they have passed; the stop is then at the first that none has passed. Reports are given by a thread,
so a process that is inside a long computation answers too. Before the first and after the last check-point there is
nothing to lose: there all end at once.
"""

import threading
from collections.abc import Callable

from diffusion.runtime import rollcall

START, BETWEEN, END = 'start', 'between', 'end'


class Agreement:
    """Of the processes behind `links`, or of this one alone."""

    def __init__(self, leave: Callable[[], None]):
        """leave: ends this process at once; called by a thread where nothing is to be saved on any."""
        self._leave, self._links = leave, None
        self._changed = threading.Condition(threading.RLock())
        self._passed, self.phase = 0, START
        self._holding, self._last = False, None
        self._reports: dict[int, tuple[int, str]] = {}  # on process 0

    def join(self, links: rollcall.Links) -> None:
        """Of all processes from now on; messages come in by `heard`."""
        self._links = links

    @property
    def _first(self):
        return self._links is None or self._links.process == 0

    def ask(self) -> None:
        """This process is asked to stop."""
        if self._first:
            self._hold_all()
        else:
            self._links.send(0, {'ask': True})

    def enter(self, phase: str) -> None:
        """phase: BETWEEN before the first step, END when all is saved."""
        with self._changed:
            self.phase = phase
            held = self._holding
        if held:
            self._report()

    def reached(self) -> bool:
        """At a check-point: whether to stop here. Waits while that is being decided."""
        with self._changed:
            self._passed += 1
            while self._holding and self._last is None:
                self._changed.wait()
            return self._last is not None and self._passed >= self._last

    def heard(self, peer: int, message: dict) -> None:
        """A message from another process."""
        if message.get('ask'):
            self._hold_all()
        elif message.get('hold'):
            self._hold()
        elif 'passed' in message:
            self._collect(peer, message['passed'], message['phase'])
        elif 'stop' in message:
            self._decide(message['stop'])
        elif message.get('leave'):
            self._leave()

    def _everyone(self, message):
        for peer in range(1, self._links.count) if self._links else ():
            self._links.send(peer, message)

    def _hold_all(self):
        with self._changed:
            if self._holding:
                return
        self._everyone({'hold': True})
        self._hold()

    def _hold(self):
        with self._changed:
            self._holding = True
        self._report()

    def _report(self):
        with self._changed:
            mine = self._passed, self.phase
        if self._first:
            self._collect(0, *mine)
        else:
            self._links.send(0, {'passed': mine[0], 'phase': mine[1]})

    def _collect(self, peer, passed, phase):
        """On process 0: where all have reported, what follows from it."""
        with self._changed:
            self._reports[peer] = passed, phase
            if len(self._reports) < (self._links.count if self._links else 1):
                return
            phases = {each for _, each in self._reports.values()}
            stop = 1 + max(each for each, _ in self._reports.values()) if self._last is None else None
        if START in phases or phases == {END}:
            self._everyone({'leave': True})
            self._leave()
        elif stop is not None:
            self._everyone({'stop': stop})
            self._decide(stop)

    def _decide(self, stop):
        with self._changed:
            self._last = stop
            self._changed.notify_all()
