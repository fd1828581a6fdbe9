"""Being asked to stop: SIGINT and SIGTERM become a flag that the training loop reads between steps."""

import contextlib
import signal

STOPPED = 75  # the exit status of a run that saved everything and can be started again (EX_TEMPFAIL)


class Stop:
    """Whether a signal has asked the run to end."""

    def __init__(self):
        self.asked: str | None = None

    def __bool__(self):
        return self.asked is not None


@contextlib.contextmanager
def listening(announce):
    """A `Stop` that the first SIGINT or SIGTERM sets, after announce(signal name); a second SIGINT ends at once."""
    stop = Stop()

    def receive(number, frame):
        if stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.asked = signal.Signals(number).name
        announce(stop.asked)

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
