"""Opening a run that was trained: its config with what one call chooses anew, and one set of its weights."""

import contextlib
import dataclasses
import os
import sys
from pathlib import Path

from diffusion import build, usage
from diffusion import config as configs
from diffusion.programs import workdir
from diffusion.runtime import checkpoint, ema, mesh, platform, state, store

RAW = 'raw'  # the parameters themselves, where others are averages of them
AVERAGES = 'averages'  # of a workdir: what `diffusion checkpoint ema` has made, by name and step
PART = 'average'


@dataclasses.dataclass(frozen=True)
class Taken:
    """Weights on every device, their name and step, and a mark that is the same in every copy of this checkpoint."""

    weights: dict
    name: str
    step: int
    mark: str


def add_flags(parser, what: str, several: bool = False) -> None:
    """The flags of every program that uses a run. what: what it does, as 'draw from'; several: weights and steps are
    lists."""
    parser.add_argument('--workdir', required=True, metavar='DIR', help=f'the run to {what}')
    parser.add_argument(
        '--weights',
        metavar='LIST' if several else 'NAME',
        default=ema.MAIN,
        help='ema, raw, or another average of the run: `diffusion checkpoint show` names them (default: ema)',
    )
    if several:
        parser.add_argument(
            '--step', metavar='LIST', help="which checkpoints, with commas, or 'all' (default: the newest)"
        )
    else:
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
    """The weights of that name, of a step (None: the newest good one), on every device of a mesh, and the step.

    name: 'raw', an average of the checkpoints, one that `diffusion checkpoint ema` has made, or the folder of such.
    """
    found = take(folder, run, grid, name, wanted)
    return found.weights, found.step


def take(folder: str, run: build.Experiment, grid, name: str, wanted: int | None = None) -> Taken:
    """`weights` with their mark; they were whole before they were read and still are after it."""
    target = state.abstract(grid, run.network.init, run.optimizer)
    place = checkpoint.abstract_weights(target, mesh.replicated(grid))
    with contextlib.ExitStack() as stack:
        with usage.checked():
            saved, part = _opened(folder, name)
            stack.enter_context(contextlib.closing(saved))
            step = _good(saved, part, wanted)
        loaded = saved.weights(step, part, place)
        with usage.checked():  # while it was read, a training may have removed it
            saved.check_good(step, (part,))
            return Taken(loaded, name, step, saved.identity(step, part))


def steps(folder: str, name: str, asked: str | None) -> list[int]:
    """The steps of --step: a list of those that are kept, 'all' of them, or the newest that is whole. Raises
    ValueError."""
    saved, part = _opened(folder, name)
    with contextlib.closing(saved):
        if asked is None:
            return [_good(saved, part, None)]
        if asked == 'all':
            return saved.steps()
        words = [word.strip() for word in asked.split(',')]
        if not all(word.isdecimal() for word in words) or len(set(map(int, words))) < len(words):
            raise ValueError(f"--step={asked}: steps with commas, each once, or 'all'")
        return sorted(kept(saved, int(word)) for word in words)


def mark(folder: str, name: str, step: int) -> str:
    """The mark of a checkpoint's weights (see `Taken`) without reading them. Raises ValueError."""
    saved, part = _opened(folder, name)
    with contextlib.closing(saved):
        return saved.identity(step, part)


def check_followed(folder: str, names: list[str]) -> None:
    """Refuses by ValueError weights that are in no checkpoint, and those that a training does not write."""
    for name in names:
        saved, part = _opened(folder, name)
        saved.close()
        if part == PART:
            raise ValueError(f'--weights={name} was made afterwards: --watch follows what the checkpoints hold')


def _opened(folder, name):
    """The checkpoints, or another store, that hold weights of that name, and the name of the part that is them."""
    apart = Path(name) if os.sep in name else Path(folder) / AVERAGES / name
    if store.steps(apart):
        return store.Store(apart, create=False), PART
    saved = checkpoint.open_existing(folder)
    if name == RAW:
        return saved, 'params'
    readable, _ = saved.newest_good(())  # of no part at all: the newest whose manifest can be read
    kept = [item for item in saved.items(readable) if item not in checkpoint.PARTS] if readable is not None else [name]
    if name not in kept:
        made = sorted(path.name for path in Path(folder, AVERAGES).glob('*'))
        saved.close()
        raise ValueError(f'--weights={name}: invalid choice: there are {", ".join((*kept, *made, RAW))}')
    return saved, name


def _good(saved, part, wanted):
    """The step wanted or the newest whose files of this part are what was saved. Raises ValueError."""
    if wanted is not None:
        saved.check_good(kept(saved, wanted), (part,))
        return wanted
    step, damaged = saved.newest_good((part,))
    for message in damaged:
        print(f'{message}; falls back to step {step}' if step is not None else message, file=sys.stderr)
    if step is None:
        raise ValueError('no checkpoint is whole: train longer, or name another --workdir')
    return step


def kept(saved: checkpoint.Checkpoints, wanted: int | None) -> int:
    """The step wanted, or the newest. Raises ValueError where it is not kept."""
    if wanted is None:
        return saved.latest()
    if wanted not in saved.steps():
        raise ValueError(f'no checkpoint of step {wanted}: there are {", ".join(map(str, saved.steps()))}')
    return wanted


def check_conditioned(run: build.Experiment, prompts, labels) -> None:
    """Refuses to use a model without a condition that it was never trained without."""
    asked = (('tokens', '--prompt', prompts), ('label', '--label', labels))
    missing = [flag for name, flag, given in asked if name in run.train.never_without(run.null) and not given]
    if missing:
        raise ValueError(f'this model was never trained without its condition: add {" and ".join(missing)}')
