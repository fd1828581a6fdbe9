"""Weak scaling on paper: what one step costs each device as their number grows, read from the compiled program.

    python benchmarks/scaling.py [--batch=8] [--config=configs/emoji_dit.py --config.net.width=768 ...]

The batch is so many images a device. Nothing is run: the step is compiled for 1, 2, 4 and 8 simulated devices of the
CPU, with the data, the parameters and the features split, and in two slices. FLOPs are those of matrix products and
convolutions, bytes those that a device puts into or gets out of exchanges, the larger of the two. Without arguments the
network is a DiT-B.
"""

import sys

import jax

from diffusion import build, usage
from diffusion.runtime import hlo, mesh, state

DIT_B = ('net.width=768', 'net.depth=12', 'net.heads=12', 'net.text_width=128')
# devices, slices, fsdp, tensor
LAYOUTS = (
    (1, 1, 1, 1),
    *((n, 1, 1, 1) for n in (2, 4, 8)),
    *((n, 1, n, 1) for n in (2, 4, 8)),
    *((n, 1, 1, n) for n in (2, 4)),
    (8, 1, 4, 2),
    (8, 2, 4, 1),
)


def main(argv: list[str]) -> int:
    args, overrides = _parser().parse(argv)
    jax.config.update('jax_platforms', 'cpu')
    jax.config.update('jax_num_cpu_devices', 8)
    with usage.checked():
        overrides = list(overrides or (DIT_B if args.config == DEFAULT else ()))
        facts = None
        print(f'{args.config} {" ".join(overrides)}, {args.batch} images a device\n')
        print(
            '| devices = slice x data x fsdp x tensor | GFLOP | MB exchanged | between slices | '
            + ' | '.join(KINDS)
            + ' |'
        )
        print('|---' * (4 + len(KINDS)) + '|')
        for devices, slices, fsdp, tensor in LAYOUTS:
            batch = args.batch * devices // tensor
            config = build.resolve(args.config, [*overrides, f'train.batch={batch}'])
            facts = facts or build.facts(config, build.source(config))
            grid = mesh.make(jax.devices()[:devices], fsdp, tensor, slices)
            found = hlo.cost(compiled(build.experiment(config, facts), grid), devices)
            data = devices // (slices * fsdp * tensor)
            figures = [found.exchanged(), found.exchanged(crossing=devices // slices) if slices > 1 else 0]
            figures += [found.exchanged(kind) for kind in KINDS]
            cells = ' | '.join(f'{figure / 1e6:.1f}' for figure in figures)
            print(
                f'| {devices} = {slices} x {data} x {fsdp} x {tensor} | {found.flops / 1e9:.1f} | {cells} |', flush=True
            )
    return 0


DEFAULT = 'configs/emoji_dit.py'
KINDS = hlo.COLLECTIVES


def _parser():
    parser = usage.Parser('scaling', __doc__.splitlines()[0])
    parser.prog = 'python benchmarks/scaling.py'
    parser.add_argument('--config', default=DEFAULT, metavar='FILE')
    parser.add_argument('--batch', type=int, default=8, metavar='N', help='images a device (default: 8)')
    return parser


def compiled(run: build.Experiment, grid) -> str:
    """The HLO of the training step on a mesh."""
    target = state.abstract(grid, run.network.init, run.optimizer, run.memory)
    advance = state.step(run.loss, run.optimizer, run.ema, run.train.seed, run.train.accumulate, grid)
    return state.jit_step(advance, grid, target).lower(target, run.batch_shapes()).compile().as_text()


if __name__ == '__main__':
    try:
        sys.exit(main(sys.argv[1:]))
    except usage.UsageError as error:
        print(f'scaling: {error}', file=sys.stderr)
        sys.exit(2)
