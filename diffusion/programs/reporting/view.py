"""What the sections of a report are made of, and what they are."""

import dataclasses
from collections.abc import Callable

from diffusion.programs import page
from diffusion.programs.reporting import record


@dataclasses.dataclass(frozen=True)
class View:
    """run: what the report is of; against: another that it is held against; opened: () -> `unrolled.Opened`, which the
    strips are drawn with, None where they are left out."""

    run: record.Run
    against: record.Run | None = None
    opened: Callable | None = None

    def runs(self) -> list[tuple[str, record.Run]]:
        """(name, run) of one or two; the name is '' where there is one alone."""
        if self.against is None:
            return [('', self.run)]
        names = [run.name for run in (self.run, self.against)]
        if names[0] == names[1]:
            names = [str(run.folder) for run in (self.run, self.against)]
        return [(names[0], self.run), (names[1], self.against)]


@dataclasses.dataclass(frozen=True)
class Section:
    """title: text; body: pieces of HTML."""

    title: str
    body: list[str]


def note(said: str, bad: bool = False) -> str:
    """A paragraph."""
    return f'<p class="bad">{page.text(said)}</p>' if bad else f'<p>{page.text(said)}</p>'


def labelled(said: str, of: str) -> str:
    """The name of a curve, of a run where there are two."""
    return f'{said} ({of})' if said and of else said or of


def times(count: int) -> str:
    """'once', '2 times'."""
    return 'once' if count == 1 else f'{count:,} times'


def folded(summary: str, *body: str) -> str:
    """Pieces of HTML that are shown on request."""
    return '\n'.join([f'<details><summary>{page.text(summary)}</summary>', *body, '</details>'])


def short(value, most: int = 120) -> str:
    """A value of a config or protocol as text: sequences and floats as one would type them."""
    if isinstance(value, float):
        said = f'{value:g}'
    elif isinstance(value, list | tuple):
        said = f'({", ".join(short(each) for each in value)})'
    elif isinstance(value, dict):
        said = ', '.join(f'{key} {short(each)}' for key, each in value.items())
    else:
        said = 'none' if value is None else str(value)
    return said if len(said) <= most else f'{said[: most - 1]}…'
