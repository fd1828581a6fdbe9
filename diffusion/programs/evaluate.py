"""`diffusion evaluate`: measure a checkpoint by the data of its run."""

import functools

import numpy as np

from diffusion import build, usage
from diffusion.data import pipeline
from diffusion.programs import (
    comparing,
    drawing,
    fetching,
    generated,
    loglikelihood,
    networks,
    opening,
    references,
    results,
    stats,
    workdir,
)
from diffusion.runtime import writer

# Metric = (run, mesh, args) -> measure; it refuses by ValueError what it cannot be asked.
# measure = (weights, inputs, count, batch) -> report, lines: JSON values, and what to print of them. inputs: rows, int
# [batch], to the arrays of these examples: 'image', the conditions in use, 'index'.
METRICS = {'bpd': loglikelihood.bpd, 'nll': loglikelihood.nll}
# Of the config: where to compute, and where the data lie.
FREE = ('data.split', 'data.data_dir', 'runtime')
NUM = 256
PARTS = {'stats': stats, 'fetch': fetching, 'compare': comparing}
SHORT = {'sampler': 'sampler.name', 'steps': 'sample.steps', 'guidance': 'guidance.scale'}


def main(argv: list[str]) -> int:
    """Prints each metric and writes eval/METRIC_step_N.json into the workdir. Exit status 0, or 2."""
    if argv and argv[0] in PARTS:
        return PARTS[argv[0]].main(argv[1:])
    args, overrides = _parser().parse(argv)
    with usage.checked():
        names = _metrics(args.metrics)
        likelihoods = [name for name in names if name in METRICS]
        seen = [name for name in names if name not in METRICS]
        if likelihoods:
            _check_flags(args, likelihoods, seen)
        stored, facts = opening.read(args.workdir)
        # All that can be refused is refused before anything is computed.
        begun = [_likelihoods(args, overrides, stored, facts, likelihoods)] if likelihoods else []
        begun += [_samples(args, overrides, stored, facts, seen)] if seen else []
    for measure in begun:
        measure()
    return 0


def _likelihoods(args, overrides, stored, facts, names):
    """Checks the call; returns what measures and writes."""
    config = _chosen(stored, args, overrides)
    data = _data(config, stored, facts)
    ids = _examples(data, args)
    batch = args.batch if args.batch is not None else config['sample']['batch']
    if batch < 1:
        raise ValueError(f'--batch={batch}: at least 1')
    grid = opening.devices(args.workdir, config, min(batch, len(ids)))
    run = build.experiment(config, facts)
    metrics = {name: METRICS[name](run, grid, args) for name in names}
    examples = _gathered(run, data, ids)

    def measure():
        weights, step = opening.weights(args.workdir, run, grid, args.weights, args.step)
        with usage.checked():
            paths = {name: results.free(args, name, step) for name in names}
        print(f'{args.weights} weights of step {step}, {len(ids):,} of {len(data):,} examples')
        context = _context(args, config, facts, data, step, len(ids))
        for name, metric in metrics.items():
            report, lines = metric(weights, lambda rows: {k: v[rows] for k, v in examples.items()}, len(ids), batch)
            writer.write_json(paths[name], {'metric': name, **report, **context})
            print('\n'.join(lines))
            print(f'written to {paths[name]}')

    return measure


def _samples(args, overrides, stored, facts, names):
    """Checks the call; returns what draws, measures and writes."""
    if facts.dtype != 'uint8':
        raise ValueError(f'{", ".join(names)} are of pictures, and the data of this run are numbers: --metrics=nll')
    if len(facts.shapes) > 1:
        raise ValueError(f'{", ".join(names)} are of pictures of one size, and this run has {len(facts.shapes)}')
    config = _drawn(stored, args, overrides)
    generated.check(args, names)
    data = _data(config, stored, facts)
    num = generated.NUM if args.num is None else args.num
    grid = opening.devices(args.workdir, config, min(config['sample']['batch'], max(num, 1)))
    own = functools.partial(_own, stored, config, facts, data)
    extractor = networks.open(args, facts.shape[2], own, networks.cache(args.workdir))
    reference = args.reference and references.read(args.reference, extractor, facts.shape)
    run = build.experiment(stored, facts)
    planned = generated.plan(run, config, data, grid, args, names, extractor)
    if reference:
        generated.check_reference(planned, reference)

    def measure():
        weights, step = opening.weights(args.workdir, run, grid, args.weights, args.step)
        with usage.checked():
            for slug in planned.slugs():
                results.free(args, slug, step)
        print(f'{args.weights} weights of step {step}, {num:,} samples, {generated.recipe(config)}')
        against = reference
        if not against:
            said = {key: value for key, value in config['data'].items() if key != 'data_dir'}
            with usage.checked():
                against = references.of_data(data, extractor, grid, planned.artist.calls.batch, said)
                generated.check_reference(planned, against)
        drawn = generated.draw(planned, grid, weights)
        with usage.checked():
            found = generated.measure(planned, drawn, against, args.seed)
        results.write(args, found, step, _context(args, config, facts, data, step, num), float(drawn.nfe.mean()))

    return measure


