"""`diffusion edit invert` and `interpolate`: pictures through their latent codes."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffusion import build, usage
from diffusion.core import latents, loss, ode
from diffusion.programs import calls, drawing, opening, solving
from diffusion.runtime import compilation, pictures, writer
from diffusion.runtime import mesh as meshes

# Below this the eye can tell a picture from its way there and back.
FAITHFUL_DB = 35.0
REPORT = 'edit.json'


def invert(argv: list[str]) -> int:
    """The latent codes of pictures, and what the model makes of the codes, with another prompt too."""
    parser = _parser('invert', invert.__doc__)
    parser.add_argument('--new-prompt', metavar='TEXT', help='words that the codes are decoded with besides')
    parser.add_argument(
        '--strength', type=float, default=1.0, metavar='X', help='in (0, 1]: how far up the pictures are encoded'
    )
    args, overrides = parser.parse(argv)
    with usage.checked():
        names = [Path(path).stem for path in args.image]
        if len(set(names)) < len(names):
            raise ValueError('two of the pictures have the same name, which names the results: rename one')
        kinds = ('code.npy', 'reconstruction.png', *(['edited.png'] if args.new_prompt is not None else []))
        out = _free(args, [f'{stem}_{kind}' for stem in names for kind in kinds] + ['sheet.png', REPORT])
        setup = _setup(args, overrides)
        other = setup
        if args.new_prompt is not None:
            other = dataclasses.replace(setup, prompts=(args.new_prompt,))
            drawing.conditions(setup.run, 1, other.prompts)  # refuses what the model cannot know
    weights = _weights(setup)
    codes = _solved(setup, weights, latents.encode, setup.images)
    restored = _solved(setup, weights, latents.decode, codes)
    shown = [('before', setup.images), ('reconstruction', restored)]
    if other is not setup:
        shown.append(('edited', _solved(other, weights, latents.decode, codes)))
    for i, stem in enumerate(names):
        pictures.save_array(out / f'{stem}_code.npy', codes[i])
        for kind, images in shown[1:]:
            pictures.save(out / f'{stem}_{kind}.png', _uint8(images[i]))
    every = _uint8(np.stack([images for _, images in shown], 1).reshape(-1, *codes.shape[1:]))
    pictures.save(out / 'sheet.png', pictures.sheet(every, [kind for kind, _ in shown] * len(names), len(shown)))
    _report(setup, restored, out, {'action': 'invert', 'new_prompt': args.new_prompt, 'strength': args.strength})
    print(compilation.TALLY.said())
    print(f'codes and reconstructions in {out}')
    return 0


def interpolate(argv: list[str]) -> int:
    """Pictures between two, along the great circle from one latent code to the other."""
    parser = _parser('interpolate', interpolate.__doc__)
    parser.add_argument('--num', type=int, default=8, metavar='N', help='pictures, the two among them (default: 8)')
    args, overrides = parser.parse(argv)
    with usage.checked():
        if len(args.image) != 2:
            raise ValueError(f'interpolate needs two pictures, not {len(args.image)}: --image=a.png --image=b.png')
        if args.num < 2:
            raise ValueError(f'--num={args.num}: at least 2, the two pictures themselves')
        frames = [f'{i:0{len(str(args.num - 1))}}.png' for i in range(args.num)]
        out = _free(args, [*frames, 'grid.png', REPORT])
        setup = _setup(args, overrides)
    weights = _weights(setup)
    first, last = _solved(setup, weights, latents.encode, setup.images)
    codes = np.asarray(latents.slerp(first, last, np.linspace(0, 1, args.num, dtype=np.float32)))
    between = _solved(setup, weights, latents.decode, codes)
    images = _uint8(between)
    for name, image in zip(frames, images):
        pictures.save(out / name, image)
    pictures.save(out / 'grid.png', pictures.sheet(images, columns=args.num))
    _report(setup, between[[0, -1]], out, {'action': 'interpolate'})
    print(compilation.TALLY.said())
    print(f'{args.num} pictures in {out}')
    return 0


def _parser(action, description):
    parser = usage.Parser(f'edit {action}', description)
    opening.add_flags(parser, 'edit with')
    parser.add_argument('--image', action='append', required=True, metavar='FILE', help='a picture; may be repeated')
    parser.add_argument('--out', default='out', metavar='DIR', help='where the results go (default: out)')
    parser.add_argument('--prompt', metavar='TEXT', help='words for all the pictures')
    parser.add_argument('--label', metavar='CLASS', help='the class of all the pictures')
    parser.add_argument('--guidance', default='1', metavar='SCALE', help='of the condition; 1 is off (default: 1)')
    parser.add_argument('--overwrite', action='store_true', help='replace results of these names in --out')
    solving.add_flags(parser)
    parser.epilog = 'Also --config.runtime.KEY=VALUE'
    return parser


@dataclasses.dataclass(frozen=True)
class _Setup:
    """images: [N, H, W, C] float32 in [-1, 1]; prompts, labels: none or one; scale: of guidance; high: the noise level
    of the codes."""

    args: Any
    run: build.Experiment
    mesh: Any
    method: ode.Method
    images: np.ndarray
    prompts: tuple[str, ...]
    labels: tuple[str, ...]
    scale: float
    batch: int
    high: float


def _setup(args, overrides) -> _Setup:
    """Everything but the weights. Raises ValueError."""
    method = solving.method(args)
    config, facts = opening.read(args.workdir)
    if facts.dtype != 'uint8':
        raise ValueError('edit is for pictures, and this run draws points')
    config = opening.choose(config, overrides, ('runtime', 'text.path', 'text.cache'), 'editing')
    batch = min(config['sample']['batch'], calls.padded(max(len(args.image), getattr(args, 'num', 0))))
    mesh = opening.devices(args.workdir, config, batch)
    rule = 'none' if args.guidance == '1' else 'classifier_free'
    config = build.override(config, [f'guidance.name={rule}'])
    if rule != 'none':
        config = build.override(config, [f'guidance.scale={args.guidance}'])
    run = build.experiment(config, build.moved(facts, config))
    prompts, labels = (() if given is None else (given,) for given in (args.prompt, args.label))
    opening.check_conditioned(run, prompts, labels)
    drawing.conditions(run, 1, prompts, labels)  # refuses what the model cannot know
    images = np.stack([pictures.load(path, facts.shape) for path in args.image])
    unit = np.asarray(loss.to_unit(images))
    scale, high = config['guidance'].get('scale', 1.0), float(run.process.nsr_range()[1])
    if getattr(args, 'strength', 1.0) != 1:
        high = float(build.sigmas(run, config, args.strength)[0])
    return _Setup(args, run, mesh, method, unit, prompts, labels, scale, batch, high)


def _weights(setup):
    args = setup.args
    weights, step = opening.weights(args.workdir, setup.run, setup.mesh, args.weights, args.step)
    print(f'{args.weights} weights of step {step}, guidance {setup.scale:g}')
    return weights


def _solved(setup, weights, way, values) -> np.ndarray:
    """`latents.encode` or `latents.decode` of values: [N, H, W, C]. Raises UsageError where one does not finish."""
    run = setup.run
    cond = drawing.conditions(run, len(values), setup.prompts, setup.labels)

    def solve(fixed, inputs):
        params, low, high, scale = fixed
        inputs = dict(inputs)
        x = inputs.pop('values')
        denoise = build.denoise(run, params, inputs, scale if setup.scale != 1 else None)
        found = way(denoise, x, low, high, setup.method)
        return found.state, found.finished

    compiled = calls.compiled(calls.precise(solve), setup.mesh, setup.batch, calls.padded(len(values)))
    levels = (float(run.process.nsr_range()[0]), setup.high, setup.scale)
    fixed = (weights, *jax.device_put(tuple(map(np.float32, levels)), meshes.replicated(setup.mesh)))
    everything = {'values': values, **cond}
    parts = list(compiled.over(fixed, lambda rows: {k: v[rows] for k, v in everything.items()}, len(values)))
    states, finished = (np.concatenate(part) for part in zip(*parts))
    if not finished.all():
        raise usage.UsageError(solving.unfinished(int((~finished).sum()), len(values), setup.args))
    return states


def _uint8(images):
    return np.asarray(loss.to_uint8(images))


def _report(setup, restored, out, about) -> None:
    """Prints and writes how well the pictures came back, before they were rounded to 8 bits."""
    rows = []
    for path, before, after in zip(setup.args.image, setup.images, restored):
        psnr = 10 * np.log10(4 / max(float(np.mean((before - after) ** 2)), 1e-12))
        rows.append({'image': path, 'round_trip_psnr': psnr})
        print(f'{path}: round trip {psnr:.1f} dB PSNR')
        if psnr < FAITHFUL_DB:
            lower = 'a smaller --guidance or ' if setup.scale > 1 else ''
            print(f'{path}: below {FAITHFUL_DB:g} dB the code is not faithful: try {lower}smaller --rtol and --atol')
    args = setup.args
    about |= {'workdir': args.workdir, 'prompt': args.prompt, 'label': args.label, 'guidance': setup.scale}
    writer.write_json(out / REPORT, {**about, 'rtol': args.rtol, 'atol': args.atol, 'results': rows})


def _free(args, names) -> Path:
    folder = Path(args.out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f'--out={args.out} is a file')
    there = [name for name in names if (folder / name).exists()]
    if there and not args.overwrite:
        raise ValueError(f'--out={args.out} holds {there[0]} already: name another folder, or add --overwrite')
    return folder
