"""Line charts as SVG that stands in a page: axes with ticks, log scales, intervals, gaps, what is under the pointer."""

import dataclasses
import itertools
import math

from diffusion.programs import page
from diffusion.programs.reporting import axes

WIDTH, HEIGHT = 420, 250  # user units: about the pixels it has on a phone, so that the text is read there
LEFT, RIGHT, TOP, BOTTOM = 60, 396, 12, 206
BANDS = 80  # places along x that have a title of their own
COLOURS = 8  # classes c0 ... c7 of the page's style
DOTS = 40  # points up to which each is marked

STYLE = """
:root { --c0: #1f6feb; --c1: #b8500b; --c2: #1a7f37; --c3: #a626a4; --c4: #b3261e; --c5: #0b7285; --c6: #7a5c00;
  --c7: #5a4fcf; }
@media (prefers-color-scheme: dark) { :root { --c0: #79b8ff; --c1: #ffa657; --c2: #56d364; --c3: #e29bf0; --c4: #ff7b72;
  --c5: #39c5cf; --c6: #d8b36a; --c7: #aba6ff; } }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); gap: 1.2rem 1.6rem; }
.charts h3 { font-size: .9rem; font-weight: 600; margin: 0; overflow-wrap: anywhere; }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
svg .rule { stroke: var(--line); stroke-width: 1; fill: none; }
svg .line { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
svg .spread { stroke-width: 1.2; fill: none; }
svg .bad { stroke: var(--bad); stroke-width: 1.5; fill: none; }
svg .dashed { stroke-dasharray: 5 3; }
svg .band { fill: transparent; }
svg .band:hover { fill: var(--ink); fill-opacity: .1; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem .9rem; margin: .2rem 0 0; padding: 0; list-style: none;
  font-size: .75rem; color: var(--soft); overflow-wrap: anywhere; }
.legend svg { display: inline-block; width: 1.5rem; height: .6rem; margin-right: .3rem; }
""" + '\n'.join(f'svg .c{i} {{ stroke: var(--c{i}); }} svg .d{i} {{ fill: var(--c{i}); }}' for i in range(COLOURS))


@dataclasses.dataclass(frozen=True)
class Series:
    """One curve. y may hold NaN and infinities, where it is broken and a mark stands above; low, high: the ends of its
    intervals, None where it has none; colour: 0 to COLOURS - 1; dashed: as another run's are."""

    name: str
    x: list[float]
    y: list[float]
    low: list[float] | None = None
    high: list[float] | None = None
    colour: int = 0
    dashed: bool = False


def lines(
    title: str, series: list[Series], *, x: str = 'step', y: str = '', log: bool | None = None, more: str = ''
) -> str:
    """A chart with its title and legend: HTML. x, y: what stands along the axes, with the unit; log: of the y axis,
    None: where the numbers want it; more: said below."""
    shown = [value for one in series for value in (*one.y, *(one.low or ()), *(one.high or ())) if value is not None]
    log = axes.logarithmic([v for one in series for v in one.y]) if log is None else log
    across = axes.span([value for one in series for value in one.x], LEFT, RIGHT, margin=0.02)
    up = axes.span(shown, BOTTOM, TOP, log)
    body = [
        *_frame(across, up, x, f'{y}, log scale' if y and log else y or ('log scale' if log else '')),
        *(piece for one in series for piece in _curve(one, across, up)),
        *_bands(series, across, x),
    ]
    drawn = svg(title, '; '.join(_said(one, x) for one in series), body, WIDTH, HEIGHT)
    return framed(title, drawn, _legend(series), f'<p>{page.text(more)}</p>' if more else '')


def framed(title: str, *body: str) -> str:
    """A plot, and what belongs to it, under its title."""
    return f'<div class="chart"><h3>{page.text(title)}</h3>{"".join(body)}</div>'


