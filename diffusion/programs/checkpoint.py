"""`diffusion checkpoint`: look at and check checkpoints. Each action has flags of its own: checkpoint ACTION --help."""

import json
from pathlib import Path

from diffusion import usage
from diffusion.programs import averages, prove
from diffusion.runtime import checkpoint, manifest, store


def main(argv: list[str]) -> int:
    """Runs one action. Exit status 0, 1 where the answer is no, or 2."""
    if argv and argv[0] in ACTIONS:
        return ACTIONS[argv[0]](argv[1:])
    if argv and not argv[0].startswith('-'):
        raise usage.UsageError(usage.unknown('action', argv[0], ACTIONS))
    parser = usage.Parser('checkpoint', __doc__.split(': ', 1)[1])
    parser.add_argument('action', help=f'one of {", ".join(ACTIONS)}')
    parser.parse(argv)
    raise usage.UsageError(f'the action comes first: diffusion checkpoint {"|".join(ACTIONS)} ...')


def show(argv: list[str]) -> int:
    """What the checkpoints of a run hold, read from their manifests: no weights are loaded, no device is needed."""
    args = _parsed('show', show.__doc__, argv)
    with usage.checked():
        folder, steps = _steps(args)
        for step in steps:
            try:
                _show(step, manifest.read(folder / str(step)))
            except manifest.Damaged as error:
                print(f'step {step}: {error}')
    return 0


def verify(argv: list[str]) -> int:
    """Reads every file of the checkpoints and compares it with the SHA-256 that was written when it was saved."""
    args = _parsed('verify', verify.__doc__, argv)
    with usage.checked():
        folder, steps = _steps(args)
    good = []
    for step in steps:
        wrong = manifest.problems(folder / str(step))
        print('\n'.join(f'step {step}: {problem}' for problem in wrong) or f'step {step}: whole', flush=True)
        good += [] if wrong else [step]
    if not good:
        print('none is whole: nothing can go on from here')
    elif good[-1] != steps[-1]:
        print(f'the newest good one is step {good[-1]}: train, sample, evaluate and edit fall back to it')
    return 0 if good == steps else 1


ACTIONS = {'show': show, 'verify': verify, 'prove': prove.main, 'ema': averages.main}


def _parsed(action, description, argv):
    parser = usage.Parser(f'checkpoint {action}', description)
    parser.add_argument('--workdir', required=True, metavar='DIR', help='the run')
    parser.add_argument('--step', type=int, metavar='N', help='this checkpoint alone (default: all)')
    args, overrides = parser.parse(argv)
    if overrides:
        raise usage.UsageError('a checkpoint has its config: leave out --config.*')
    return args


def _steps(args) -> tuple[Path, list[int]]:
    """The folder of the checkpoints and the steps asked for, whole or not. Raises ValueError where there are none."""
    folder = Path(args.workdir) / checkpoint.FOLDER
    steps = store.numbered(folder)
    if not steps:
        raise ValueError(f'{args.workdir!r} holds no checkpoint: train longer, or name another --workdir')
    if args.step is not None and args.step not in steps:
        raise ValueError(f'no checkpoint of step {args.step}: there are {", ".join(map(str, steps))}')
    return folder, steps if args.step is None else [args.step]


def _show(step, content):
    meta = content['meta']
    position = ', '.join(f'{name} {value:,}' for name, value in meta['position'].items())
    versions = ' '.join(f'{name} {meta["versions"][name]}' for name in ('jax', 'flax', 'optax', 'orbax-checkpoint'))
    print(f'step {step}: {manifest.size(content):,} bytes in {len(content["files"])} files')
    for name, part in content['items'].items():
        print(f'  {name:<16} {part["arrays"]:>5} arrays {part["numbers"]:>15,} numbers {part["bytes"]:>17,} bytes')
    print(f'  data position    {position}')
    print(f'  config           {json.dumps(meta["config"]["net"])}')
    print(f'  made by          {versions}, commit {meta["commit"]}')
