"""The figures of the speed benchmark as Markdown."""

import measuring

TITLES = {
    'step': 'Training step',
    'sampling': 'Sampling',
    'data': 'Data',
    'startup': 'Start-up',
    'saving': 'Checkpoints',
    'likelihood': 'Likelihood',
}
HEAD = """# Speed

Measured by `{command}` on {date}; the file is written by that script and not by hand.

{machine}.

{ceilings}

Every measurement has a process of its own, and the sides take turns. The networks of a comparison have the same
weights and, with them, the same outputs. Rates do not hold compilation. The median of several measurements stands
beside the least and the most of them. What was tried and what came of it is in
[benchmarks/NOTES.md](../benchmarks/NOTES.md).
"""


def quiet(report) -> bool:
    """Whether other programs left the machine alone."""
    others = [found['others'] for found in (report['ceilings'], *report['parts'].values())]
    return max(others) <= measuring.QUIET


def ceilings(found) -> str:
    """One line."""
    sides = ', '.join(f'{side} {rate / 1e9:.0f}' for side, rate in found['sides'].items())
    return (
        f'Ceilings of this machine, measured: {found["products"] / 1e9:.0f} GFLOP/s of float32 matrix products '
        f'({sides}), {found["copy"] / 1e9:.1f} GB/s of a copy, read and written'
    )


def part(name, found) -> list[str]:
    """The lines of one part."""
    lines = ['', f'## {TITLES[name]}', '', '| | median | least | most | | |', '|---|---|---|---|---|---|']
    lines += [_row(row) for row in found['rows']]
    lines += ['', *(f'- {line}' for line in found['told'])]
    lines += [f'- {_target(one)}' for one in found['targets']]
    if found['others'] > measuring.QUIET:
        lines.append(
            f'- **Not to be quoted**: other processes kept up to {found["others"]:.1f} cores busy. A step of PyTorch '
            'waits for its slowest thread at every operation, so a busy machine slows it more than ours.'
        )
    return lines


def _row(row) -> str:
    form = '{:.1%}'.format if row['unit'].startswith('share') else _number
    single = len(row['values']) == 1
    spread = ('', '') if single else (form(row['min']), form(row['max']))
    return f'| {row["name"]} | {form(row["median"])} | {spread[0]} | {spread[1]} | {row["unit"]} | {row["note"]} |'


def _number(value) -> str:
    return f'{value:.0f}' if abs(value) >= 100 else f'{value:.1f}' if abs(value) >= 10 else f'{value:.2f}'


def _target(one) -> str:
    share = not isinstance(one['value'], int)
    value, limit = (f'{one[key]:.1%}' if share else f'{one[key]}' for key in ('value', 'limit'))
    return f'{one["what"]}: {value}, to be below {limit}: {"met" if one["met"] else "**MISSED**"}'


def verdict(report) -> str:
    """Which targets are missed."""
    missed = [one['what'] for found in report['parts'].values() for one in found['targets'] if not one['met']]
    busy = '' if quiet(report) else '; the machine was not quiet, so nothing of this is to be quoted'
    return (f'MISSED: {"; ".join(missed)}' if missed else 'all targets are met') + busy


def whole(report) -> str:
    """docs/speed.md."""
    head = HEAD.format(
        ceilings=f'{ceilings(report["ceilings"])}.', **{k: report[k] for k in ('command', 'date', 'machine')}
    )
    lines = [line for name, found in report['parts'].items() for line in part(name, found)]
    return head + '\n'.join(lines) + '\n'
