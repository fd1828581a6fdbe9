"""`diffusion evaluate`: measure checkpoints by the data of their run."""

import contextlib
import functools
import itertools
import sys
from pathlib import Path

from diffusion import build, usage
from diffusion.programs import (
    blocks,
    cells,
    clipscore,
    comparing,
    drawing,
    examples,
    fetching,
    generated,
    loglikelihood,
    measures,
    networks,
    opening,
    references,
    results,
    stats,
    watching,
    workdir,
)
from diffusion.runtime import compilation, preemption

# (run, mesh, args) -> `loglikelihood.Likelihood`; it refuses by ValueError what it cannot be asked.
METRICS = {'bpd': loglikelihood.bpd, 'nll': loglikelihood.nll}
# Of the config: where to compute, and where the data lie.
FREE = ('data.split', 'data.data_dir', 'runtime')
PARTS = {'stats': stats, 'fetch': fetching, 'compare': comparing}


def main(argv: list[str]) -> int:
    """Prints each metric of each checkpoint and writes it into eval/ of the workdir. Exit status 0, 2, 75 where it was
    stopped and goes on when it is started again, or 1 where the last step of a watched training cannot be measured."""
    if argv and argv[0] in PARTS:
        return PARTS[argv[0]].main(argv[1:])
    args, overrides = _parser().parse(argv)
    rows: list[dict] = []
    try:
        with contextlib.ExitStack() as stack:
            asked, steps = _asked(args, overrides, stack)
            measure = functools.partial(_measure, args, asked, rows)
            if args.watch:
                whole = watching.follow(args.workdir, measure)
            else:
                whole = all(measure(step, steps) for step in steps)
    except KeyboardInterrupt:
        print('interrupted: what was measured and drawn is kept, the same command goes on', file=sys.stderr)
        return preemption.STOPPED
    print(compilation.TALLY.said())
    results.conclude(rows, args.json)
    return 0 if whole else 1


def _asked(args, overrides, stack):
    """The cells and the steps. All that can be refused is refused here, before anything is computed."""
    with usage.checked():
        names = _metrics(args)
        weights = cells.listed('weights', args.weights)
        if args.watch:
            watching.arrive(args.workdir)
        stored, facts = opening.read(args.workdir)
        steps = _steps(args, weights, stack)
        likelihoods = [name for name in names if name in METRICS]
        seen = [name for name in names if name not in METRICS]
        if likelihoods:
            _check_flags(args, likelihoods, seen)
        asked = _likelihoods(args, overrides, stored, facts, likelihoods, weights) if likelihoods else []
        asked += _samples(args, overrides, stored, facts, seen, weights) if seen else []
    return asked, steps


def _steps(args, weights, stack) -> list[int]:
    """Those to measure, none yet for one that watches, which is then alone until the end of `stack`."""
    if args.watch:
        opening.check_followed(args.workdir, weights)
        stack.enter_context(watching.alone(args.workdir))
        return []
    steps = opening.steps(args.workdir, weights[0], args.step)
    for name in weights[1:]:
        opening.steps(args.workdir, name, ','.join(map(str, steps)))
    return steps


def _measure(args, asked, rows, step, steps=()) -> bool:
    """Every cell of one checkpoint that is not measured yet. rows: of the table, which it adds to; steps: of this call,
    where they are known."""
    for (name, grid), group in itertools.groupby(asked, lambda cell: (cell.place.weights, cell.grid)):
        with usage.checked():
            mark = opening.mark(args.workdir, name, step)
            todo = [(cell, cell.place.missing(step, mark, args.overwrite)) for cell in group]
        taken = None
        for cell, slugs in todo:
            head = f'{name} weights of step {step}, {cell.what}'
            if not slugs:
                print(f'{head}: measured before, --overwrite measures again', flush=True)
                rows.append(cell.row(step))
                continue
            # Read once for the cells that need them, and not at all where none does.
            taken = taken or opening.take(args.workdir, cell.run, grid, name, step)
            print(head, flush=True)
            kept = cell.blocks(taken)
            alike = [(one, other) for one in steps or [step] for other in asked if other.kind == cell.kind]
            found = cell.measure(taken, kept, slugs, (alike.index((step, cell)), len(alike)))
            if found is None:
                print(f'the samples asked for are in {kept.folder}; nothing is measured before all are there')
                continue
            cell.place.write(found, step, {**cell.context, 'checkpoint': taken.mark})
            rows.append(cell.row(step))
            if args.drop_cache:
                kept.remove()
    return True


