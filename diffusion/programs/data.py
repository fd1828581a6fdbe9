"""`diffusion data`: look at a data set, store it, measure how fast it is read. Each action has flags of its own: data
ACTION --help."""

import importlib

from diffusion import usage

ACTIONS = {'check': 'data_check', 'build': 'data_build', 'bench': 'data_bench'}


def main(argv: list[str]) -> int:
    """Runs one action. Exit status 0, 1 where the answer is no, or 2."""
    if argv and argv[0] in ACTIONS:
        return importlib.import_module(f'diffusion.programs.{ACTIONS[argv[0]]}').main(argv[1:])
    if argv and not argv[0].startswith('-'):
        raise usage.UsageError(usage.unknown('action', argv[0], ACTIONS))
    parser = usage.Parser('data', ' '.join(__doc__.split(': ', 1)[1].split()))
    parser.add_argument('action', help=f'one of {", ".join(ACTIONS)}')
    parser.parse(argv)
    raise usage.UsageError(f'the action comes first: diffusion data {"|".join(ACTIONS)} ...')
