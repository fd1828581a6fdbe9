"""`diffusion evaluate`: measure a checkpoint by the data of its run."""

from pathlib import Path

import numpy as np

from diffusion import build, usage
from diffusion.data import pipeline
from diffusion.programs import loglikelihood, opening, workdir
from diffusion.runtime import ema, writer

# Metric = (run, mesh, args) -> measure; it refuses by ValueError what it cannot be asked.
# measure = (weights, inputs, count, batch) -> report, lines: JSON values, and what to print of them. inputs: rows, int
# [batch], to the arrays of these examples: 'image', the conditions in use, 'index'.
METRICS = {'bpd': loglikelihood.bpd, 'nll': loglikelihood.nll}
# Of the config: where to compute, and where the data lie.
FREE = ('data.split', 'data.data_dir', 'runtime')
NUM = 256


def main(argv: list[str]) -> int:
    """Prints each metric and writes eval/METRIC_step_N.json into the workdir. Exit status 0, or 2."""
    args, overrides = _parser().parse(argv)
    with usage.checked():
        names = _metrics(args.metrics)
        config, facts = opening.read(args.workdir)
        split = config['data'].get('split')
        config = _chosen(config, args, overrides)
        data = build.source(config)
        ids = _examples(data, facts, args, config['data'].get('split') == split)
        batch = args.batch if args.batch is not None else config['sample']['batch']
        if batch < 1:
            raise ValueError(f'--batch={batch}: at least 1')
        grid = opening.devices(args.workdir, config, min(batch, len(ids)))
        run = build.experiment(config, facts)
        metrics = {name: METRICS[name](run, grid, args) for name in names}
        examples = _gathered(run, data, ids)
    weights, step = opening.weights(args.workdir, run, grid, args.weights, args.step)
    with usage.checked():
        paths = {name: _path(args, name, step) for name in names}
    print(f'{args.weights} weights of step {step}, {len(ids):,} of {len(data):,} examples')
    described = workdir.describe(config, facts)
    context = {
        'weights': args.weights,
        'step': step,
        'data': {
            **config['data'],
            'fingerprint': data.fingerprint,
            'examples': len(data),
            'num': len(ids),
            'seed': args.seed,
        },
        'versions': described['versions'],
        'commit': described['commit'],
    }
    for name, measure in metrics.items():
        report, lines = measure(weights, lambda rows: {k: v[rows] for k, v in examples.items()}, len(ids), batch)
        writer.write_json(paths[name], {'metric': name, **report, **context})
        print('\n'.join(lines))
        print(f'written to {paths[name]}')
    return 0


def _parser():
    parser = usage.Parser('evaluate', __doc__.split(': ', 1)[1])
    opening.add_flags(parser, 'measure')
    parser.add_argument('--metrics', required=True, metavar='LIST', help=f'with commas, of: {", ".join(METRICS)}')
    parser.add_argument('--num', type=int, metavar='N', help=f'examples, chosen at random (default: {NUM}, or all)')
    parser.add_argument('--seed', type=int, default=0, metavar='N', help='of the choice and all noise (default: 0)')
    parser.add_argument('--batch', type=int, metavar='N', help="examples a call (default: the run's sample.batch)")
    parser.add_argument('--split', metavar='NAME', help="short for --config.data.split (default: the run's)")
    parser.add_argument('--overwrite', action='store_true', help='replace a result that is there')
    loglikelihood.add_flags(parser)
    parser.epilog = f'Also --config.SECTION.KEY=VALUE for {", ".join(FREE)}'
    return parser


def _metrics(text: str) -> list[str]:
    names = [name.strip() for name in text.split(',') if name.strip()]
    for name in names:
        if name not in METRICS:
            raise ValueError(usage.unknown('metric', name, METRICS))
    if not names or len(set(names)) < len(names):
        raise ValueError(f'--metrics={text}: each once, of {", ".join(METRICS)}')
    return names


def _chosen(config, args, overrides):
    if args.split is not None:
        overrides = [f'data.split={args.split}', *overrides]
    config = opening.choose(config, overrides, FREE, 'evaluating')
    # The model itself is measured, whatever its samples are guided by.
    return build.override(config, ['guidance.name=none'])


def _examples(data, facts, args, trained_on) -> np.ndarray:
    """Which examples are measured: int64 [num]. Raises ValueError for data that are not the model's."""
    if build.shape(data) != facts.shape or data.dtype != facts.dtype:
        raise ValueError(f'the data are {build.shape(data)} {data.dtype}, the model is of {facts.shape} {facts.dtype}')
    if facts.classes and tuple(data.classes) != facts.classes:
        raise ValueError('the classes of the data are not those that the model was trained on')
    if trained_on and data.fingerprint != facts.fingerprint:
        raise ValueError('the data are not those of the training: name another --config.data.data_dir or --split')
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


def _path(args, name, step) -> Path:
    # The results of the main average have the plain name, which rotation and curves look for.
    of = '' if args.weights == ema.MAIN else f'_{Path(args.weights).name}'
    path = Path(args.workdir) / 'eval' / f'{name}{of}_step_{step}.json'
    if path.exists() and not args.overwrite:
        raise ValueError(f'{path} is there already: add --overwrite, or move it')
    return path
