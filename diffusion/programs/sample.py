"""`diffusion sample`: draw pictures from a checkpoint."""

import dataclasses
from pathlib import Path

import numpy as np

from diffusion import build, usage
from diffusion.programs import calls, drawing, examples, opening, pictured, seeding, steering
from diffusion.runtime import compilation, pictures, status


def main(argv: list[str]) -> int:
    """Writes one PNG a seed, named by the seed, and grid.png; points as points.npy. Exit status 0, or 2."""
    args, overrides = _parser().parse(argv)
    with usage.checked():
        stored, facts = opening.read(args.workdir)
        config = _chosen(stored, args, overrides)
        seeds, names = _pictures(args)
        most = calls.padded(len(seeds))
        grid = opening.start(args.workdir, stored, overrides, most)
        facts = build.moved(facts, config)
        run = _sized(build.experiment(stored, facts), args.size)
        given = _conditions(run, config, stored, args, seeds)
        leaning = steering.read(args, run)
        out = _free(args.out, names, args.overwrite)
        labels = _labels(args, facts, seeds, given)
        opening.check_conditioned(run, args.prompt, labels, given is not None)
        cond = drawing.conditions(run, len(seeds), args.prompt, labels)
        cond |= {'picture': given.pictures} if given else {}
        cond |= _between(run, args, len(seeds))
        artist = drawing.artist(run, config, grid, most, leaning)
    weights, step = opening.weights(args.workdir, run, grid, args.weights, args.step)
    against = ''
    if leaning.weak:
        weak_step, weak = steering.weaker(args, leaning.weak, step, grid)
        artist = artist.against(weak)
        against = f', held against step {weak_step} of {args.guide_workdir or args.workdir}'
    way = f', on the way to {args.to!r}' if args.to else ''
    print(f'{args.weights} weights of step {step}, {_recipe(config)}{steering.said(args)}{against}{way}')
    sheet, evaluations = _draw(artist, weights, (seeds, names), cond, out, run, given)
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
    parser.add_argument('--to', metavar='TEXT', help='one seed, from --prompt to these words in --num pictures (8)')
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


def _pictures(args) -> tuple[list[int], list[str]]:
    """The seeds of the pictures and the names of their files: each its own seed, but from one text to another one for
    all. Raises ValueError."""
    if args.to is None:
        seeds = seeding.read(args, 16)
        return seeds, [str(seed) for seed in seeds]
    if len(args.prompt) != 1:
        raise ValueError(f'--to={args.to!r} wants one --prompt to begin with, not {len(args.prompt)}')
    count = 8 if args.num is None else args.num
    if count < 2:
        raise ValueError(f'--num={count}: from one text to another at least 2, the two themselves')
    args.num = None
    seeds = [0] if args.seeds is None else seeding.read(args, 1)
    if len(seeds) != 1:
        raise ValueError(f'--seeds={args.seeds}: with --to all pictures have one seed')
    return seeds * count, [f'{i:0{len(str(count - 1))}}' for i in range(count)]


def _between(run, args, count) -> dict:
    """What the conditions hold besides on the way from --prompt to --to. Raises ValueError."""
    if args.to is None:
        return {}
    other = drawing.conditions(run, count, [args.to])
    return {'to': other['tokens'], 'mix': np.linspace(0, 1, count, dtype=np.float32)}


def _chosen(config, args, overrides):
    """The run's config with what this call chooses. Raises ValueError for what training has fixed."""
    short = {'sampler.name': args.sampler, 'grid.name': args.grid, 'sample.steps': args.steps}
    overrides = [
        *(f'{key}={value}' for key, value in short.items() if value is not None),
        *steering.overrides(args, config['guidance']['name'], overrides),
        *overrides,
    ]
    free = build.SAMPLING
    if 'conditioning' in config:  # the pictures it is told are made of the data
        free += ('data.path', 'data.data_dir', 'data.split')
    config = opening.choose(config, overrides, free, 'drawing')
    drawing.check_paced(config, overrides)
    return config


def _conditions(run, config, stored, args, seeds) -> pictured.Given | None:
    """What a model that is told pictures is told: those of examples of its data, one a seed, with their words and
    classes where it cannot do without. Raises ValueError."""
    if run.conditioning is None:
        return None
    try:
        data = examples.data(config, stored, run.facts)
    except (ValueError, OSError) as error:
        raise ValueError(
            f'this model is told pictures, which are made of its data ({error}); of a picture of your own: diffusion '
            f'edit {run.conditioning.serves[0]} --image=FILE --workdir={args.workdir}'
        ) from error
    given, batch = pictured.of_examples(run, data, seeds)
    kept = run.train.never_without(run.null)
    if 'tokens' in kept and not args.prompt:
        args.prompt = batch['caption']
    if 'label' in kept and not args.label:
        args.label = batch['label'].tolist()
    print(f'told pictures of {len(seeds)} of {len(data):,} examples, by {run.config["conditioning"]["name"]}')
    return given


def _sized(run, size):
    """The run with the size that is asked for. Raises ValueError for one that it was not trained on."""
    if size is None:
        return run
    known = {f'{shape[0]}x{shape[1]}': shape for shape in run.facts.shapes}
    if size not in known:
        raise ValueError(f'--size={size}: this model was trained on images of {", ".join(known)}')
    return dataclasses.replace(run, facts=dataclasses.replace(run.facts, shape=known[size]))


def _labels(args, facts, seeds, given):
    """Classes in turn by seed where none is named: what a class-conditional model is trained to draw."""
    if args.label or args.prompt or given or not facts.classes:
        return args.label
    return [seed % len(facts.classes) for seed in seeds]


def _free(out, names, overwrite) -> Path:
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f'--out={out} is a file')
    there = [
        name for name in (*(f'{name}.png' for name in names), 'grid.png', 'points.npy') if (folder / name).exists()
    ]
    if there and not overwrite:
        raise ValueError(f'--out={out} holds {there[0]} already: name another folder, or add --overwrite')
    return folder


def _recipe(config) -> str:
    rule, scale = config['guidance']['name'], config['guidance'].get('scale', 1.0)
    named = '' if rule in ('none', 'classifier_free') else f' ({rule})'
    steps = 'steps of its own' if build.paces_itself(config) else f'{config["sample"]["steps"]} steps'
    return f'{config["sampler"]["name"]} sampler, {steps}, guidance {scale:g}{named}'


def _draw(artist, weights, pictured_as, cond, out, run, given) -> tuple[np.ndarray, float]:
    """Writes each picture as it comes (numbers: points.npy at the end).

    Returns the sheet of the first 100, and the mean number of evaluations a picture took.
    """
    (seeds, names), first, done, evaluations = pictured_as, [], 0, 0
    with status.Status('sample', len(seeds)) as line:
        for drawn in artist.draw(weights, seeds, cond):
            images, evaluations = drawn.x, evaluations + drawn.nfe.sum()
            _report_unfinished(line, drawn, seeds[done:])
            if images.dtype == np.uint8:
                for name, image in zip(names[done:], images):
                    pictures.save(out / f'{name}.png', image)
            done += len(images)
            room = 100 - len(first) if images.dtype == np.uint8 else len(images)
            first += list(images[: max(room, 0)])
            line.update(done)
    kept = np.stack(first)
    if given:
        some = given.first(len(kept))
        print(pictured.said(pictured.adherence(run, some, kept)))
    if kept.dtype == np.uint8:
        sheet = pictured.sheet(run, some.pictures, kept) if given else pictures.sheet(kept)
        return sheet, evaluations / done
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
