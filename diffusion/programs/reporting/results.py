"""The results of `diffusion evaluate`: curves over the steps, sweeps, and the list of all."""

from diffusion.programs import page
from diffusion.programs.reporting import axes, chart, grouped, sweeps, view

CURVES = chart.COLOURS  # in one chart; the rest is in the list


def curves(shown: view.View) -> view.Section:
    """Of each metric one chart, a curve for each protocol and run."""
    metrics = list(dict.fromkeys(one.metric for _, run in shown.runs() for one in run.evaluations))
    if not metrics:
        said = f'Nothing has been evaluated yet: diffusion evaluate --workdir={shown.run.folder} --metrics=...'
        return view.Section('Metrics', [view.note(said)])
    charts = [_chart(shown, metric) for metric in metrics]
    body = ['<div class="charts">', *charts, '</div>', view.note('Whiskers are 95 % intervals.'), _list(shown)]
    return view.Section('Metrics', body)


def heat_maps(shown: view.View) -> view.Section | None:
    """Where the results of the run at one step form a grid over two fields of their protocols."""
    maps = sweeps.maps(shown.run.evaluations)
    return view.Section('Sweeps', ['<div class="charts">', *maps, '</div>']) if maps else None


def _chart(shown, metric):
    """A protocol has the same colour in both runs."""
    of_runs = [
        (name, position, group)
        for position, (name, run) in enumerate(shown.runs())
        for group in grouped.groups([one for one in run.evaluations if one.metric == metric])
    ]
    keys = grouped.varying([group for _, _, group in of_runs])
    # A protocol of one step makes no curve: it is shown where there are none that do.
    longest = max(len(group.results) for _, _, group in of_runs)
    curves = [each for each in of_runs if len(each[2].results) > 1 or longest == 1]
    curves = sorted(curves, key=lambda each: -len(each[2].results))[:CURVES]
    protocols = list(dict.fromkeys(grouped.spelt(group.fields) for _, _, group in curves))
    series = []
    for name, position, group in curves:
        colour = protocols.index(grouped.spelt(group.fields)) if len(protocols) > 1 else position
        label = view.labelled(_differing(group, keys), name)
        series.append(
            chart.Series(
                label,
                [one.step for one in group.results],
                [one.value for one in group.results],
                [one.interval[0] if one.interval else None for one in group.results],
                [one.interval[1] if one.interval else None for one in group.results],
                colour=colour % chart.COLOURS,
                dashed=bool(position),
            )
        )
    left_out = len(of_runs) - len(series)
    first = curves[0][2].results[0]
    more = f'{left_out} more protocols are in the list and, where they form a grid, in the sweeps.' if left_out else ''
    return chart.lines(first.name, series, y=str(first.told.get('unit') or ''), more=more)


def _differing(group, keys):
    return ', '.join(f'{key.removesuffix(".name")} {view.short(group.fields.get(key), 30)}' for key in keys)


def _list(shown):
    rows = []
    for name, run in shown.runs():
        for one in run.evaluations:
            ends = ' to '.join(map(axes.number, one.interval)) if one.interval else 'unknown'
            mark = str(one.told.get('protocol_hash') or '')
            said = str(one.told.get('note') or '')
            rows.append(
                [*([name] if name else []), one.name, f'{one.step:,}', axes.number(one.value), ends, mark, said]
            )
    head = [*([''] if shown.against else []), 'metric', 'step', 'value', '95 % interval', 'protocol', 'note']
    return view.folded(f'All {len(rows)} results', page.table(head, rows))
