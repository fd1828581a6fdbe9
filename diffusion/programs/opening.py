"""Opening a run that was trained: its config with what one call chooses anew, and one set of its weights."""

import contextlib
import os

from diffusion import build, usage
from diffusion import config as configs
from diffusion.programs import workdir
from diffusion.runtime import checkpoint, mesh, platform, state

# As the user names them, and as a checkpoint does.
WEIGHTS = {'ema': 'ema', 'raw': 'params'}


def add_flags(parser, what: str) -> None:
    """The flags of every program that uses a run. what: what it does, as 'draw from'."""
    parser.add_argument('--workdir', required=True, metavar='DIR', help=f'the run to {what}')
    parser.add_argument('--weights', choices=tuple(WEIGHTS), default='ema', help='(default: ema)')
    parser.add_argument('--step', type=int, metavar='N', help='which checkpoint (default: the newest)')


def read(folder: str) -> tuple[configs.Config, build.Facts]:
    """The config and facts of a run that must be there. Raises ValueError."""
    if not os.path.isdir(folder):
        raise ValueError(f'there is no workdir {folder!r}: diffusion train --workdir={folder} makes one')
    stored = workdir.read(folder)
    if stored is None:
        raise ValueError(f'{folder!r} is not a run: it holds no {workdir.FILE}')
    return stored


def choose(config: configs.Config, overrides: list[str], free: tuple[str, ...], doing: str) -> configs.Config:
    """The run's config with what a call chooses. Raises ValueError for what training has fixed.

    free: the sections, or 'section.key', that may be chosen; doing: what the program does, as 'drawing'.
    """
    config = {**config, 'runtime': {}}  # where a run was trained says nothing of where it is used
    for override in overrides:
        key = override.split('=')[0]
        section = key.split('.')[0]
        if section in build.SCHEMA and section not in free and key not in free:
            raise ValueError(
                f'config.{key} is fixed by the training of this run; when {doing}, choose in: {", ".join(free)}'
            )
    return build.override(config, overrides)


def devices(folder: str, config: configs.Config, batch: int):
    """The mesh of the devices to use, with the compilation cache of the run. batch: images a call."""
    runtime = config['runtime']
    found = platform.configure(runtime['platform'], runtime['devices'], batch)
    platform.cache(os.path.join(folder, os.pardir, '.jax_cache'))
    return mesh.make(found)


def weights(folder: str, run: build.Experiment, grid, name: str, wanted: int | None = None):
    """The weights, 'ema' or 'raw', of a step (None: the newest) on every device of a mesh, and the step."""
    with usage.checked():
        saved = checkpoint.open_existing(folder)
    with contextlib.closing(saved):
        with usage.checked():
            step = kept(saved, wanted)
        target = state.abstract(grid, run.network.init, run.optimizer)
        place = checkpoint.abstract_weights(target, mesh.replicated(grid))
        return saved.weights(step, WEIGHTS[name], place), step


def kept(saved: checkpoint.Checkpoints, wanted: int | None) -> int:
    """The step wanted, or the newest. Raises ValueError where it is not kept."""
    if wanted is None:
        return saved.latest()
    if wanted not in saved.steps():
        raise ValueError(f'no checkpoint of step {wanted}: there are {", ".join(map(str, saved.steps()))}')
    return wanted


def check_conditioned(run: build.Experiment, prompts, labels) -> None:
    """Refuses to use a model without a condition that it was never trained without."""
    missing = [
        flag
        for name, flag, given in (('tokens', '--prompt', prompts), ('label', '--label', labels))
        if name in run.null and not given
    ]
    if missing and not run.train.cond_dropout:
        raise ValueError(f'this model was never trained without its condition: add {" and ".join(missing)}')
