"""Results over a grid of settings, as heat maps whose cells hold the numbers."""

import itertools
import math

from diffusion.programs import page
from diffusion.programs.reporting import axes, chart, grouped, record, view

MOST = 24  # heat maps on a page
CELL = 30  # height of a row, in user units
LEFT, TOP = 84, 24

STYLE = """
svg .cell { fill: var(--c0); stroke: var(--page); stroke-width: 1; }
svg .value { fill: var(--ink); }
svg .missing { fill: none; stroke: var(--line); stroke-width: 1; }
"""


def maps(evaluations: list[record.Evaluation]) -> list[str]:
    """Heat maps, each as HTML with its title: of every metric and step, and of every choice of the further settings,
    over the two fields that take the most values."""
    found = []
    keys = sorted({(one.metric, one.step) for one in evaluations})
    for metric, step in keys:
        many = grouped.groups([one for one in evaluations if (one.metric, one.step) == (metric, step)])
        pair, rest = _axes(many)
        if len(pair) < 2:
            found += [_line(f'{many[0].results[0].name}, step {step:,}', many, key) for key in pair]
            continue
        parts = {}
        for group in many:
            parts.setdefault(tuple(grouped.spelt(group.fields.get(key)) for key in rest), []).append(group)
        for part in parts.values():
            settings = [f'{key.removesuffix(".name")} {view.short(part[0].fields.get(key), 30)}' for key in rest]
            if _is_grid(part, pair):
                title = f'{", ".join([part[0].results[0].name, *settings])}, step {step:,}'
                found.append(_map(title, part, pair))
    return found[:MOST]


def _axes(many):
    """The two fields to lay out and the others that vary; of one that varies alone that one, where a line through
    three points or more can be drawn of it."""
    fields = grouped.varying(many)
    if len(fields) < 2:
        return [key for key in fields if len(many) > 2 and all(_is_number(group.fields.get(key)) for group in many)], []
    values = {key: len({grouped.spelt(group.fields.get(key)) for group in many}) for key in fields}
    numeric = {key: all(_is_number(group.fields.get(key)) for group in many) for key in fields}
    pair = sorted(fields, key=lambda key: (not numeric[key], -values[key]))[:2]
    return sorted(pair, key=fields.index), [key for key in fields if key not in pair]


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_grid(part, pair):
    """At least two rows and two columns, and more than half of the cells filled."""
    sides = [len({grouped.spelt(group.fields.get(key)) for group in part}) for key in pair]
    return min(sides) > 1 and 2 * len(part) > math.prod(sides)


def _order(part, key):
    """The values of a field, numbers ascending, the rest as they came."""
    values = list({grouped.spelt(group.fields.get(key)): group.fields.get(key) for group in part}.values())
    return sorted(values, key=lambda value: (0, value) if _is_number(value) else (1, 0))


def _line(title, many, key):
    """A sweep over one setting."""
    many = sorted(many, key=lambda group: group.fields[key])
    results = [group.results[0] for group in many]
    low, high = ([one.interval[end] if one.interval else None for one in results] for end in (0, 1))
    x = [group.fields[key] for group in many]
    return chart.lines(title, [chart.Series('', x, [one.value for one in results], low, high)], x=key)


def _map(title, part, pair):
    across, down = (_order(part, key) for key in pair)
    cells = {tuple(grouped.spelt(group.fields.get(key)) for key in pair): group.results[0] for group in part}
    finite = [one.value for one in cells.values() if math.isfinite(one.value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    width = (chart.RIGHT - LEFT) / len(across)
    body = [*_labels(across, down, pair, width)]
    for (column, a), (row, b) in itertools.product(enumerate(across), enumerate(down)):
        one = cells.get((grouped.spelt(a), grouped.spelt(b)))
        body += _cell(one, LEFT + column * width, TOP + row * CELL, width, low, high)
    names = [key.removesuffix('.name') for key in pair]
    described = f'{names[0]} across, {names[1]} down, from {axes.number(low)} to {axes.number(high)}'
    drawn = chart.svg(title, described, body, chart.WIDTH, TOP + CELL * len(down) + 42)
    return chart.framed(title, drawn)


def _labels(across, down, pair, width):
    bottom = TOP + CELL * len(down)
    names = [page.text(key.removesuffix('.name')) for key in pair]
    for column, value in enumerate(across):
        place = LEFT + (column + 0.5) * width
        yield f'<text x="{place:.1f}" y="{bottom + 16}" text-anchor="middle">{page.text(view.short(value, 12))}</text>'
    for row, value in enumerate(down):
        place = TOP + (row + 0.5) * CELL + 4
        yield f'<text x="{LEFT - 6}" y="{place:.1f}" text-anchor="end">{page.text(view.short(value, 12))}</text>'
    yield f'<text x="{(LEFT + chart.RIGHT) / 2}" y="{bottom + 34}" text-anchor="middle">{names[0]}</text>'
    yield f'<text x="4" y="14">{names[1]}</text>'


def _cell(one, x, y, width, low, high):
    box = f'x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{CELL}"'
    if one is None:
        yield f'<rect class="missing" {box}/>'
        return
    # Never stronger than what the number can be read on, light and dark.
    share = (one.value - low) / (high - low) if math.isfinite(one.value) and high > low else 0.5
    ends = f' ({" to ".join(map(axes.number, one.interval))})' if one.interval else ''
    strength = f'{0.06 + 0.44 * share:.3f}' if math.isfinite(one.value) else '0'
    yield f'<rect class="cell" {box} fill-opacity="{strength}"><title>{axes.number(one.value)}{ends}</title></rect>'
    yield (
        f'<text class="value" x="{x + width / 2:.2f}" y="{y + CELL / 2 + 4:.2f}" text-anchor="middle" '
        f'pointer-events="none">{axes.number(one.value)}</text>'
    )