def _likelihoods(args, overrides, stored, facts, names, weights):
    """How probable the data are: a cell for each of the weights and metrics."""
    config = _chosen(stored, args, overrides)
    data = examples.data(config, stored, facts)
    ids = examples.chosen(data, args)
    batch = args.batch if args.batch is not None else config['sample']['batch']
    if batch < 1:
        raise ValueError(f'--batch={batch}: at least 1')
    grid = opening.devices(args.workdir, config, min(batch, len(ids)))
    run = build.experiment(config, facts)
    metrics = [METRICS[name](run, grid, args) for name in names]
    every = loglikelihood.Examples(examples.gathered(run, data, ids), batch, args.seed, data.fingerprint)
    chosen = blocks.asked(args.range, len(ids), metrics[0].batch(every))
    context = _context(args, config, facts, data, len(ids))
    return [
        cells.Cell(
            kind=metric.unit.name,
            place=results.Place(args.workdir, name, True, {metric.unit.name: metric.request(every, name)}),
            said={},
            what=f'{metric.unit.name} of {len(ids):,} of {len(data):,} examples',
            run=run,
            grid=grid,
            context=context,
            blocks=functools.partial(metric.blocks, Path(args.workdir, results.FOLDER), every),
            measure=functools.partial(metric.measure, every, chosen),
        )
        for name in weights
        for metric in metrics
    ]


def _samples(args, overrides, stored, facts, names, weights):
    """How good samples are: a cell for each of the weights and ways of drawing."""
    if facts.dtype != 'uint8':
        raise ValueError(f'{", ".join(names)} are of pictures, and the data of this run are numbers: --metrics=nll')
    if len(facts.shapes) > 1:
        raise ValueError(f'{", ".join(names)} are of pictures of one size, and this run has {len(facts.shapes)}')
    drawings = cells.drawings(args, lambda more: _drawn(stored, args, [*more, *overrides]))
    config = drawings[0][1]
    generated.check(args, names, facts)
    data = examples.data(config, stored, facts)
    num = generated.number(args)
    grid = opening.devices(args.workdir, config, min(config['sample']['batch'], max(num, 1)))
    own = functools.partial(examples.trained_on, stored, config, facts, data)
    extractor = networks.BLIND
    if not all(measures.METRICS[name].pixels for name in names):
        extractor = networks.open(args, facts.shape[2], own, networks.cache(args.workdir))
    batch = config['sample']['batch']
    scorer = clipscore.opened(args.clip, facts.shape[2], grid, batch) if args.clip else None
    reference = None
    if args.reference:
        reference = references.read(args.reference, extractor, facts.shape, grid, batch)
        measures.check_reference(names, reference)
        print(f'reference: {reference.told.get("layout", "of diffusion evaluate stats")}')
    said = {key: value for key, value in config['data'].items() if key != 'data_dir'}
    run = build.experiment(stored, facts)
    told = reference.told if reference else references.made_of(data, said)
    plans = generated.plans(run, drawings, weights, data, grid, args, names, extractor, told, own, scorer)
    chosen = blocks.asked(args.range, num, plans[0].artist.calls.batch)

    @functools.cache
    def against():
        found = reference or references.kept(
            networks.cache(args.workdir), data, extractor, grid, plans[0].artist.calls.batch, said
        )
        measures.check_reference(names, found)
        return found

    context = _context(args, config, facts, data, num)
    return [
        cells.Cell(
            kind='samples',
            place=results.Place(args.workdir, planned.weights, planned.drawn_as(stored), planned.requests()),
            said=planned.said,
            what=f'{num:,} samples, {generated.recipe(planned.config)}',
            run=run,
            grid=grid,
            context=context,
            blocks=functools.partial(planned.blocks, Path(args.workdir, results.FOLDER)),
            measure=functools.partial(generated.evaluate, planned, against, chosen, args.seed),
        )
        for planned in plans
    ]


def _context(args, config, facts, data, num):
    described = workdir.describe(config, facts)
    return {
        'data': {
            **config['data'],
            'fingerprint': data.fingerprint,
            'examples': len(data),
            'num': num,
            'seed': args.seed,
        },
        'versions': described['versions'],
        'commit': described['commit'],
    }