def _context(args, config, facts, data, step, num):
    described = workdir.describe(config, facts)
    return {
        'weights': args.weights,
        'step': step,
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
    opening.add_flags(parser, 'measure')
    parser.add_argument(
        '--metrics', required=True, metavar='LIST', help=f'with commas, of: {", ".join((*METRICS, *generated.NEEDED))}'
    )
    parser.add_argument(
        '--num',
        type=int,
        metavar='N',
        help=f'samples (default: {generated.NUM:,}), or examples for bpd and nll (default: {NUM} at random, or all)',
    )
    parser.add_argument('--seed', type=int, default=0, metavar='N', help='of the choice and all noise (default: 0)')
    parser.add_argument('--batch', type=int, metavar='N', help="examples a call (default: the run's sample.batch)")
    parser.add_argument('--split', metavar='NAME', help="short for --config.data.split (default: the run's)")
    parser.add_argument('--overwrite', action='store_true', help='replace a result that is there')
    loglikelihood.add_flags(parser)
    group = parser.add_argument_group(f'of samples: {", ".join(generated.NEEDED)}')
    networks.add_flags(group)
    group.add_argument('--reference', metavar='NPZ', help="of `diffusion evaluate stats` (default: the run's own data)")
    for name, key in SHORT.items():
        group.add_argument(f'--{name}', metavar='VALUE', help=f'short for --config.{key}')
    parser.epilog = (
        f'Also --config.SECTION.KEY=VALUE for {", ".join(FREE)}; of samples for {", ".join(build.SAMPLING)}. '
        '`diffusion evaluate stats SOURCE -o ref.npz` makes a reference, `diffusion evaluate fetch NETWORK` brings its '
        'weights, `diffusion evaluate compare A.json B.json` says whether two results may be compared.'
    )
    return parser


def _metrics(text: str) -> list[str]:
    names = [name.strip() for name in text.split(',') if name.strip()]
    known = (*METRICS, *generated.NEEDED)
    for name in names:
        if name not in known:
            raise ValueError(usage.unknown('metric', name, known))
    if not names or len(set(names)) < len(names):
        raise ValueError(f'--metrics={text}: each once, of {", ".join(known)}')
    return names


def _chosen(config, args, overrides):
    if args.split is not None:
        overrides = [f'data.split={args.split}', *overrides]
    config = opening.choose(config, overrides, FREE, 'evaluating')
    # The model itself is measured, whatever its samples are guided by.
    return build.override(config, ['guidance.name=none'])


def _drawn(config, args, overrides):
    """The run's config with what this call chooses for drawing. Raises ValueError."""
    short = {key: getattr(args, name) for name, key in SHORT.items()}
    short |= {'data.split': args.split, 'sample.batch': args.batch}
    overrides = [*(f'{key}={value}' for key, value in short.items() if value is not None), *overrides]
    config = opening.choose(config, overrides, (*build.SAMPLING, *FREE), 'evaluating')
    drawing.check_paced(config, overrides)
    return config


def _check_flags(args, names, seen):
    """names: of the likelihoods asked for; seen: of the metrics of samples beside them."""
    flags = (*SHORT, 'reference', *(() if seen else networks.FLAGS))
    given = [name.replace('_', '-') for name in flags if getattr(args, name) is not None]
    if given:
        raise ValueError(f'no flag --{given[0]} with {", ".join(names)}: these measure the model itself, not samples')


def _data(config, stored, facts):
    """The data to measure by. Raises ValueError for data that are not the model's."""
    data = build.source(config)
    if build.shape(data) != facts.shape or data.dtype != facts.dtype:
        raise ValueError(f'the data are {build.shape(data)} {data.dtype}, the model is of {facts.shape} {facts.dtype}')
    if facts.classes and tuple(data.classes) != facts.classes:
        raise ValueError('the classes of the data are not those that the model was trained on')
    trained_on = config['data'].get('split') == stored['data'].get('split')
    if trained_on and data.fingerprint != facts.fingerprint:
        raise ValueError('the data are not those of the training: name another --config.data.data_dir or --split')
    return data


def _own(stored, config, facts, data):
    """The data that the run was trained on, which a classifier is made of whatever it is used for."""
    if data.fingerprint == facts.fingerprint:
        return data
    place = {key: config['data'][key] for key in ('data_dir',) if key in config['data']}
    return build.source({**config, 'data': {**stored['data'], **place}})


def _examples(data, args) -> np.ndarray:
    """Which examples are measured: int64 [num]."""
    num = min(len(data), NUM) if args.num is None else args.num
    if not 1 <= num <= len(data):
        raise ValueError(f'--num={num}: there are {len(data)} examples')
    if not 0 <= args.seed < 2**31:
        raise ValueError(f'--seed={args.seed}: seeds lie in [0, 2**31)')
    return pipeline.example_ids(np.arange(num), len(data), args.seed)


def _gathered(run, data, ids) -> dict:
    """The images and the conditions in use, with their places in the data set."""
    batch = data.gather(ids)
    captions = batch.pop('caption', None)
    if run.facts.tokenizer:
        batch['tokens'] = run.facts.tokenizer.encode(captions)
    return {**run.inputs(batch), 'index': ids.astype(np.int32)}
