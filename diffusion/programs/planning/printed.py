"""A plan as text."""

from diffusion.runtime import status

# key of `figures.program`'s memory, and what it is called
MEMORY = (
    ('arguments', 'arguments'),
    ('temporaries', 'activations and temporaries'),
    ('results', 'results beside the arguments'),
    ('program', 'the program itself'),
    ('beside', 'state of the training beside'),
    ('peak', 'memory at most'),
)
LIMITS = {'matrix': 'matrix units', 'memory': 'memory', 'links': 'links', 'network': 'network between slices or nodes'}


def lines(plan: dict) -> list[str]:
    """All that is printed of `figures.figures`."""
    chip, mesh = plan['chip'], ' x '.join(f'{size} {axis}' for axis, size in plan['mesh'].items() if size > 1)
    said = [
        f'{plan["topology"]}: {plan["chips"]} chips of {size(chip["memory"])}, {chip["bf16"] / 1e12:.0f} TFLOP/s in '
        f'bfloat16, {chip["bandwidth"] / 1e9:.0f} GB/s; mesh: {mesh or "one device"}; {plan["weights"]:,} weights',
        f'compiled by {plan["compiler"]}',
    ]
    if plan['estimated']:
        said.append('ESTIMATED: the compiler of these chips was not asked; bfloat16 counts as float32 in its bytes')
    if plan.get('untuned'):
        said.append('UNTUNED: products by cuBLAS and cuDNN, without the memory that those work in')
    if plan.get('quick'):
        said.append('QUICK: less is fused than in a training, whose bytes and time of the memory are fewer')
    state = ', '.join(f'{name} {size(value)}' for name, value in plan['state'].items() if name != 'other')
    said += ['', f'state of the training, a chip: {state}', '', *_table(plan['programs']), '']
    if 'training' in plan:
        said += _training(plan['training'])
    return [*said, _checkpoints(plan['checkpoints']), *verdict(plan)]


def size(value: float) -> str:
    """Bytes, as 3.06 GiB."""
    return _scaled(value, 1024, ('B', 'KiB', 'MiB', 'GiB', 'TiB'))


def quantity(value: float, unit: str) -> str:
    """Three digits that count, as 12.3 TFLOP or 4.56 ms."""
    if value and value < 1:
        return _scaled(value * 1e9, 1000, (f'n{unit}', f'µ{unit}', f'm{unit}', unit))
    return _scaled(value, 1000, (unit, f'k{unit}', f'M{unit}', f'G{unit}', f'T{unit}', f'P{unit}', f'E{unit}'))


def _scaled(value, base, units):
    for unit in units:
        if abs(value) < 0.9995 * base or unit == units[-1]:
            digits = 0 if abs(value) >= 99.95 or not value else 1 if abs(value) >= 9.995 else 2
            return f'{value:,.{digits}f} {unit}'
        value /= base


def _table(programs):
    head = ['a chip', *programs]
    rows = [[name, lambda one, key=key: one['memory'][key], size] for key, name in MEMORY]
    rows += [
        ['products', lambda one: one['flops'], lambda value: quantity(value, 'FLOP')],
        ['bytes to and from memory', lambda one: one['bytes'], lambda value: quantity(value, 'B')],
        ['bytes exchanged', lambda one: one['exchanged'], lambda value: quantity(value, 'B')],
        ['  of them between slices or nodes', lambda one: one['between_slices'], lambda value: quantity(value, 'B')],
    ]
    rows += [
        [f'time of the {name}', lambda one, key=key: one['seconds'][key], lambda value: quantity(value, 's')]
        for key, name in LIMITS.items()
    ]
    rows.append(['time at least', lambda one: one['seconds']['bound'], lambda value: quantity(value, 's')])
    cells = [head]
    for name, get, show in rows:
        values = [get(one) if _has(one, name) else None for one in programs.values()]
        if any(values) or name == 'time at least':
            cells.append([name, *('-' if value is None else show(value) for value in values)])
    cells.append(['compiled in', *(f'{one["compile_s"]:.0f} s' for one in programs.values())])
    cells.append(['fits', *('yes' if one['fits'] else 'NO' for one in programs.values())])
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    table = [_row(row, widths) for row in cells]
    if any('memory' in one and 'flops' not in one for one in programs.values()):
        table.append('(this version of JAX cannot read the programs of this compiler: nothing is counted in them)')
    if any(one.get('open_loops') for one in programs.values()):
        table.append('(a loop that ends when it is exact enough counts once: evaluate is one round of its solver)')
    return table


def _row(row, widths):
    return '   '.join(cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths)))


def _has(one, name):
    return 'memory' in one and ('flops' in one or name in dict(MEMORY).values())


def _training(found):
    again = '' if found['recomputed'] is None else f' ({found["recomputed"]:+.0%} as compiled)'
    yield (
        f'a step: {quantity(found["model_flops"], "FLOP")} of the model on all chips{again}, at least '
        f'{quantity(found["bound_s"], "s")} by the {LIMITS[found["limit"]]}:'
    )
    yield f'  MFU at most {found["mfu"]:.1%}, images/s at most {found["images_per_s"]:,.0f}'
    basis = f'at an MFU of {found["expected_mfu"]:.0%}' if found['expected_mfu'] else 'at least'
    cost = '' if found['cost'] is None else f', {found["cost"]:,.2f} USD at {found["price"]:g} a chip and hour'
    yield (
        f'the run: {found["steps"]:,} steps, {basis} {status.duration(found["hours"] * 3600)} (h:mm:ss), '
        f'{found["chip_hours"]:,.1f} hours of a chip{cost}'
    )


def _checkpoints(found):
    snaps = f', and {size(found["snapshots"])} of snapshots' if found['snapshots'] else ''
    return (
        f'checkpoints: {size(found["each"])} each, {found["kept"]} kept and one more while it is written{snaps}: '
        f'{size(found["total"])} of disk'
    )


def verdict(plan: dict) -> list[str]:
    """The last line or lines."""
    limit = plan['chip']['memory'] * plan['chip']['preset']
    bad = [
        f'{name} does not fit: '
        + (one.get('refused') or f'needs {size(one["memory"]["peak"])} of the {size(limit)} of a chip')
        for name, one in plan['programs'].items()
        if not one['fits']
    ]
    return bad or ['it fits']
