"""What a plan says, as JSON values: bytes and seconds, of one chip where nothing else is said."""

import dataclasses
import math

import jax
import numpy as np

from diffusion import build
from diffusion.programs import efficiency, workdir
from diffusion.programs.planning import compiling
from diffusion.runtime import chips, roofline, topology

DAY = 86400


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a plan is of. mfu: share of the peak that the user expects, None: as the bound says; price: USD a chip and
    hour, None where it is not known; quick: whether the compiler was told to make less effort."""

    run: build.Experiment
    grid: jax.sharding.Mesh
    where: topology.Topology
    price: float | None = None
    mfu: float | None = None
    quick: bool = False

    @property
    def dtype(self) -> str:
        return self.run.config['net'].get('dtype', 'float32')

    @property
    def limit(self) -> float:
        """Bytes of a chip's memory that programs may fill."""
        return self.where.chip.memory * self.where.chip.preset


def figures(asked: Asked, trained: list[compiling.Built], others: list[compiling.Built], told: str) -> dict:
    """The whole plan. told: how the user asked."""
    state = parts(asked)
    programs = {built.name: program(asked, built, state) for built in (*trained, *others)}
    slowest = max((b for b in trained if not b.refused), key=lambda b: bound(asked, b).seconds, default=None)
    found = {
        'asked': told,
        'topology': str(asked.where),
        'chips': asked.where.chips,
        'chip': {**dataclasses.asdict(asked.where.chip), 'name': asked.where.kind},
        'compiler': asked.where.compiler or 'CPU, simulated devices',
        'estimated': not asked.where.compiler,
        'untuned': bool(asked.where.options),
        'quick': asked.quick,
        'mesh': dict(asked.grid.shape),
        'weights': sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract(asked).params)),
        'state': state,
        'programs': programs,
        'fits': all(one['fits'] for one in programs.values()),
        'checkpoints': checkpoints(asked),
        'versions': workdir.versions(),
        'commit': workdir.commit(),
    }
    return found | ({'training': training(asked, slowest)} if slowest else {})


def abstract(asked: Asked):
    return compiling.abstract(asked.run, asked.grid)


def parts(asked: Asked) -> dict[str, int]:
    """Bytes a chip that the training state keeps, by part."""
    target = abstract(asked)
    share = asked.where.chip.devices

    def size(tree):
        return share * sum(
            math.prod(leaf.sharding.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize
            for leaf in jax.tree.leaves(tree)
        )

    return {
        'parameters': size(target.params),
        'optimizer': size(target.opt_state),
        'averages': size(target.ema),
        'other': size((target.step, target.memory)),
    }


def program(asked: Asked, built: compiling.Built, state: dict[str, int]) -> dict:
    """Of one program. While a training draws its sheets, its state stays where it is."""
    share = asked.where.chip.devices
    if built.refused:
        return {'fits': False, 'refused': built.refused, 'compile_s': round(built.seconds, 1)}
    memory = {name: share * size for name, size in built.memory.items()}
    beside = sum(state.values()) - state['parameters'] if built.name == 'sample' else 0
    peak = memory['peak'] + beside
    found = {
        'fits': peak <= asked.limit,
        'compile_s': round(built.seconds, 1),
        'memory': {**memory, 'beside': beside, 'peak': peak},
    }
    return found | _counted(asked, built) if built.cost else found


def _counted(asked, built):
    share, cost, found = asked.where.chip.devices, built.cost, bound(asked, built)
    kinds = {}
    for one in cost.collectives:
        entry = kinds.setdefault(one.kind, {'bytes': 0, 'sent': 0, 'times': 0})
        entry['bytes'] += share * one.bytes * one.times
        entry['sent'] += round(share * sum(one.sent(_neighbours(asked))))
        entry['times'] += one.times
    return {
        'flops': share * cost.flops,
        'bytes': share * cost.bytes,
        'collectives': kinds,
        'largest': _largest(cost),
        'exchanged': share * cost.exchanged(),
        'between_slices': share * cost.exchanged(crossing=_neighbours(asked)) if asked.where.slices > 1 else 0,
        'seconds': dataclasses.asdict(found) | {'bound': found.seconds, 'limit': found.limit},
        'open_loops': cost.open,
    }


def _largest(cost) -> list[dict]:
    """What a device exchanges, by kind and by where in the source it comes from, the most first."""
    found: dict[tuple, dict] = {}
    for one in cost.collectives:
        entry = found.setdefault((one.kind, one.name), {'kind': one.kind, 'from': one.name, 'bytes': 0, 'times': 0})
        entry['bytes'] += one.bytes * one.times
        entry['times'] += one.times
    return sorted(found.values(), key=lambda entry: -entry['bytes'])[:20]


def bound(asked: Asked, built: compiling.Built) -> roofline.Bound:
    """By the products of the model alone where nothing else is known of a training step."""
    if built.cost is None:
        peak = chips.peak(asked.where.chip, asked.dtype) * asked.where.devices
        return roofline.Bound(efficiency.model_flops(asked.run) / peak, 0.0, 0.0, 0.0)
    return roofline.bound(built.cost, asked.where.chip, asked.dtype, _neighbours(asked))


def _neighbours(asked):
    return asked.where.count * asked.where.chip.devices


def training(asked: Asked, built: compiling.Built) -> dict:
    """What the steps, and with them the run, take at least."""
    options, where = asked.run.train, asked.where
    wanted = efficiency.model_flops(asked.run)
    peak = chips.peak(where.chip, asked.dtype) * where.devices
    least = bound(asked, built).seconds
    step = max(least, wanted / peak / asked.mfu) if asked.mfu else least
    hours = options.steps * step / 3600
    return {
        'model_flops': wanted,
        'recomputed': built.cost.flops * where.devices / wanted - 1 if built.cost else None,
        'limit': bound(asked, built).limit,
        'bound_s': least,
        'mfu': wanted / peak / least,
        'images_per_s': options.batch / least,
        'expected_mfu': asked.mfu,
        'step_s': step,
        'steps': options.steps,
        'hours': hours,
        'chip_hours': hours * where.chips,
        'price': asked.price,
        'cost': None if asked.price is None else hours * where.chips * asked.price,
    }


def checkpoints(asked: Asked) -> dict:
    """Bytes on disk."""
    target, options = abstract(asked), asked.run.train

    def size(tree):
        return sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))

    each = size((target.params, target.opt_state, target.ema))
    saves = -(-options.steps // options.save_every)
    spared = options.steps // options.keep_every if options.keep_every else 0
    number = min(options.keep + spared + options.keep_best, saves)
    snaps = asked.run.ema.snapshot_every
    averages = [target.ema[name] for name in target.ema if name.startswith('power_')]
    snapshots = options.steps // snaps * size(averages) if snaps else 0
    # The next one is written before the oldest is removed.
    return {'each': each, 'kept': number, 'snapshots': snapshots, 'total': each * (number + 1) + snapshots}
