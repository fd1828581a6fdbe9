"""Calls of a program: their flags, and the one line that says what is wrong with them."""

import argparse
import contextlib
import difflib
import shutil


class UsageError(Exception):
    """The call, the config or a file it names is wrong; the message says what and how to mend it. Exit status 2."""


class Fault(Exception):
    """Something outside the call went wrong, and the message says all there is to say of it. Exit status 70."""


@contextlib.contextmanager
def checked():
    """Around the part of a program that only looks at what the user gave: there a ValueError is the user's."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise UsageError(' '.join(str(error).split())) from error


def unknown(kind: str, word: str, among) -> str:
    """The message for a name that is not one of `among`."""
    close = difflib.get_close_matches(word, list(among), 1, 0.5)
    hint = f'did you mean {close[0]!r}?' if close else f'there are: {", ".join(among)}'
    return f'no {kind} {word!r}: {hint}'


class Parser(argparse.ArgumentParser):
    """Flags of one program; what it cannot take is a UsageError with the nearest flag."""

    def __init__(self, program: str, description: str):
        width = min(shutil.get_terminal_size().columns, 110)
        super().__init__(
            prog=f'diffusion {program}',
            description=description,
            allow_abbrev=False,
            formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=30, width=width),
        )
        self.add_argument('--debug', action='store_true', help='show a traceback with an error')

    def error(self, message):
        raise UsageError(f'{message}; see {self.prog} --help')

    def parse(self, argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
        """The flags, and the overrides among them: 'section.key=value' of each --config.section.key=value."""
        overrides, rest = [], []
        words = iter(argv)
        for word in words:
            if word.startswith('--config.'):
                value = word if '=' in word else f'{word}={next(words, "")}'
                overrides.append(value.removeprefix('--config.'))
            else:
                rest.append(word)
        args, extra = self.parse_known_args(rest)
        if extra:
            flags = [flag for action in self._actions for flag in action.option_strings if flag.startswith('--')]
            raise UsageError(unknown('flag', extra[0].split('=')[0], flags))
        return args, overrides
