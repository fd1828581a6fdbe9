"""`diffusion sample`: draw pictures from a checkpoint."""

import dataclasses
from pathlib import Path

import numpy as np

from diffusion import build, usage
from diffusion.programs import calls, drawing, opening, seeding, steering
from diffusion.runtime import compilation, pictures, status


def main(argv: list[str]) -> int:
    """Writes one PNG a seed, named by the seed, and grid.png; points as points.npy. Exit status 0, or 2."""
    args, overrides = _parser().parse(argv)
    with usage.checked():
        stored, facts = opening.read(args.workdir)
        config = _chosen(stored, args, overrides)
        seeds = seeding.read(args, 16)
        most = calls.padded(len(seeds))
        grid = opening.start(args.workdir, stored, overrides, most)
        run = _sized(build.experiment(stored, facts), args.size)
        leaning = steering.read(args, run)
        out = _free(args.out, seeds, args.overwrite)
        labels = _labels(args, facts, seeds)
        opening.check_conditioned(run, args.prompt, labels)
        cond = drawing.conditions(run, len(seeds), args.prompt, labels)
        artist = drawing.artist(run, config, grid, most, leaning)
    weights, step = opening.weights(args.workdir, run, grid, args.weights, args.step)
    against = ''
    if leaning.weak:
        weak_step, weak = steering.weaker(args, leaning.weak, step, grid)
        artist = artist.against(weak)
        against = f', held against step {weak_step} of {args.guide_workdir or args.workdir}'
    print(f'{args.weights} weights of step {step}, {_recipe(config)}{steering.said(args)}{against}')
    sheet, evaluations = _draw(artist, weights, seeds, cond, out)
    pictures.save(out / 'grid.png', sheet)
    print(compilation.TALLY.said())
    print(f'{len(seeds)} pictures in {out}, {evaluations:g} evaluations of the model a picture')
    return 0


def _parser():
    parser = usage.Parser('sample', __doc__.split(': ', 1)[1])
    opening.add_flags(parser, 'draw from')
    parser.add_argument('--out', default='out', metavar='DIR', help='where the PNG files go (default: out)')
    parser.add_argument('--prompt', action='append', default=[], metavar='TEXT', help='words; may be repeated')
    parser.add_argument('--label', action='append', default=[], metavar='CLASS', help='a class; may be repeated')
    seeding.add_flags(parser, 16)
    parser.add_argument('--size', metavar='HxW', help='of a model of several sizes (default: the commonest)')
    parser.add_argument('--sampler', metavar='NAME', help='short for --config.sampler.name')
    parser.add_argument('--grid', metavar='NAME', help='short for --config.grid.name')
    parser.add_argument('--steps', metavar='N', help='short for --config.sample.steps')
    parser.add_argument(
        '--guidance',
        metavar='[NAME:]SCALE',
        help='short for --config.guidance.name and .scale; 1 is off',
    )
    steering.add_flags(parser)
    parser.add_argument('--overwrite', action='store_true', help='replace pictures of these seeds in --out')
    parser.epilog = f'Also --config.SECTION.KEY=VALUE for the sections {", ".join(build.SAMPLING)}'
    return parser


def _chosen(config, args, overrides):
    """The run's config with what this call chooses. Raises ValueError for what training has fixed."""
    short = {'sampler.name': args.sampler, 'grid.name': args.grid, 'sample.steps': args.steps}
    overrides = [
        *(f'{key}={value}' for key, value in short.items() if value is not None),
        *steering.overrides(args, config['guidance']['name'], overrides),
        *overrides,
    ]
    config = opening.choose(config, overrides, build.SAMPLING, 'drawing')
    drawing.check_paced(config, overrides)
    return config


def _sized(run, size):
    """The run with the size that is asked for. Raises ValueError for one that it was not trained on."""
    if size is None:
        return run
    known = {f'{shape[0]}x{shape[1]}': shape for shape in run.facts.shapes}
    if size not in known:
        raise ValueError(f'--size={size}: this model was trained on images of {", ".join(known)}')
    return dataclasses.replace(run, facts=dataclasses.replace(run.facts, shape=known[size]))


def _labels(args, facts, seeds):
    """Classes in turn by seed where none is named: what a class-conditional model is trained to draw."""
    if args.label or args.prompt or not facts.classes:
        return args.label
    return [seed % len(facts.classes) for seed in seeds]


def _free(out, seeds, overwrite) -> Path:
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f'--out={out} is a file')
    there = [
        name for name in (*(f'{seed}.png' for seed in seeds), 'grid.png', 'points.npy') if (folder / name).exists()
    ]
    if there and not overwrite:
        raise ValueError(f'--out={out} holds {there[0]} already: name another folder, or add --overwrite')
    return folder


def _recipe(config) -> str:
    rule, scale = config['guidance']['name'], config['guidance'].get('scale', 1.0)
    named = '' if rule in ('none', 'classifier_free') else f' ({rule})'
    steps = 'steps of its own' if build.paces_itself(config) else f'{config["sample"]["steps"]} steps'
    return f'{config["sampler"]["name"]} sampler, {steps}, guidance {scale:g}{named}'


def _draw(artist, weights, seeds, cond, out) -> tuple[np.ndarray, float]:
    """Writes each picture as it comes (numbers: points.npy at the end).

    Returns the sheet of the first 100, and the mean number of evaluations a picture took.
    """
    first, done, evaluations = [], 0, 0
    with status.Status('sample', len(seeds)) as line:
        for drawn in artist.draw(weights, seeds, cond):
            images, evaluations = drawn.x, evaluations + drawn.nfe.sum()
            _report_unfinished(line, drawn, seeds[done:])
            if images.dtype == np.uint8:
                for seed, image in zip(seeds[done:], images):
                    pictures.save(out / f'{seed}.png', image)
            done += len(images)
            room = 100 - len(first) if images.dtype == np.uint8 else len(images)
            first += list(images[: max(room, 0)])
            line.update(done)
    kept = np.stack(first)
    if kept.dtype == np.uint8:
        return pictures.sheet(kept), evaluations / done
    points = kept.reshape(len(kept), -1)
    pictures.save_array(out / 'points.npy', points)
    return pictures.scatter(points), evaluations / done


def _report_unfinished(line, drawn, seeds) -> None:
    if not drawn.finished.all():
        late = [str(seed) for seed, finished in zip(seeds, drawn.finished) if not finished]
        some = ', '.join(late[:5]) + (' ...' if len(late) > 5 else '')
        line.say(
            f'warning: {len(late)} seeds ({some}) are not finite or ran out of steps before the end: take more '
            '--steps or another --sampler; of an adaptive one raise --config.sampler.max_steps, or rtol and atol'
        )
