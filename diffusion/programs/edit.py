"""`diffusion edit`: change given pictures with a checkpoint. Each action has flags of its own: edit ACTION --help."""

from diffusion import usage
from diffusion.programs import codes, restoring

ACTIONS = {**restoring.ACTIONS, 'interpolate': codes.interpolate, 'invert': codes.invert}


def main(argv: list[str]) -> int:
    """Runs one action. Exit status 0, or 2."""
    if argv and argv[0] in ACTIONS:
        return ACTIONS[argv[0]](argv[1:])
    if argv and not argv[0].startswith('-'):
        raise usage.UsageError(usage.unknown('action', argv[0], ACTIONS))
    parser = usage.Parser('edit', __doc__.split(': ', 1)[1])
    parser.add_argument('action', help=f'one of {", ".join(ACTIONS)}')
    parser.parse(argv)
    raise usage.UsageError(f'the action comes first: diffusion edit {"|".join(ACTIONS)} ...')
