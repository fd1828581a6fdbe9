"""`diffusion plan`: whether a run fits devices that are not here, and what it costs there, by their own compiler."""

import os
import re
import sys

from diffusion import build, usage
from diffusion import config as configs
from diffusion.programs import workdir
from diffusion.programs.planning import compiling, figures, fitting, printed
from diffusion.runtime import mesh, platform, threefry, topology, writer


def main(argv: list[str]) -> int:
    """Exit status 0 where all fits, 1 where something does not, 2 for a wrong call."""
    args, overrides = _parser().parse(argv)
    with usage.checked():
        where = topology.read(args.topology, args.slices)
        _check(args)
        config = build.resolve(args.config, overrides)
        facts = _assumed(args) if args.image else _facts(config)
        devices = topology.devices(where, args.quick)
        threefry.quicken()
        asked = prepared(config, facts, where, devices, args)
    told = f'{args.config} {" ".join(overrides)}'.strip()
    if args.fit:
        return _fit(args, config, facts, where, devices, told)
    plan = made(asked, told)
    for line in printed.lines(plan):
        print(line)
    return _kept(args, plan)


def _parser():
    parser = usage.Parser('plan', __doc__.split(': ', 1)[1])
    parser.add_argument('--config', required=True, metavar='FILE', help='a file of configs/, or your own')
    parser.add_argument(
        '--topology', required=True, metavar='CHIP:SHAPE', help='a slice, as v5e:4x4; GPUs by number, as h100:8'
    )
    parser.add_argument('--slices', type=int, default=1, metavar='N', help='so many of these slices (default: 1)')
    parser.add_argument('--fit', action='store_true', help='look for the fastest setting that fits')
    parser.add_argument('--quick', action='store_true', help='with less effort of the compiler: see docs/plan.md')
    parser.add_argument('--price', type=float, metavar='USD', help='of a chip and hour')
    parser.add_argument('--mfu', type=float, metavar='SHARE', help='in (0, 1]: reckon with this and not with the bound')
    parser.add_argument('--image', metavar='HxWxC', help='plan without the data: images, or latents, of this shape')
    parser.add_argument('--classes', type=int, default=0, metavar='N', help='of --image (default: none)')
    parser.add_argument(
        '--out', default=workdir.PLAN, metavar='FILE', help=f'where the figures go (default: {workdir.PLAN})'
    )
    parser.epilog = 'Every value of the config is a flag: --config.SECTION.KEY=VALUE, as --config.train.batch=512'
    return parser


def _check(args):
    if args.price is not None and not args.price >= 0:
        raise ValueError(f'--price={args.price:g}: USD a chip and hour, at least 0')
    if args.mfu is not None and not 0 < args.mfu <= 1:
        raise ValueError(f'--mfu={args.mfu:g}: a share of the peak, above 0 and at most 1')
    if args.classes and not args.image:
        raise ValueError('--classes belongs to --image: data that are here know their classes')
    if args.classes < 0:
        raise ValueError(f'--classes={args.classes}: at least 0')
    if os.path.isdir(args.out):
        raise ValueError(f'--out={args.out} is a folder: name a file')
    os.makedirs(os.path.dirname(args.out) or '.', exist_ok=True)


def _assumed(args) -> build.Facts:
    found = re.fullmatch(r'(\d+)x(\d+)x(\d+)', args.image)
    if not found or '0' in found.groups():
        raise ValueError(f'--image={args.image}: height, width and channels, as 32x32x4')
    shape = tuple(map(int, found.groups()))
    names = tuple(map(str, range(args.classes)))
    # Pictures have one channel or three; anything else is numbers, as latents are.
    return build.Facts(shape, names, None, 'uint8' if shape[2] in (1, 3) else 'float32', 1, 'assumed')


def _facts(config: configs.Config) -> build.Facts:
    """Those of the data, or what their builder tells of them where they are not here."""
    data = build.source(config)
    try:
        return build.facts(config, data)
    except FileNotFoundError:
        if 'text' in config:
            raise
        classes = tuple(data.classes) if config['train']['labels'] else ()
        return build.Facts(data.shape, classes, None, data.dtype, 1, 'not here')


def prepared(config, facts, where, devices, args) -> figures.Asked:
    """Raises ValueError for what cannot be on these devices."""
    if 'text' in config and facts.tokenizer is None:
        raise ValueError(
            'config.text: the words come from the captions of the data: plan where these are, without --image'
        )
    runtime = config['runtime']
    if runtime['devices'] not in (0, where.devices):
        raise ValueError(f'runtime.devices={runtime["devices"]}, but {where} has {where.devices}: leave it out')
    slices = runtime['slices'] or (where.slices if where.chip.node else 0)
    grid = mesh.make(devices, runtime['fsdp'], runtime['tensor'], slices)
    platform.check_batch(config['train']['batch'], mesh.shards(grid), config['train']['accumulate'])
    return figures.Asked(build.experiment(config, facts), grid, where, args.price, args.mfu, args.quick)


def made(asked: figures.Asked, told: str) -> dict:
    """Compiles all and says what is under way."""
    run, grid, where = asked.run, asked.grid, asked.where
    trained = _said('the training step', lambda: compiling.training(run, grid, where))
    others = [_said('the sampler', lambda: compiling.sampling(run, grid, where))] if run.preview.num else []
    others.append(_said('the evaluation', lambda: compiling.evaluation(run, grid, where)))
    return figures.figures(asked, trained, others, told)


def _said(what, make):
    print(f'compiling {what} ...', file=sys.stderr, flush=True)
    return make()


def _fit(args, config, facts, where, devices, told) -> int:
    def make(changes):
        return prepared(build.override(config, changes), facts, where, devices, args)

    found = fitting.search(config, where, make, lambda line: print(line, file=sys.stderr, flush=True))
    if found is None:
        print('nothing that was tried fits: a larger slice, a smaller batch or a smaller network')
        return 1
    plan = made(make(found), f'{told} {" ".join(found)}'.strip())
    for line in printed.lines(plan):
        print(line)
    print('the fastest that fits:' if found else 'the config as it is is the fastest that fits')
    for change in found:
        print(f'  --config.{change}')
    return _kept(args, plan)


def _kept(args, plan) -> int:
    with usage.checked():
        writer.write_json(args.out, plan)
    print(f'written to {args.out}')
    return 0 if plan['fits'] else 1
