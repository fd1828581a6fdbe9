"""`diffusion edit inpaint`, `outpaint`, `variation`, `colorize`, `upscale`, `deblur`, `trace`: with a given part."""

import dataclasses
import functools
import math

import numpy as np

from diffusion import build, usage
from diffusion import config as configs
from diffusion.core import operators
from diffusion.programs import calls, drawing, inputs, opening, pictured, restored, seeding, steering
from diffusion.runtime import compilation

SOFT, HARD = 'differential', 'repaint'  # methods where none is named, for masks of pictures
MEASURED = 'pigdm'  # for other measurements of pictures: mmps drives some seeds of trained networks off
NUMBERS = 'mmps'  # for numbers, whose posterior is wanted rather than a picture
LEVELS = 127.5  # 8-bit levels in a unit of the model's pictures
ROUNDING = 12**-0.5  # the deviation of what rounding to 8 bits does, in levels


@dataclasses.dataclass(frozen=True)
class Wanted:
    """An action, as its flags ask for it. before: the picture as it is shown beside the results, and what they are
    blended into where change is not None: float32 [H, W] in [0, 1]; task: what the sampler is asked; method: '' where
    nothing is measured."""

    before: np.ndarray
    change: np.ndarray | None
    task: build.Task
    method: str


def run(action: str, argv: list[str]) -> int:
    """Exit status 0, or 2."""
    args, overrides = _parser(action).parse(argv)
    with usage.checked():
        _name_method(args, overrides)
        stored, facts = opening.read(args.workdir)
        if facts.dtype != 'uint8' and (action != 'inpaint' or min(facts.shape[:2]) < 2):
            raise ValueError(f'edit {action} is for pictures, and this run draws numbers or points')
        seeds = seeding.read(args, 4)
        most = calls.padded(len(seeds))
        grid = opening.start(args.workdir, stored, overrides, most)
        model = build.experiment(stored, facts)
        if action != 'variation' and getattr(args, 'strength', 1.0) == 1:
            pictured.default(action, args, model)
        wanted = WANTED[action](args, facts)
        told = {}
        if wanted.method == pictured.CONDITIONED:
            told['picture'] = pictured.asked(action, model, wanted.task, wanted.change)
        _check_size(model, wanted.task.shape)
        config = _chosen(stored, args, overrides, wanted)
        model = dataclasses.replace(model, facts=build.moved(facts, config))
        labels = [args.label] if args.label else []
        prompts = [args.prompt] if args.prompt is not None else []
        opening.check_conditioned(model, prompts, labels, bool(told))
        leaning = steering.read(args, model)
        store = restored.open(args, facts, seeds, wanted.before.shape)
        cond = drawing.conditions(model, len(seeds), prompts, labels)
        cond |= {name: np.repeat(value, len(seeds), 0) for name, value in told.items()}
        artist = drawing.artist(model, config, grid, most, leaning, wanted.task)
    weights, step = opening.weights(args.workdir, model, grid, args.weights, args.step)
    if leaning.weak:
        artist = artist.against(steering.weaker(args, leaning.weak, step, grid)[1])
    print(f'{args.weights} weights of step {step}, {_recipe(config, wanted)}{steering.said(args)}')
    about = {'action': action, 'workdir': args.workdir, 'weights': args.weights, 'step': step, 'image': args.image}
    about |= {key: value for key, value in vars(args).items() if key in TOLD and value is not None}
    about |= {section: config[section] for section in ('edit', 'sampler', 'grid', 'guidance') if section in config}
    restored.write(store, wanted, artist.draw(weights, seeds, cond), about)
    print(compilation.TALLY.said())
    return 0


TOLD = ('mask', 'prompt', 'negative_prompt', 'label', 'strength', 'noise', 'factor', 'blur', *restored.FIELD)


def _inpaint(args, facts) -> Wanted:
    given = inputs.read(args.image, facts)
    change = inputs.mask(args.mask, given, args.image)
    return masked(given.values, given.unit, change, args.method, args.strength, _noise(args, facts))


def _outpaint(args, facts) -> Wanted:
    sides = [getattr(args, side) for side in SIDES]
    if min(sides) < 0 or not any(sides):
        raise ValueError('outpaint wants pixels to add: --left=N, --right=N, --top=N or --bottom=N, above 0')
    given = inputs.read(args.image, facts)
    left, right, top, bottom = sides
    room = ((top, bottom), (left, right))
    change = np.pad(np.zeros(given.values.shape[:2]) if given.change is None else given.change, room, constant_values=1)
    values, unit = (np.pad(array, (*room, (0, 0)), mode='edge') for array in (given.values, given.unit))
    return masked(values, unit, change.astype(np.float32), args.method, 1.0, _noise(args, facts))


