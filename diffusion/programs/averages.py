"""`diffusion checkpoint ema`: an average of any length, made afterwards of the snapshots of a run."""

import contextlib
import os
import shutil
from pathlib import Path

from diffusion import build, usage
from diffusion.programs import opening, workdir
from diffusion.runtime import combining, manifest, mesh, platform, profiles, snapshots, state, store


def main(argv: list[str]) -> int:
    """Writes the average and says how near it is to the true one. Exit status 0, or 2."""
    args, overrides = _parser().parse(argv)
    with usage.checked():
        profiles.exponent(args.length)
        config, facts = opening.read(args.workdir)
        config = opening.choose(config, overrides, ('runtime',), 'averaging')
        source = Path(args.workdir) / snapshots.FOLDER
        step, stored = _stored(source, args.step)
        out = _free(args, step)
        runtime = config['runtime']
        devices = platform.configure(runtime['platform'], runtime['devices'])
        run = build.experiment(config, facts)
    terms = [(when, profiles.length_of(name)) for when, name in stored]
    weights = profiles.combination(terms, step, args.length)
    error = profiles.mismatch(terms, weights, step, args.length)
    # Split over all devices: what a training needed a pod to hold need not fit on one of them.
    target = state.abstract(mesh.make(devices, len(devices)), run.network.init, run.optimizer).params
    with contextlib.closing(store.Store(source, create=False)) as kept:
        trees = (kept.restore(when, {name: target})[name] for when, name in stored)
        average = combining.weighted_sum(zip(weights, trees))
    meta = {
        **workdir.describe(config, facts),
        'length': args.length,
        'made_of': [[when, name, float(weight)] for (when, name), weight in zip(stored, weights)],
        'mismatch': error,
    }
    with contextlib.closing(store.Store(out)) as made:
        made.save(step, {opening.PART: average}, meta)
    name = os.path.join('.', out) if args.out else out.name  # a separator tells a folder from a name
    print(f'power-function average of length {args.length:g} at step {step} of {len(stored)} stored averages')
    print(f'its profile is off by {error:.2%} of its norm; sum of |weights| {abs(weights).sum():.3g}')
    print(f'written to {out}: use it with --weights={name}')
    return 0


def _parser():
    parser = usage.Parser('checkpoint ema', __doc__.split(': ', 1)[1])
    parser.add_argument('--workdir', required=True, metavar='DIR', help='a run with config.ema.snapshot_every')
    parser.add_argument(
        '--length',
        type=float,
        required=True,
        metavar='L',
        help='standard deviation of the profile relative to the training so far, as 0.10 (sigma_rel of EDM2)',
    )
    parser.add_argument('--step', type=int, metavar='N', help='the end of the average (default: the newest snapshot)')
    parser.add_argument('--out', metavar='DIR', help='where it goes (default: averages/posthoc_L of the workdir)')
    parser.add_argument('--overwrite', action='store_true', help='replace an average of this step that is there')
    parser.epilog = 'Also --config.runtime.KEY=VALUE'
    return parser


def _stored(folder: Path, wanted: int | None) -> tuple[int, list[tuple[int, str]]]:
    """The step of the average and the (step, name) of all stored ones up to it. Raises ValueError."""
    steps = store.steps(folder)
    if not steps:
        raise ValueError(
            f'{folder} holds no snapshot: train with --config.ema.profiles=0.05,0.1 --config.ema.snapshot_every=STEPS'
        )
    if wanted is not None and wanted not in steps:
        raise ValueError(f'no snapshot of step {wanted}: there are {", ".join(map(str, steps))}')
    last = steps[-1] if wanted is None else wanted
    for step in steps:
        wrong = manifest.problems(folder / str(step)) if step <= last else []
        if wrong:
            raise ValueError(
                f'the snapshot of step {step} is damaged ({wrong[0]}): to do without, remove {folder}/{step}'
            )
    return last, [(step, name) for step in steps if step <= last for name in manifest.read(folder / str(step))['items']]


def _free(args, step) -> Path:
    out = Path(args.out) if args.out else Path(args.workdir) / opening.AVERAGES / f'posthoc_{args.length:g}'
    place = out / str(step)
    if place.exists() and not args.overwrite:
        raise ValueError(f'{place} is there already: add --overwrite, or name another --out')
    if place.exists():
        shutil.rmtree(place)
    return out