def svg(title: str, described: str, body: list[str], width: float, height: float) -> str:
    """An SVG with what a screen reader says of it. body: its elements."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img">'
    named = f'<title>{page.text(title)}</title><desc>{page.text(described)}</desc>'
    return '\n'.join([head, named, *body, '</svg>'])


def _frame(across, up, x, y):
    for value in up.ticks():
        place = up.place(value)
        yield f'<path class="rule" d="M{LEFT} {place:.2f}H{RIGHT}"/>'
        yield f'<text class="ytick" x="{LEFT - 6}" y="{place + 4:.2f}" text-anchor="end">{axes.label(value)}</text>'
    for value in across.ticks(4):
        place = across.place(value)
        yield f'<path class="rule" d="M{place:.2f} {BOTTOM}v4"/>'
        yield f'<text class="xtick" x="{place:.2f}" y="{BOTTOM + 18}" text-anchor="middle">{axes.label(value)}</text>'
    yield f'<path class="rule" d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}"/>'
    yield f'<text x="{(LEFT + RIGHT) / 2}" y="{BOTTOM + 36}" text-anchor="middle">{page.text(x)}</text>'
    if y:
        middle = (TOP + BOTTOM) / 2
        turned = f'transform="rotate(-90 12 {middle})"'
        yield f'<text x="12" y="{middle}" text-anchor="middle" {turned}>{page.text(y)}</text>'


def _curve(one, across, up):
    drawable = [math.isfinite(v) and (v > 0 or not up.log) for v in one.y]
    dashed = ' dashed' if one.dashed else ''
    pieces, broken = [], [i for i, ok in enumerate(drawable) if not ok]
    for ok, group in itertools.groupby(range(len(one.x)), drawable.__getitem__):
        if ok:
            pieces.append([(across.place(one.x[i]), up.place(one.y[i])) for i in group])
    yield from _spread(one, across, up)
    path = ''.join('M' + 'L'.join(f'{px:.2f} {py:.2f}' for px, py in points) for points in pieces)
    if path:
        yield f'<path class="line c{one.colour}{dashed}" d="{path}"/>'
    many = len(one.x) > DOTS
    for px, py in (point for points in pieces for point in points if not many or len(points) == 1):
        yield f'<circle class="d{one.colour}" cx="{px:.2f}" cy="{py:.2f}" r="2.4"/>'
    for i in broken:
        px = across.place(one.x[i])
        yield f'<path class="bad" d="M{px - 3:.2f} {TOP - 8}l6 6m0 -6l-6 6"/>'


def _spread(one, across, up):
    """The intervals: whiskers, clipped to the frame where an end is beyond what a log axis has."""
    for x, low, high in zip(one.x, one.low or (), one.high or ()):
        if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)) or (up.log and high <= 0):
            continue
        bottom = up.place(max(low, up.low)) if up.log else up.place(low)
        px, top = across.place(x), up.place(high)
        yield f'<path class="spread c{one.colour}" d="M{px - 3:.2f} {top:.2f}h6m-3 0V{bottom:.2f}m-3 0h6"/>'


def _bands(series, across, x):
    """Stripes over the chart, each with a title that says the values there."""
    every = sorted({value for one in series for value in one.x})
    chosen = every[:: math.ceil(len(every) / BANDS)] if every else []
    places = [across.place(value) for value in chosen]
    edges = [LEFT, *((a + b) / 2 for a, b in itertools.pairwise(places)), RIGHT]
    for i, value in enumerate(chosen):
        said = [f'{x} {axes.label(value)}', *(_at(one, value) for one in series)]
        yield (
            f'<rect class="band" x="{edges[i]:.2f}" y="{TOP}" width="{max(edges[i + 1] - edges[i], 0.5):.2f}" '
            f'height="{BOTTOM - TOP}"><title>{page.text(chr(10).join(filter(None, said)))}</title></rect>'
        )


def _at(one, value):
    """What a curve is at x, or at the nearest x that it has, unless that is further than the curve's points are
    apart."""
    if not one.x:
        return ''
    i = min(range(len(one.x)), key=lambda i: abs(one.x[i] - value))
    apart = (max(one.x) - min(one.x)) / max(len(one.x) - 1, 1)
    if abs(one.x[i] - value) > apart:
        return ''
    name = f'{one.name}: ' if one.name else ''
    at = '' if one.x[i] == value else f' (at {axes.label(one.x[i])})'
    ends = (one.low[i], one.high[i]) if one.low and one.high else (None, None)
    interval = '' if None in ends else f' ({axes.number(ends[0])} to {axes.number(ends[1])})'
    return f'{name}{axes.number(one.y[i])}{interval}{at}'


def _said(one, x):
    """A curve in words."""
    finite = [(place, value) for place, value in zip(one.x, one.y) if math.isfinite(value)]
    name = f'{one.name}: ' if one.name else ''
    if not finite:
        return f'{name}no finite value'
    (first, begin), (last, end) = finite[0], finite[-1]
    missing = len(one.x) - len(finite)
    return (
        f'{name}{axes.number(begin)} at {x} {axes.label(first)}, {axes.number(end)} at {x} {axes.label(last)}, from '
        f'{axes.number(min(v for _, v in finite))} to {axes.number(max(v for _, v in finite))}'
        + (f', {missing} not finite' if missing else '')
    )


def _legend(series):
    """Where there is more than one curve or one has a name; swatches are hidden from screen readers."""
    if not any(one.name for one in series):
        return ''
    items = []
    for one in series:
        dashed = ' dashed' if one.dashed else ''
        swatch = (
            f'<svg viewBox="0 0 24 10" aria-hidden="true"><path class="line c{one.colour}{dashed}" d="M0 5H24"/></svg>'
        )
        items.append(f'<li>{swatch}{page.text(one.name)}</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'
