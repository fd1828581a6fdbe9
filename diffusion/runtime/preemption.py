"""How a run ends before its end: a signal or a notice asks all its processes to stop at one place; a fault ends them.

Python runs the handler of a signal only when the main thread comes back to it, which it does not for minutes while it
compiles. So a thread hears of signals at once, through a pipe that the C level writes to, and acts where the main
thread cannot: where nothing is to be saved it ends the process.
"""

import contextlib
import faulthandler
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable

import jax
from jax.experimental import multihost_utils

from diffusion.runtime import agreement, rollcall

STOPPED = 75  # the exit status of a run that saved everything and can be started again (EX_TEMPFAIL)
FAULT = 70
HEARSAY = 1.0  # s within which a process hears why the others have ended
PATIENCE = 0.5  # s that the main thread is given to handle a signal by itself


class Stop:
    """Whether something has asked the run to end, and how it does."""

    def __init__(self, announce: Callable[[str], None]):
        """announce: called once with the name of the signal, where the run will stop by itself."""
        self.asked: str | None = None
        self.announce = announce
        self.rearm: Callable[[], object] = lambda: None  # takes the signals back, after something else took them
        self.grace = 0.0  # s from being asked to the end, after which it is a fault; 0: as long as it takes
        self._nothing = ''
        self._agreement = agreement.Agreement(self._leave)
        self._agreement.enter(agreement.BETWEEN)
        self._links: rollcall.Links | None = None
        self._lock, self._leaving, self._points = threading.RLock(), False, 0
        self._told = threading.Event()  # that this process is being ended by a thread

    def __bool__(self):
        return self.asked is not None

    def join(self, links: rollcall.Links) -> None:
        """From now on all processes stop together, and one that is gone is a fault of all."""
        self._links = links
        self._agreement.join(links)
        links.listen(self._heard, self._lost)

    def nothing_to_save(self, why: str) -> None:
        """Until `training` the process ends at once when it is asked to, saying why nothing is saved."""
        self._nothing = why
        self._agreement.enter(agreement.START)

    def training(self) -> None:
        """From now on it ends at check-points."""
        self._agreement.enter(agreement.BETWEEN)

    def saved(self, what: str) -> None:
        """Past the last check-point: it ends at once again, when all processes are."""
        self._nothing = what
        self._agreement.enter(agreement.END)

    def reached(self) -> bool:
        """At a check-point: whether to stop here. All processes must pass the same ones in the same order."""
        self._points += 1
        return self._agreement.reached() or self._noticed()

    def _noticed(self):
        """What the platform tells JAX and nobody else, as the maintenance of a TPU; agreed on by JAX itself."""
        if jax.process_count() == 1 or not jax.config.jax_enable_preemption_service:
            return False
        if multihost_utils.reached_preemption_sync_point(self._points):
            self._note('maintenance notice')
            return True
        return False

    def _note(self, name):
        """Returns whether this is the first that is heard of it."""
        with self._lock:
            if self.asked:
                return False
            self.asked = name
            if self._agreement.phase == agreement.BETWEEN:
                self.announce(name)
        if self.grace:
            timer = threading.Timer(self.grace, self.fail, [f'{name}: nothing saved within {self.grace:g} s'])
            timer.daemon = True
            timer.start()
        return True

    def ask(self, name: str) -> None:
        """Asks all processes to stop. Not to be called from a signal handler, which may hold the locks taken here."""
        self._note(name)
        self._agreement.ask()

    def _heard(self, peer, message):
        if message.get('hold'):
            self._note(f'host {peer} passes on a signal')
        if 'fault' in message:
            if self._links.process == 0:
                self._tell_all(message)
            self._end_with_stacks(message['fault'])
        self._agreement.heard(peer, message)

    def _tell_all(self, message):
        for peer in range(1, self._links.count) if self._links.process == 0 else (0,):
            self._links.send(peer, message)

    def _leave(self):
        with self._lock:
            if self._leaving:
                return
            self._leaving = True
        self._told.set()
        _say(f'{self.asked or "stopped"}: {self._nothing}')
        if self._links:
            self._links.close()
            if self._links.process == 0:
                time.sleep(1.0)  # JAX's coordinator is here: without it the others could not end as they should
        _exit(STOPPED)

    def _lost(self, peer):
        if not self._leaving:
            count, name = self._links.count, self._links.others.get(peer, '?')
            reason = f'host {peer} of {count} ({name}) is gone: all end here; start the job again'
            if self._links.process == 0:
                self._tell_all({'fault': reason})
            self._end_with_stacks(reason)

    @contextlib.contextmanager
    def sharing_faults(self):
        """An error inside ends all processes, each naming this one; without others it is nothing but an error."""
        try:
            yield
        except BaseException as error:
            if self._links:
                # Where the others end because all were asked to, what fails here is that they are gone: a thread has
                # heard why, or is about to, and ends this process as it did them.
                self._told.wait(HEARSAY)
                if self._leaving:
                    threading.Event().wait()
                traceback.print_exc(file=sys.__stderr__)
                self.fail(f'{type(error).__name__}: {error}')
            raise

    def fail(self, reason: str) -> None:
        """Ends all processes, each with the stacks of its threads."""
        if self._links:
            self._tell_all({'fault': f'host {self._links.process}: {reason}'})
        self._end_with_stacks(reason)

    def _end_with_stacks(self, reason):
        with self._lock:
            if self._leaving:
                return
            self._leaving = True
        self._told.set()
        _say(f'diffusion: {reason}; the stacks of all threads:')
        faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
        if self._links and self._links.process == 0:
            time.sleep(1.0)
        _exit(FAULT)


def _say(message):
    print(message, file=sys.__stderr__, flush=True)


def _exit(code):
    """Ends the process whatever its other threads are in the middle of."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


@contextlib.contextmanager
def listening(announce: Callable[[str], None], numbers=(signal.SIGINT, signal.SIGTERM)):
    """A `Stop` that the first of these signals asks, after announce(signal name); a second SIGINT ends at once."""
    stop = Stop(announce)
    handled = threading.Event()

    def receive(number, frame):
        if stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop._note(signal.Signals(number).name)
        handled.set()

    here, there = socket.socketpair()
    there.setblocking(False)
    watcher = threading.Thread(target=_watch, args=(here, stop, numbers, handled), daemon=True)
    watcher.start()
    fd = signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)
    before = arm(receive, numbers)
    stop.rearm = lambda: arm(receive, numbers)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(fd)
        there.close()
        watcher.join()
        here.close()


def arm(receive, numbers) -> dict:
    """Installs the handler, and returns those before: JAX's own, once it is started, has taken SIGTERM for itself."""
    return {number: signal.signal(number, receive) for number in numbers}


def _watch(pipe, stop, numbers, handled):
    while byte := pipe.recv(1):
        if byte[0] in numbers:
            handled.wait(PATIENCE)
            stop.ask(signal.Signals(byte[0]).name)