def _parser():
    parser = usage.Parser('evaluate', __doc__.split(': ', 1)[1])
    opening.add_flags(parser, 'measure', several=True)
    parser.add_argument('--watch', action='store_true', help='each new checkpoint of a training, until its last step')
    parser.add_argument(
        '--metrics', required=True, metavar='LIST', help=f'with commas, of: {", ".join((*METRICS, *measures.METRICS))}'
    )
    parser.add_argument(
        '--num',
        type=int,
        metavar='N',
        help=f'samples (default: {generated.NUM:,}), or examples for bpd and nll (default: {examples.NUM}, or all)',
    )
    parser.add_argument(
        '--repeats', type=int, metavar='R', help='blocks of so many samples, each measured: mean, sd, min (default: 1)'
    )
    parser.add_argument('--range', metavar='FIRST:END', help='compute these of the N alone, as one of several machines')
    parser.add_argument('--seed', type=int, default=0, metavar='N', help='of the choice and all noise (default: 0)')
    parser.add_argument('--batch', type=int, metavar='N', help="examples a call (default: the run's sample.batch)")
    parser.add_argument('--split', metavar='NAME', help="short for --config.data.split (default: the run's)")
    parser.add_argument('--overwrite', action='store_true', help='measure again, and replace a result that is there')
    parser.add_argument('--drop-cache', action='store_true', help='keep nothing in eval/cache once it is measured')
    parser.add_argument('--json', metavar='FILE', help='all results of this call in one file as well')
    loglikelihood.add_flags(parser)
    group = parser.add_argument_group(f'of samples: {", ".join(measures.METRICS)}')
    networks.add_flags(group)
    group.add_argument('--clip', metavar='FOLDER', help='of --metrics=clip: model.safetensors, vocab.json, merges.txt')
    group.add_argument(
        '--bandwidth', type=float, metavar='X', help="of mmd; 10 is CMMD's (default: the reference's median distance)"
    )
    group.add_argument('--reference', metavar='NPZ', help="of `diffusion evaluate stats` (default: the run's own data)")
    for name, key in cells.GRID.items():
        group.add_argument(f'--{name}', metavar='LIST', help=f'short for --config.{key}; several values: each of them')
    parser.epilog = (
        f'Also --config.SECTION.KEY=VALUE for {", ".join(FREE)}; of samples for {", ".join(build.SAMPLING)}. '
        '`diffusion evaluate stats SOURCE -o ref.npz` makes a reference, `diffusion evaluate fetch NETWORK` brings its '
        'weights, `diffusion evaluate compare A.json B.json` says whether two results may be compared.'
    )
    return parser


def _metrics(args) -> list[str]:
    names = [name.strip() for name in args.metrics.split(',') if name.strip()]
    known = (*METRICS, *measures.METRICS)
    for name in names:
        if name not in known:
            raise ValueError(usage.unknown('metric', name, known))
    if not names or len(set(names)) < len(names):
        raise ValueError(f'--metrics={args.metrics}: each once, of {", ".join(known)}')
    if args.watch and (args.step is not None or args.range is not None):
        raise ValueError('--watch measures every checkpoint as a whole: leave out --step and --range')
    if args.json and Path(args.json).exists() and not args.overwrite:
        raise ValueError(f'--json={args.json} is there already: add --overwrite, or name another')
    return names


def _chosen(config, args, overrides):
    if args.split is not None:
        overrides = [f'data.split={args.split}', *overrides]
    config = opening.choose(config, overrides, FREE, 'evaluating')
    # The model itself is measured, whatever its samples are guided by.
    return build.override(config, ['guidance.name=none'])


def _drawn(config, args, overrides):
    """The run's config with what this call chooses for drawing. Raises ValueError."""
    short = {'data.split': args.split, 'sample.batch': args.batch}
    overrides = [*(f'{key}={value}' for key, value in short.items() if value is not None), *overrides]
    config = opening.choose(config, overrides, (*build.SAMPLING, *FREE), 'evaluating')
    drawing.check_paced(config, overrides)
    return config


def _check_flags(args, names, seen):
    """names: of the likelihoods asked for; seen: of the metrics of samples beside them."""
    flags = (*cells.GRID, 'reference', *(() if seen else (*networks.FLAGS, 'bandwidth', 'repeats', 'clip')))
    given = [name.replace('_', '-') for name in flags if getattr(args, name) is not None]
    if given:
        raise ValueError(f'no flag --{given[0]} with {", ".join(names)}: these measure the model itself, not samples')
