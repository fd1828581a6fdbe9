"""The live status line of a running program: one line on a terminal, plain lines elsewhere."""

import sys
import time

from rich import console as consoles
from rich import live, text


def duration(seconds: float) -> str:
    """'1:02:03' or '4:05'."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'


class Status:
    """Progress through `total` steps; a context manager."""

    def __init__(self, name: str, total: int, start: int = 0, every: float = 10.0, quiet: bool = False):
        """start: the step it goes on from, which counts as done but not as speed; every: s between plain lines; quiet:
        nothing is shown, as of all processes but one."""
        self._name, self._total, self._start, self._every = name, total, start, every
        self._quiet = quiet
        self._console = consoles.Console(stderr=True, highlight=False, quiet=quiet)
        self._live = live.Live(console=self._console, auto_refresh=False, transient=True)
        self._begin = self._shown = time.monotonic()
        self._waited = ''
        self.items: dict[str, str] = {}  # shown beside the step

    def __enter__(self):
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_):
        self._live.stop()

    def say(self, message: str) -> None:
        """A line that stays."""
        if self._console.is_terminal:
            self._console.print(message, markup=False)
        elif not self._quiet:
            print(message, file=sys.stderr, flush=True)

    def update(self, step: int, aside: float = 0.0) -> None:
        """Shows the step; aside: seconds since the start that were not steps (samples, checkpoints)."""
        now = time.monotonic()
        if now - self._shown < (0.25 if self._console.is_terminal else self._every) and step < self._total:
            return
        self._shown = now
        pace = max(now - self._begin - aside, 1e-9) / max(step - self._start, 1)
        facts = [
            f'{self._name} {step}/{self._total}',
            *(f'{name} {value}' for name, value in self.items.items()),
        ]
        facts.append(f'ETA {duration(pace * (self._total - step))}')
        self._show('  '.join(facts))

    def wait_for(self, what: str) -> None:
        """Shows what is waited for, until something else is shown; where there is no terminal, once."""
        if what != self._waited:
            self._waited = what
            self._show(what)

    def _show(self, line):
        if self._console.is_terminal:
            self._live.update(text.Text(line, no_wrap=True, overflow='ellipsis'), refresh=True)
        elif not self._quiet:
            print(line, file=sys.stderr, flush=True)
