"""Programs are called by argument lists. The one place where a list becomes the text that a remote shell reads is
`quoted`; values of secrets are in no argument, only in what a program reads from its standard input.
"""

import dataclasses
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

HIDDEN = '<${}>'


@dataclasses.dataclass(frozen=True)
class Command:
    """why: for a reader. stdin: the text that the program reads, made from the values of `secrets` when it is called.
    again: whether it is called over and over until something changes. fails: what it is for may be there already."""

    argv: tuple[str, ...]
    why: str
    stdin: Callable[[Mapping[str, str]], str] | str = ''
    secrets: tuple[str, ...] = ()
    cwd: str | None = None
    timeout: float = 120.0
    again: bool = False

    def input(self, environment: Mapping[str, str]) -> str:
        return self.stdin if isinstance(self.stdin, str) else self.stdin({n: environment[n] for n in self.secrets})

    def shown(self) -> str:
        """As it would be typed, with what it reads below it; a secret is shown by its name."""
        typed = quoted(self.argv)
        text = self.input({name: HIDDEN.format(name) for name in self.secrets})
        return typed if not text else f"{typed} <<'EOF'\n{text.rstrip()}\nEOF"


@dataclasses.dataclass(frozen=True)
class Result:
    """code: None where the program did not end in time or is not there."""

    code: int | None
    out: str = ''
    error: str = ''

    @property
    def ok(self) -> bool:
        return self.code == 0

    @property
    def said(self) -> str:
        """The one line of it that says most."""
        lines = [line.strip() for line in (self.error or self.out).splitlines() if line.strip()]
        lines = [line for line in lines if not re.match(r'[EWI]\d{4} ', line)] or lines  # kubectl's own log
        marked = [line for line in lines if 'error' in line.lower() or '"message"' in line]
        return (marked or lines or ['nothing'])[-1][:300]


Run = Callable[[Command], Result]


def quoted(argv: Sequence[str]) -> str:
    """The text from which a POSIX shell reads exactly these words."""
    return shlex.join(argv)


def run(command: Command) -> Result:
    """Calls it. A program that is missing, or does not end within the timeout, is a Result too, and not an error."""
    text = command.input(os.environ)
    try:
        done = subprocess.run(
            command.argv,
            input=text,
            cwd=command.cwd,
            timeout=command.timeout,
            capture_output=True,
            check=False,
            encoding='utf-8',
            errors='replace',
        )
    except subprocess.TimeoutExpired:
        return Result(None, '', f'{command.argv[0]} did not answer within {command.timeout:g} s')
    except FileNotFoundError:
        return Result(None, '', f'{command.argv[0]} is not installed here')
    return Result(done.returncode, done.stdout, done.stderr)


def write(path: Path, text: str) -> None:
    """Whole or not at all."""
    beside = path.with_name(f'{path.name}.tmp')
    beside.write_text(text, encoding='utf-8')
    os.replace(beside, path)
