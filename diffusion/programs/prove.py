"""`diffusion checkpoint prove`: is a run that was killed and went on the run that was never killed, bit for bit?"""

import hashlib
import json
import os
from pathlib import Path

import jax
import numpy as np

from diffusion import build, usage
from diffusion.data import pipeline
from diffusion.programs import disturbing, measured
from diffusion.runtime import checkpoint, digest, manifest, snapshots, store

NEXT_IDS = 20
# What the experiment does without, and what it needs, where the call says nothing else.
DEFAULTS = ('preview.every=0', 'preview.match=0', 'preview.num=0')


def main(argv: list[str]) -> int:
    """Trains twice in processes of their own, kills one of them, compares. Exit status 0 all equal, 1 not, or 2."""
    args, overrides = _parser().parse(argv)
    with usage.checked():
        signals, moments = (
            _chosen('--signals', args.signals, disturbing.SIGNALS),
            _chosen('--moments', args.moments, disturbing.MOMENTS),
        )
        if args.steps < 2 or args.kills < 1 or args.processes < 1:
            given = f'--steps={args.steps} --kills={args.kills} --processes={args.processes}'
            raise ValueError(f'{given}: at least 2 steps, 1 kill and 1 process')
        fixed = [f'train.steps={args.steps}', 'train.log_every=1']
        overrides = [*DEFAULTS, f'train.save_every={max(args.steps // 4, 1)}', *overrides, *fixed]
        config = build.resolve(args.config, overrides)
        folder = _empty(args.workdir or os.path.join('runs', f'prove_{Path(args.config).stem}'))
        jax.config.update('jax_platforms', 'cpu')  # this process only compares: the devices are for the training
        data = build.source(config)
    words = (f'--config={args.config}', *(f'--config.{override}' for override in overrides))
    straight, killed = (disturbing.Training(words, folder / name, args.processes) for name in ('undisturbed', 'killed'))
    print(f'{args.steps} steps undisturbed, output in {straight.log(0)}', flush=True)
    disturbing.undisturbed(straight)
    print(f'the same, killed {args.kills} times, output in {killed.log(0)}', flush=True)
    kills = disturbing.disturbed(killed, args.steps, args.kills, signals, moments, args.seed)
    for kill in kills:
        whom = f' to process {kill.process}' if args.processes > 1 else ''
        ended = ', '.join(map(str, kill.statuses))
        print(f'  SIG{kill.signal}{whom} ({kill.moment}) when step {kill.step} was logged: exit status {ended}')
    if len(kills) < args.kills:
        print(f'the run ended after {len(kills)} of {args.kills} kills: give it more --steps')
        return 1
    return compared(
        *(
            {**_hashes(run, args.steps), **_position(run, args.steps, config, data)}
            for run in (straight.folder, killed.folder)
        )
    )


def _parser():
    parser = usage.Parser('checkpoint prove', __doc__.split(': ', 1)[1])
    parser.add_argument('--config', required=True, metavar='FILE', help='the config to prove it for')
    parser.add_argument('--workdir', metavar='DIR', help='an empty folder (default: runs/prove_NAME_OF_CONFIG)')
    parser.add_argument('--steps', type=int, default=20, metavar='N', help='of each of the two runs (default: 20)')
    parser.add_argument('--kills', type=int, default=1, metavar='N', help='how often one is killed (default: 1)')
    parser.add_argument('--signals', default='KILL', metavar='LIST', help='with commas, of KILL, TERM (default: KILL)')
    parser.add_argument(
        '--moments',
        default='step',
        metavar='LIST',
        help='of the kills after the first, with commas, of start, step, save (default: step)',
    )
    parser.add_argument('--processes', type=int, default=1, metavar='N', help='of this machine a run (default: 1)')
    parser.add_argument('--seed', type=int, default=0, metavar='N', help='of the moments and signals (default: 0)')
    parser.epilog = 'Every value of the config is a flag, as for train; train.steps is --steps, train.log_every is 1'
    return parser


def _chosen(flag, text, among) -> list[str]:
    names = [name.strip() for name in text.split(',') if name.strip()]
    if not names or set(names) - set(among):
        raise ValueError(f'{flag}={text}: with commas, of {", ".join(among)}')
    return names


def _empty(workdir) -> Path:
    folder = Path(workdir)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f'--workdir={workdir} is there already: name an empty folder, or remove it')
    return folder


def _hashes(run: Path, steps: int) -> dict[str, str]:
    """{part: SHA-256} of the last checkpoint's arrays and of the losses of all steps."""
    folder = run / checkpoint.FOLDER
    newest, said = store.newest_good(folder)
    if newest != steps:
        raise RuntimeError(f'{run} ended with a checkpoint of step {newest}, not {steps}: {"; ".join(said)}')
    saved = folder / str(steps)
    found = {name: digest.of_saved(saved / name) for name in manifest.read(saved)['items']}
    folder = run / snapshots.FOLDER
    for step in store.steps(folder):
        found[f'snapshot {step}'] = ' '.join(
            digest.of_saved(part) for part in sorted((folder / str(step)).glob('power_*'))
        )
    losses = measured.logged(run / 'metrics.jsonl', 'loss')
    return {**found, f'losses of {len(losses)} steps': hashlib.sha256(json.dumps(losses).encode()).hexdigest()}


def _position(run: Path, steps: int, config, data) -> dict[str, str]:
    """The data position of the last checkpoint, and the examples that a run would read from there."""
    position = manifest.read(run / checkpoint.FOLDER / str(steps))['meta']['position']
    options = config['train']
    step, batch = position['step'], options['batch']
    passed = position['examples'] - step * batch  # over examples that gave no finite loss
    stream = pipeline.batches(data, batch=batch, seed=options['seed'], start=step, offset=passed)
    ids = np.empty(0, np.int64)
    while len(ids) < NEXT_IDS:
        ids = np.append(ids, next(stream)['index'])
    stream.close()
    said = ', '.join(f'{name} {value}' for name, value in position.items())
    return {'data position': said, f'next {NEXT_IDS} ids': ' '.join(map(str, ids[:NEXT_IDS].tolist()))}


def compared(wanted: dict[str, str], found: dict[str, str]) -> int:
    """Prints the hashes of the undisturbed run and where the other one differs. Exit status 0 for none, or 1."""
    names = list({**wanted, **found})
    equal = {name: wanted.get(name) == found.get(name) for name in names}
    for name in names:
        same = 'equal    ' if equal[name] else 'DIFFERENT'
        second = '' if equal[name] else f'\n{"":>32} {found.get(name)}'
        print(f'{same} {name:<22} {wanted.get(name)}{second}')
    if not all(equal.values()):
        print('a run that is killed is not the undisturbed run: see above what differs')
        return 1
    print('the run that was killed is the undisturbed run, bit for bit')
    return 0
