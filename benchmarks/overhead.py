"""What the guard, the meters and the averages add to a training step, by the cost of the compiled program.

    python benchmarks/overhead.py --batch=32 --log_every=50

A DiT-B/2 on 32 x 32 x 4 latents is compiled, not run, for one CPU device, and XLA's own cost analysis is read: its
FLOPs, the bytes it moves, and the memory of its temporaries. The blocks are unrolled, since XLA counts the body of a
loop once. What is computed at every log_every-th step alone stands in a conditional, of which XLA counts the costlier
side: its share is divided by log_every.
"""

import contextlib
import functools
import sys
from unittest import mock

import jax
from jax import lax

from diffusion import build, usage
from diffusion.runtime import guard, mesh, platform, state

LIMIT = 0.02
DIT_B = (
    'net.name=DiT',
    'net.patch=2',
    'net.width=768',
    'net.heads=12',
    'net.dtype=bfloat16',
    'precond.name=flow',
    'process.name=Flow',
)


def main(argv: list[str]) -> int:
    """Exit status 1 where all of it together costs 2 % of the FLOPs or of the bytes of the bare step."""
    parser = usage.Parser('train', __doc__.splitlines()[0])
    parser.prog = 'python benchmarks/overhead.py'
    parser.add_argument('--batch', type=int, default=32, metavar='N', help='images a device; fewer make it look worse')
    parser.add_argument('--depth', type=int, default=12, metavar='N', help='blocks (default: 12, DiT-B)')
    parser.add_argument('--log_every', type=int, default=50, metavar='N', help='steps between meters')
    args, _ = parser.parse(argv)
    device = platform.configure('cpu', 1, args.batch)[0]
    with mock.patch.object(lax, 'scan', functools.partial(lax.scan, unroll=True)):
        costs = {name: _cost(args, device, **parts) for name, parts in PARTS.items()}
    bare = costs['bare']
    print(f'DiT-B/2, {args.depth} blocks, batch {args.batch}: {bare["flops"]:.3e} FLOPs a step without any of it\n')
    print('| what is added | FLOPs | share | bytes accessed | share | temporaries, MB |\n|---|---|---|---|---|---|')
    total, before = {'flops': 0.0, 'bytes': 0.0}, bare
    for name, cost in costs.items():
        divisor = args.log_every if name.startswith('meters, at') else 1
        added, moved = ((cost[key] - before[key]) / divisor for key in total)
        shares = added / bare['flops'], moved / bare['bytes']
        total = {key: total[key] + share for key, share in zip(total, shares)}
        print(f'| {name} | {added:.2e} | {shares[0]:.3%} | {moved:.2e} | {shares[1]:.3%} | {cost["temporaries"]:.0f} |')
        before = cost
    worst = max(total.values())
    print(
        f'\ntogether {total["flops"]:.3%} of the FLOPs and {total["bytes"]:.3%} of the bytes of the bare step: '
        f'{"below" if worst < LIMIT else "ABOVE"} {LIMIT:.0%}'
    )
    return int(worst >= LIMIT)


# What is left in: each line adds to the one before.
PARTS = {
    'bare': {},
    'one average (EMA)': {'ema': True},
    'guard': {'ema': True, 'guarded': True},
    'meters, at every step': {'ema': True, 'guarded': True, 'meters': True, 'still': True},
    'meters, at log steps': {'ema': True, 'guarded': True, 'meters': True},
}


def _cost(args, device, ema=False, guarded=False, meters=False, still=False) -> dict:
    overrides = [*DIT_B, f'net.depth={args.depth}', f'train.batch={args.batch}', 'train.cond_dropout=0.1']
    known = build.Facts((32, 32, 4), tuple(map(str, range(1000))), None, 'float32', 1_000_000, 'none')
    run = build.experiment(build.resolve('configs/toy2d.py', overrides), known)
    grid = mesh.make([device])
    target = state.abstract(grid, run.network.init, run.optimizer, run.memory, run.ema)
    with contextlib.ExitStack() as without:
        if not ema:
            without.enter_context(mock.patch.object(type(run.ema), 'advance', lambda self, averages, *_: averages))
        if not guarded:
            without.enter_context(mock.patch.object(guard, 'healthy', lambda value, norms: True))
        if still:
            without.enter_context(mock.patch.object(state.vitals, 'at', lambda due, measure: {}))
        how = run.train.seed, 1, grid, run.probe, args.log_every if meters else 0
        step = state.step(run.loss, run.optimizer, run.ema, *how)
        compiled = state.jit_step(step, grid, target).lower(target, run.batch_shapes()).compile()
    found = compiled.cost_analysis()
    temporaries = compiled.memory_analysis().temp_size_in_bytes / 1e6
    return {'flops': found['flops'], 'bytes': found['bytes accessed'], 'temporaries': temporaries}


if __name__ == '__main__':
    jax.config.update('jax_platforms', 'cpu')
    sys.exit(main(sys.argv[1:]))
