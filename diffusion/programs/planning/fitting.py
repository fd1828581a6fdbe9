"""The search for the fastest setting that fits: how parameters are split, what is recomputed, pieces of a batch."""

import math

from diffusion.programs.planning import compiling, figures

MOST = 8  # compilations
# Of a chip's memory the share that a setting is expected to fill before it is tried: the rest is for what is guessed.
ROOM = 0.92
REMAT = ('dots_with_no_batch_dims_saveable', 'full')  # from the one that recomputes least


def search(config, facts, where, make, say) -> list[str] | None:
    """The changes of the config, 'section.key=value', None where nothing that was tried fits.

    make: changes -> `figures.Asked`, which raises ValueError where that cannot be; say: told of each that is tried.
    """
    tried: dict[tuple, tuple] = {}

    def attempt(split, remat, pieces):
        key = (split, remat, pieces)
        if key in tried or len(tried) >= MOST:
            return tried.get(key)
        changes = _changes(config, *key)
        try:
            asked = make(changes)
        except ValueError:
            return None
        built = compiling.training(asked.run, asked.grid, where)
        worst = max(built, key=lambda one: compiling.needed(one) or math.inf)
        held = sum(figures.parts(asked).values()) / where.chip.devices
        fits = all(one.cost for one in built) and worst.memory['peak'] * where.chip.devices <= asked.limit
        bounds = [figures.bound(asked, one) for one in built if one.cost]
        seconds = max(((b.seconds, b.matrix + b.memory + b.links + b.network) for b in bounds), default=(math.inf, 0))
        need = compiling.needed(worst)
        tried[key] = fits, seconds, need, held
        told = ' '.join(changes) or 'as it is'
        size = 'size unknown' if need is None else f'{need * where.chip.devices / 2**30:.2f} GiB a chip'
        pace = f', at least {seconds[0] * 1e3:.1f} ms a step' if fits else ', does not fit'
        say(f'  {len(tried)}. {told}: {size}{pace}')
        return tried[key]

    own = config['net'].get('remat', 'none'), config['train']['accumulate']
    for split in _splits(config, facts, where, make):
        if any(one[0] for one in tried.values()) and len(tried) > MOST // 2:
            break
        first = attempt(split, 'none', 1)
        if first is None or first[0]:
            continue
        for remat in REMAT if 'remat' in config['net'] else ():
            found = attempt(split, remat, 1)
            if found and found[0]:
                break
        for remat in ('none', 'full') if 'remat' in config['net'] else ('none',):
            known = tried.get((split, remat, 1))
            pieces = _pieces(config, known, where)
            if pieces:
                attempt(split, remat, pieces)
    fitting = {key: one for key, one in tried.items() if one[0]}
    if not fitting:
        return None
    best = min(fitting, key=lambda key: (fitting[key][1], key[1] != own[0], key[2] != own[1]))
    return _changes(config, *best)


def _changes(config, split, remat, pieces):
    fsdp, tensor = split
    wanted = {'runtime.fsdp': fsdp, 'runtime.tensor': tensor, 'net.remat': remat, 'train.accumulate': pieces}
    found = []
    for key, value in wanted.items():
        section, name = key.split('.')
        if name in config[section] and config[section][name] != value:
            found.append(f'{key}={value}')
    return found


def _splits(config, facts, where, make) -> list[tuple[int, int]]:
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
    chosen += [(size, 1) for size in (enough[:1] + enough[-1:])]
    chosen.append(own)
    # Fewer examples than devices leave the rest to the layers themselves.
    if config['train']['batch'] < devices and devices > 1:
        tensor = min(t for t in sizes if config['train']['batch'] % (devices // t) == 0)
        chosen.insert(0, (devices // tensor, tensor))
    return list(dict.fromkeys(chosen))


def _pieces(config, known, where) -> int | None:
    """The fewest pieces of a batch with which a setting that was tried should fit."""
    if known is None or known[0] or known[2] is None:
        return None
    _, _, need, held = known
    limit = where.chip.memory * where.chip.preset / where.chip.devices * ROOM
    if held >= limit:
        return None
    pieces = max(2, math.ceil((need - held) / (limit - held)))
    return next((n for n in range(pieces, 8 * pieces) if config['train']['batch'] % n == 0), None)