def masked(values, unit, change, method: str | None, strength: float, noise) -> Wanted:
    """What `inpaint` asks for. values: [H, W, C] as the file has them, unit: as the model has them; change: float32
    [H, W] in [0, 1]; method: None for the default; noise: in the model's units."""
    hard = HARD if values.dtype == np.uint8 else NUMBERS
    method = method or (SOFT if np.any((change > 0) & (change < 1)) or strength < 1 else hard)
    soft = method == SOFT
    kept = ((change < 1) if soft else (change == 0)).astype(np.float32)[None, ..., None]
    arrays = {'kept': kept, 'value': kept * unit, 'noise': noise}
    if soft:
        arrays['change'] = change[None, ..., None]
    # What is to be replaced as a whole leaves no trace in the start.
    arrays['around'] = arrays['value'] if strength == 1 else unit[None]
    task = build.Task(values.shape, arrays, lambda arrays: operators.mask(arrays['kept']), strength)
    return Wanted(values, change, task, method)


def _variation(args, facts) -> Wanted:
    given = inputs.read(args.image, facts)
    task = build.Task(given.values.shape, {'around': given.unit[None]}, None, args.strength)
    return Wanted(given.values, None, task, '')


def _colorize(args, facts) -> Wanted:
    if facts.shape[-1] != 3:
        raise ValueError(f'this model draws {facts.shape[-1]} channels: only one of RGB can colourise')
    given = inputs.read(args.image, facts)
    operator = operators.grey()
    value = np.asarray(operator.apply(given.unit[None]))
    before = np.rint(np.repeat((value[0] + 1) * LEVELS, 3, -1)).astype(np.uint8)
    return _measured(args, facts, before, value, given.values.shape, lambda arrays: operator)


def _upscale(args, facts) -> Wanted:
    factor = args.factor
    if factor < 2:
        raise ValueError(f'--factor={factor}: a whole number from 2')
    given = inputs.read(args.image, facts)
    before = np.repeat(np.repeat(given.values, factor, 0), factor, 1)
    operator = operators.downsample(factor)
    return _measured(args, facts, before, given.unit[None], before.shape, lambda arrays: operator)


def _deblur(args, facts) -> Wanted:
    given = inputs.read(args.image, facts)
    operator = operators.blur(args.blur)
    return _measured(args, facts, given.values, given.unit[None], given.values.shape, lambda arrays: operator)


def _trace(args, facts) -> Wanted:
    if args.method not in (None, pictured.CONDITIONED):
        raise ValueError(f'--method={args.method}: edges are drawn by a model that was trained on them: leave it out')
    given = inputs.read(args.image, facts)
    arrays = {'around': np.zeros((1, 1, 1, 1), np.float32), 'value': given.unit[None], 'noise': _noise(args, facts)}
    return Wanted(given.values, None, build.Task(given.values.shape, arrays), pictured.CONDITIONED)


def _measured(args, facts, before, value, shape, operator) -> Wanted:
    arrays = {'around': np.zeros((1, 1, 1, 1), np.float32), 'value': value, 'noise': _noise(args, facts)}
    return Wanted(before, None, build.Task(shape, arrays, operator), args.method or MEASURED)


def _noise(args, facts):
    """In the model's units."""
    if not (args.noise >= 0 and math.isfinite(args.noise)):
        raise ValueError(f'--noise={args.noise:g}: a deviation, at least 0')
    return np.float32(args.noise / LEVELS if facts.dtype == 'uint8' else args.noise)


WANTED = {
    'inpaint': _inpaint,
    'outpaint': _outpaint,
    'variation': _variation,
    'colorize': _colorize,
    'upscale': _upscale,
    'deblur': _deblur,
    'trace': _trace,
}
ACTIONS = {action: functools.partial(run, action) for action in WANTED}
DESCRIBED = {
    'inpaint': 'Draw what a mask covers anew; everything else stays as it is, pixel for pixel.',
    'outpaint': 'Draw beyond the borders of a picture, which itself stays as it is.',
    'variation': 'Draw a picture anew from itself, more or less noised (SDEdit).',
    'colorize': 'Draw pictures whose luminance is that of the one given.',
    'upscale': 'Draw pictures whose means over squares of pixels are those of the one given.',
    'deblur': 'Draw pictures that would be the one given if they were blurred.',
    'trace': 'Draw pictures that have the edges of the one given, with a model that was trained on edges.',
}
SIDES = ('left', 'right', 'top', 'bottom')


