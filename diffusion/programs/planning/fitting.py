"""The search for the fastest setting that fits: how parameters are split, what is recomputed, pieces of a batch."""

import dataclasses
import math

from diffusion.programs.planning import compiling, figures, printed

MOST = 8  # compilations
# Of a chip's memory the share that a setting is expected to fill before it is tried: the rest is for what is guessed.
ROOM = 0.92
REMAT = ('dots_saveable', 'dots_with_no_batch_dims_saveable', 'full')  # from the one that recomputes least


@dataclasses.dataclass(frozen=True)
class _Tried:
    """fits; pace: (seconds at least, seconds that its parts take together), by which the fastest is chosen; need: bytes
    a device, None where the compiler names none; held: of it by the state of the training."""

    fits: bool
    pace: tuple[float, float]
    need: float | None
    held: float


class _Search:
    """What was compiled so far, by ((fsdp, tensor), remat, pieces)."""

    def __init__(self, config, where, make, say):
        self._config, self._where, self._make, self._say = config, where, make, say
        self.tried: dict[tuple, _Tried] = {}

    def attempt(self, split, remat, pieces) -> _Tried | None:
        """None where it cannot be, or enough was compiled."""
        key = split, remat, pieces
        if key in self.tried or len(self.tried) >= MOST:
            return self.tried.get(key)
        changes = _changes(self._config, *key)
        try:
            asked = self._make(changes)
        except ValueError:
            return None
        built = compiling.training(asked.run, asked.grid, self._where)
        share = self._where.chip.devices
        need = max((compiling.needed(one) or math.inf for one in built), default=math.inf)
        fits = not any(one.refused for one in built) and need * share <= asked.limit
        bounds = [figures.bound(asked, one) for one in built] if fits else []
        pace = max(((b.seconds, b.matrix + b.memory + b.links + b.network) for b in bounds), default=(math.inf, 0.0))
        held = sum(figures.parts(asked).values()) / share
        found = self.tried[key] = _Tried(fits, pace, None if math.isinf(need) else need, held)
        size = 'of unknown size' if found.need is None else f'{printed.size(need * share)} a chip'
        speed = f', at least {printed.quantity(pace[0], "s")} a step' if fits else ', does not fit'
        self._say(f'  {len(self.tried)}. {" ".join(changes) or "as it is"}: {size}{speed}')
        return found

    def fastest(self, own) -> tuple | None:
        """The key of the fastest that fits; of equals one with what is the config's own."""
        fitting = {key: one for key, one in self.tried.items() if one.fits}
        return min(fitting, key=lambda key: (fitting[key].pace, key[1:] != own), default=None)

    def pieces(self, split, remat) -> int | None:
        """The fewest pieces of a batch with which this should fit, from those that were tried: what is not of a piece
        stays, the rest is shared. None where that is not to be had."""
        alike = {key[2]: one for key, one in self.tried.items() if key[:2] == (split, remat)}
        known = {n: one.need for n, one in alike.items() if one.need is not None}
        if not known or any(one.fits for one in alike.values()):
            return None
        chip, most = self._where.chip, max(known)
        limit = chip.memory * chip.preset / chip.devices * ROOM
        fixed = next(iter(alike.values())).held
        if len(known) > 1:
            least = min(known)
            fixed = max(fixed, (known[most] * most - known[least] * least) / (most - least))
        if fixed >= limit:
            return None
        wanted = max(most + 1, math.ceil(most * (known[most] - fixed) / (limit - fixed)))
        shards = self._where.devices // split[1]
        batch = self._config['train']['batch']
        return next((n for n in range(wanted, batch // shards + 1) if batch % (n * shards) == 0), None)


def search(config, where, make, say) -> list[str] | None:
    """The changes of the config, 'section.key=value', None where nothing that was tried fits.

    make: changes -> `figures.Asked`, which raises ValueError where that cannot be; say: told of each that is tried.
    """
    found = _Search(config, where, make, say)
    runtime, own = config['runtime'], (config['net'].get('remat', 'none'), config['train']['accumulate'])
    found.attempt((runtime['fsdp'], runtime['tensor']), *own)
    again, worst, settled = REMAT if 'remat' in config['net'] else (), 1, False
    for split in _splits(config, where, make):
        if settled:
            found.attempt(split, *found.fastest(own)[1:])
            continue
        if worst > 1:  # another split did not fit at its thriftiest: this one need not be tried at less
            found.attempt(split, again[-1] if again else 'none', worst)
        else:
            _every_way(found, split, again)
        if pieces := found.pieces(split, again[-1] if again else 'none'):
            found.attempt(split, again[-1] if again else 'none', pieces)
        here = {key: one for key, one in found.tried.items() if key[0] == split}
        worst = max([worst, *(key[2] for key in here)])
        settled = any(one.fits for one in here.values())
    best = found.fastest(own)
    return None if best is None else _changes(config, *best)


def _every_way(found, split, again) -> None:
    """Computing again and smaller pieces each make room; which costs less is seen when both are compiled."""
    first = found.attempt(split, 'none', 1)
    if first is None or first.fits:
        return
    for remat in again:
        tried = found.attempt(split, remat, 1)
        if tried and tried.fits:
            break
    for remat in ('none', *again[-1:]):
        if pieces := found.pieces(split, remat):
            found.attempt(split, remat, pieces)


def _changes(config, split, remat, pieces):
    fsdp, tensor = split
    wanted = {'runtime.fsdp': fsdp, 'runtime.tensor': tensor, 'net.remat': remat, 'train.accumulate': pieces}
    found = []
    for key, value in wanted.items():
        section, name = key.split('.')
        if name in config[section] and config[section][name] != value:
            found.append(f'{key}={value}')
    return found


def _splits(config, where, make) -> list[tuple[int, int]]:
    """(fsdp, tensor) in the order in which they are worth a try: parameters whole where their state is small beside the
    memory, split over as many devices as it takes, over all."""
    devices = where.count * where.chip.devices
    sizes = [n for n in range(1, devices + 1) if devices % n == 0 and n & (n - 1) == 0]
    own = config['runtime']['fsdp'], config['runtime']['tensor']
    states = {}
    for size in sizes:
        try:
            asked = make(_changes(config, (size, 1), config['net'].get('remat', 'none'), config['train']['accumulate']))
        except ValueError:
            continue
        states[size] = sum(figures.parts(asked).values()) / asked.limit
    light = [size for size in states if states[size] < 0.5]
    enough = [size for size in states if states[size] < 0.9]
    chosen = [(light[0], 1)] if light else []
    chosen += [(size, 1) for size in (enough[-1:] + enough[:1])]
    chosen.append(own)
    # Fewer examples than devices leave the rest to the layers themselves.
    if config['train']['batch'] < devices and devices > 1:
        tensor = min(t for t in sizes if config['train']['batch'] % (devices // t) == 0)
        chosen.insert(0, (devices // tensor, tensor))
    return list(dict.fromkeys(chosen))
