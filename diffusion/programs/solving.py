"""The flags of programs that solve the probability-flow ODE."""

from diffusion.core import ode


def add_flags(parser) -> None:
    default = ode.Method()
    parser.add_argument(
        '--solver', choices=tuple(ode.TABLEAUS), default=default.name, help=f'(default: {default.name})'
    )
    parser.add_argument('--rtol', type=float, default=default.rtol, metavar='X', help=f'(default: {default.rtol:g})')
    parser.add_argument('--atol', type=float, default=default.atol, metavar='X', help=f'(default: {default.atol:g})')
    parser.add_argument(
        '--max-steps', type=int, default=default.max_steps, metavar='N', help=f'(default: {default.max_steps})'
    )


def method(args) -> ode.Method:
    """What the flags say. Raises ValueError."""
    return ode.Method(args.solver, args.rtol, args.atol, args.max_steps)


def unfinished(count: int, total: int, args) -> str:
    """What to say of examples that did not come to the end."""
    return (
        f'{count} of {total} images did not come to the end of the ODE in --max-steps={args.max_steps} steps '
        f'(--rtol={args.rtol:g} --atol={args.atol:g}): raise one of these'
    )