def _parser(action):
    parser = usage.Parser(f'edit {action}', DESCRIBED[action])
    opening.add_flags(parser, 'edit with')
    add = parser.add_argument
    add('--image', required=True, metavar='FILE', help='the picture: PNG, JPEG, WebP (or .npy for a run on numbers)')
    add('--out', default='out', metavar='DIR', help='where the results go (default: out)')
    add('--prompt', metavar='TEXT', help='words for the result')
    add('--label', metavar='CLASS', help='the class of the result')
    seeding.add_flags(parser, 4)
    if action in ('inpaint', 'variation'):
        start = 1.0 if action == 'inpaint' else 0.6
        add('--strength', type=float, default=start, metavar='X', help=f'in (0, 1]: how much changes ({start})')
    if action == 'inpaint':
        add('--mask', metavar='FILE', help='white = change, grey = change less; else what is transparent (or NaN)')
        restored.add_flags(parser)
    if action == 'outpaint':
        for side in SIDES:
            add(f'--{side}', type=int, default=0, metavar='N', help='pixels to add (default: 0)')
    if action == 'upscale':
        add('--factor', type=int, default=2, metavar='N', help='(default: 2)')
    if action == 'deblur':
        add('--blur', type=float, default=1.0, metavar='X', help='deviation of the Gaussian in pixels (default: 1)')
    if action != 'variation':
        noise = ROUNDING if action == 'deblur' else 0.0
        add('--method', metavar='NAME', help='short for --config.edit.name: see docs/editing.md')
        add('--noise', type=float, default=noise, metavar='X', help='of the given values, in 8-bit levels')
    add('--sampler', metavar='NAME', help='short for --config.sampler.name')
    add('--steps', metavar='N', help='short for --config.sample.steps')
    add('--guidance', metavar='[NAME:]SCALE', help='short for --config.guidance.name and .scale; 1 is off')
    steering.add_flags(parser)
    add('--overwrite', action='store_true', help='replace results of these names in --out')
    parser.epilog = f'Also --config.SECTION.KEY=VALUE for the sections {", ".join(build.EDITING)}'
    return parser


def _name_method(args, overrides) -> None:
    """--config.edit.name is another way to say --method. Raises ValueError where both are given."""
    named = [one.partition('=')[2] for one in overrides if one.startswith('edit.name=')]
    if named and getattr(args, 'method', None):
        raise ValueError('--method is short for --config.edit.name: give one of them')
    if named:
        args.method = named[-1]


def _check_size(model, shape):
    height, width = shape[:2]
    nearest = build.nearest_size(model, height, width)
    if nearest != (height, width):
        raise ValueError(
            f'this network cannot take {width} x {height} pixels: the nearest it can is {nearest[1]} x {nearest[0]}'
        )


def _chosen(stored, args, overrides, wanted):
    """The run's config with what this call chooses. Raises ValueError."""
    short = {'sampler.name': args.sampler, 'sample.steps': args.steps}
    if wanted.method:
        short['edit.name'] = wanted.method
    guided = args.guidance or any(one.startswith('guidance.') for one in overrides)
    if not guided and args.prompt is None and args.label is None and not steering.asked(args):
        args.guidance = '1'  # towards nothing
    overrides = [
        *(f'{key}={value}' for key, value in short.items() if value is not None),
        *steering.overrides(args, stored['guidance']['name'], overrides),
        *overrides,
    ]
    config = opening.choose(stored, overrides, build.EDITING, 'editing')
    drawing.check_paced(config, overrides)
    if not wanted.method and any(one.startswith('edit.') for one in overrides):
        raise ValueError('config.edit: a variation has no method: leave it out')
    if wanted.method and not build.leads(config) and any(one.startswith('sampler.') for one in overrides):
        raise ValueError(f'--method={config["edit"]["name"]} takes steps of its own: leave out --sampler')
    return config


def _recipe(config: configs.Config, wanted: Wanted) -> str:
    steps = 'steps of its own' if build.paces_itself(config) else f'{config["sample"]["steps"]} steps'
    steps += f', the last {wanted.task.strength:g} of them' if wanted.task.strength < 1 else ''
    by = config['sampler']['name']
    if wanted.method:
        options = [f'{key}={value}' for key, value in config['edit'].items() if key != 'name']
        named = config['edit']['name'] + (f' ({", ".join(options)})' if options else '')
        by = f'{named} with {by}' if build.leads(config) else named
    return f'{by}, {steps}, guidance {config["guidance"].get("scale", 1.0):g}'
