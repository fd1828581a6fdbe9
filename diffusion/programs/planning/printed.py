"""A plan as text."""

from diffusion.runtime import status

GIB = 2**30
# key of `figures.program`'s memory, and what it is called
MEMORY = (
    ('arguments', 'arguments'),
    ('temporaries', 'activations, temporaries'),
    ('results', 'results'),
    ('program', 'the program itself'),
    ('beside', 'state of the training beside'),
    ('peak', 'peak'),
)


def lines(plan: dict) -> list[str]:
    """All that is printed of `figures.figures`."""
    chip, mesh = plan['chip'], ' x '.join(f'{size} {axis}' for axis, size in plan['mesh'].items() if size > 1)
    said = [
        f'{plan["topology"]}: {plan["chips"]} chips of {chip["memory"] / GIB:.1f} GiB, {chip["bf16"] / 1e12:.0f} TFLOP/s '
        f'bfloat16, {chip["bandwidth"] / 1e9:.0f} GB/s; mesh {mesh or "of one"}; {plan["weights"]:,} weights',
        f'compiled by {plan["compiler"]}' + (': ESTIMATED, other programs run there' if plan['estimated'] else ''),
        '',
        'training state      GiB a chip   ' + '   '.join(f'{k} {gib(v)}' for k, v in plan['state'].items() if k != 'other'),
        '',
        *_table(plan['programs']),
        '',
    ]
    if 'training' in plan:
        said += _training(plan['training'], plan['programs'], plan['chips'])
    return [*said, _checkpoints(plan['checkpoints']), *verdict(plan)]


def gib(size: float) -> str:
    return f'{size / GIB:.2f}'


def _table(programs):
    head = ['a chip', *programs]
    rows = []
    for key, name in MEMORY:
        values = [one['memory'][key] if 'memory' in one else None for one in programs.values()]
        if any(values):
            rows.append([f'GiB {name}', *('-' if value is None else gib(value) for value in values)])
    for name, scale, get in (
        ('TFLOP', 1e12, lambda one: one['flops']),
        ('GB moved', 1e9, lambda one: one['bytes']),
        ('GB exchanged', 1e9, lambda one: one['exchanged']),
        ('ms matrix units', 1e-3, lambda one: one['seconds']['matrix']),
        ('ms memory', 1e-3, lambda one: one['seconds']['memory']),
        ('ms links', 1e-3, lambda one: one['seconds']['links']),
        ('ms between slices', 1e-3, lambda one: one['seconds']['network']),
        ('ms at least', 1e-3, lambda one: one['seconds']['bound']),
    ):
        values = [get(one) / scale if 'memory' in one else None for one in programs.values()]
        if any(values):
            rows.append([name, *('-' if value is None else number(value) for value in values)])
    rows.append(['s to compile', *(f'{one["compile_s"]:.0f}' for one in programs.values())])
    rows.append(['fits', *('yes' if one['fits'] else 'NO' for one in programs.values())])
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return [
        '   '.join(cell.ljust(width) if not i else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths)))
        for row in (head, *rows)
    ]


def number(value: float) -> str:
    """Three digits that count."""
    return f'{value:,.0f}' if abs(value) >= 100 else f'{value:.3g}'


def _training(found, programs, chips):
    limits = {'matrix': 'matrix units', 'memory': 'memory', 'links': 'links', 'network': 'network between slices'}
    names = [name for name in programs if name.startswith('train') and 'seconds' in programs[name]]
    limit = programs[max(names, key=lambda name: programs[name]['seconds']['bound'])]['seconds']['limit']
    yield (
        f'a step: {number(found["model_flops"] / 1e12)} TFLOP of the model ({found["recomputed"]:+.0%} as compiled), at '
        f'least {number(found["step_s"] * 1e3) if not found["expected_mfu"] else number(1e3 * _least(found))} ms by the '
        f'{limits[limit]}: MFU at most {found["mfu"]:.0%}, {number(found["images_per_s"])} images/s at most'
    )
    basis = f'at an MFU of {found["expected_mfu"]:.0%}' if found['expected_mfu'] else 'at least'
    cost = '' if found['cost'] is None else f', {found["cost"]:,.2f} USD at {found["price"]:g} a chip and hour'
    yield (
        f'the run: {found["steps"]:,} steps, {basis} {status.duration(found["hours"] * 3600)} h:mm:ss, '
        f'{found["chip_hours"]:,.1f} hours of a chip{cost}'
    )


def _least(found):
    return found['step_s'] * found['expected_mfu'] / found['mfu'] if found['mfu'] > found['expected_mfu'] else found['step_s']


def _checkpoints(found):
    snaps = f', {found["snapshots"] / GIB:.2f} GiB of them snapshots' if found['snapshots'] else ''
    return (
        f'checkpoints: {gib(found["each"])} GiB each, {found["kept"]} kept and one being written: '
        f'{gib(found["total"])} GiB{snaps}'
    )


def verdict(plan: dict) -> list[str]:
    """The last line or lines."""
    bad = [
        f'{name} does not fit: '
        + (one.get('refused') or f'needs {gib(one["memory"]["peak"])} GiB of {gib(limit(plan))} GiB')
        for name, one in plan['programs'].items()
        if not one['fits']
    ]
    return [*bad, *(['it does not fit; --fit looks for a setting that does'] if bad else ['it fits'])]


def limit(plan: dict) -> float:
    return plan['chip']['memory'] * plan['chip']['preset']
