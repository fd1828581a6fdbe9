"""Opening a run that was trained: its config with what one call chooses anew, and one set of its weights."""

import contextlib
import dataclasses
import os
import sys
from pathlib import Path

from diffusion import build, usage
from diffusion import config as configs
from diffusion.programs import workdir
from diffusion.runtime import checkpoint, compilation, ema, manifest, mesh, platform, state, store

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
    compilation.cache(os.path.join(folder, os.pardir, '.jax_cache'))
    return mesh.make(found)


def start(folder: str, config: configs.Config, overrides: list[str], most: int):
    """`devices` for a call of at most so many images, before anything else of the call touches one: JAX could not be
    told afterwards how many devices to make of a CPU's cores. config: the run's own. Raises ValueError."""
    early = [one for one in overrides if one.startswith(('runtime.', 'sample.batch='))]
    chosen = choose(config, early, ('runtime', 'sample'), 'drawing')
    return devices(folder, chosen, min(chosen['sample']['batch'], most))


def weights(folder: str, run: build.Experiment, grid, name: str, wanted: int | None = None):
    """The weights of that name, of a step (None: the newest good one), on every device of a mesh, and the step.

    name: 'raw', an average of the checkpoints, one that `diffusion checkpoint ema` has made, or the folder of such.
    """
    found = take(folder, run, grid, name, wanted)
    return found.weights, found.step


def take(folder: str, run: build.Experiment, grid, name: str, wanted: int | None = None) -> Taken:
    """`weights` with their mark; they were whole before they were read and still are after it."""
    target = state.abstract(grid, run.network.init, run.optimizer)
    abstract = checkpoint.abstract_weights(target, mesh.replicated(grid))
    with usage.checked():
        place, part = located(folder, name)
        step = _good(place, part, wanted)
        found = manifest.identity(place / str(step), part)
    with contextlib.closing(store.Store(place, create=False)) as saved:
        loaded = saved.weights(step, part, abstract)
    with usage.checked():  # while it was read, a training may have removed it
        store.check_good(place, step, (part,))
    return Taken(loaded, name, step, found)


def steps(folder: str, name: str, asked: str | None) -> list[int]:
    """The steps of --step: a list of those that are kept, 'all' of them, or the newest that is whole. Needs no device.
    Raises ValueError."""
    place, part = located(folder, name)
    if asked is None:
        return [_good(place, part, None)]
    if asked == 'all':
        return store.steps(place)
    words = [word.strip() for word in asked.split(',')]
    if not all(word.isdecimal() for word in words) or len(set(map(int, words))) < len(words):
        raise ValueError(f"--step={asked}: steps with commas, each once, or 'all'")
    return sorted(kept(store.steps(place), int(word)) for word in words)


def mark(folder: str, name: str, step: int) -> str:
    """The mark of a checkpoint's weights (see `Taken`) without reading them. Raises ValueError."""
    place, part = located(folder, name)
    return manifest.identity(place / str(step), part)


def check_followed(folder: str, names: list[str]) -> None:
    """Refuses by ValueError weights that are in no checkpoint, and those that a training does not write."""
    for name in names:
        if located(folder, name)[1] == PART:
            raise ValueError(f'--weights={name} was made afterwards: --watch follows what the checkpoints hold')


def located(folder: str, name: str) -> tuple[Path, str]:
    """The folder of steps that hold weights of that name, and the name of the part that is them. Needs no device.
    Raises ValueError."""
    apart = Path(name) if os.sep in name else Path(folder) / AVERAGES / name
    if store.steps(apart):
        return apart, PART
    place = Path(folder) / checkpoint.FOLDER
    if not store.steps(place):
        raise ValueError(f'{folder!r} holds no complete checkpoint: train longer, or name another --workdir')
    if name == RAW:
        return place, 'params'
    readable, _ = store.newest_good(place, ())  # of no part at all: the newest whose manifest can be read
    items = [name] if readable is None else manifest.read(place / str(readable))['items']
    averages = [item for item in items if item not in checkpoint.PARTS]
    if name not in averages:
        made = sorted(path.name for path in Path(folder, AVERAGES).glob('*'))
        raise ValueError(f'--weights={name}: invalid choice: there are {", ".join((*averages, *made, RAW))}')
    return place, name


def _good(place, part, wanted):
    """The step wanted or the newest whose files of this part are what was saved. Raises ValueError."""
    if wanted is not None:
        store.check_good(place, kept(store.steps(place), wanted), (part,))
        return wanted
    step, damaged = store.newest_good(place, (part,))
    for message in damaged:
        print(f'{message}; falls back to step {step}' if step is not None else message, file=sys.stderr)
    if step is None:
        raise ValueError('no checkpoint is whole: train longer, or name another --workdir')
    return step


def kept(there: list[int], wanted: int | None) -> int:
    """The step wanted of those that are kept, or the newest. Raises ValueError where it is not kept."""
    if wanted is None:
        return there[-1]
    if wanted not in there:
        raise ValueError(f'no checkpoint of step {wanted}: there are {", ".join(map(str, there))}')
    return wanted


def check_conditioned(run: build.Experiment, prompts, labels, pictured: bool = False) -> None:
    """Refuses to use a model without a condition that it was never trained without. pictured: whether it is told a
    picture (`core.conditioning`)."""
    if run.conditioning and not run.conditioning.dropped and not pictured:
        kinds = ', '.join(run.conditioning.serves)
        raise ValueError(
            f'this model was never trained without its condition ({run.config["conditioning"]["name"]}): use it by '
            f'diffusion edit {kinds} --method=conditioned, or diffusion sample'
        )
    asked = (('tokens', '--prompt', prompts), ('label', '--label', labels))
    missing = [flag for name, flag, given in asked if name in run.train.never_without(run.null) and not given]
    if missing:
        raise ValueError(f'this model was never trained without its condition: add {" and ".join(missing)}')
