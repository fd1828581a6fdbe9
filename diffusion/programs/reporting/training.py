"""What a training has logged, as curves: the loss, the loss by noise level, and the meters beside it."""

import dataclasses

import numpy as np

from diffusion.programs.reporting import chart, record, thin, view
from diffusion.runtime import optimizer

SIGMA = 'loss_sigma_'
UNPLOTTED = ('caption_match_n',)


@dataclasses.dataclass(frozen=True)
class Plot:
    """A chart of the logged names in `holds`, or with an ending. share: of something, from 0 to 1, never on a log
    axis; quiet: left out where nothing but 0 was logged."""

    title: str
    y: str
    holds: tuple[str, ...] = ()
    ending: str = ''
    share: bool = False
    quiet: bool = False

    def names(self, known: list[str]) -> list[str]:
        return [name for name in known if name in self.holds or (self.ending and name.endswith(self.ending))]


METERS = (
    Plot('Gradient norm', '', ('grad_norm',)),
    Plot('Distance of the averages from the weights', 'share of their norm', ending='_distance'),
    Plot('Share of the weights that a step changes', 'share', ('changed',), share=True),
    Plot('Gap that the condition makes', '', ('condition_gap',)),
    Plot('Images a second', 'images/s', ('images_per_s',)),
    Plot('Share of the highest rate that the hardware multiplies at (MFU)', 'share', ('mfu',), share=True),
    Plot('Share of the time spent waiting for data', 'share', ('data_wait',), share=True),
    Plot('Captions whose picture is the right one', 'share', ('caption_match',), share=True),
    Plot('Share of steps that were skipped', 'share', ('skipped',), share=True, quiet=True),
    Plot('Images that could not be read', 'images', ('bad_files',), quiet=True),
)


def losses(shown: view.View) -> view.Section:
    """The loss, and the loss in ranges of sigma."""
    known = _known(shown)
    if not known:
        return view.Section('Loss', [view.note('Nothing is logged yet.')])
    ranges = [name for name in known if name.startswith(SIGMA)]
    charts = [_chart(shown, 'Loss', 'loss', ['loss'])] if 'loss' in known else []
    charts += [_chart(shown, 'Loss by noise level σ', 'loss', ranges)] if ranges else []
    return view.Section('Loss', [_charts(charts), view.note(f'{len(shown.run.rows):,} lines of metrics.jsonl.')])


def meters(shown: view.View) -> view.Section | None:
    """Everything else that is logged, what no plot names last, and the learning rate that the config gives."""
    known = _known(shown)
    if not known:
        return None
    left = [name for name in known if name != 'loss' and not name.startswith(SIGMA) and name not in UNPLOTTED]
    charts = []
    for plot in METERS:
        names = plot.names(left)
        left = [name for name in left if name not in names]
        if names and not (plot.quiet and _silent(shown, names)):
            charts.append(_chart(shown, plot.title, plot.y, names, False if plot.share else None))
    charts += _rates(shown)
    charts += [_chart(shown, name, '', [name]) for name in left]
    return view.Section('Meters', [_charts(charts)]) if charts else None


def _known(shown):
    return list(dict.fromkeys(name for _, run in shown.runs() for name in run.names()))


def _charts(charts):
    return '<div class="charts">\n' + '\n'.join(charts) + '\n</div>'


def _silent(shown, names):
    return not any(value for _, run in shown.runs() for name in names for value in run.series(name)[1])


def _chart(shown, title, y, names, log=None):
    series = []
    for position, (of, run) in enumerate(shown.runs()):
        for i, name in enumerate(names):
            steps, values = run.series(name)
            label = view.labelled(_label(name) if len(names) > 1 else '', of)
            # A curve and that of the other run have one colour, unless they are all there is.
            series.append(_thinned(label, steps, values, i if len(names) > 1 else position, position))
    return chart.lines(title, [one for one in series if one.x], y=y, log=log)


def _thinned(label, steps, values, colour, position):
    kept = thin.points(values)
    taken = [steps[i] for i in kept], [values[i] for i in kept]
    return chart.Series(label, *taken, colour=colour % chart.COLOURS, dashed=bool(position))


def _label(name):
    """'loss_sigma_3_0.1-0.3' -> 'σ 0.1–0.3'."""
    if not name.startswith(SIGMA):
        return name
    low, _, high = name.removeprefix(SIGMA).partition('_')[2].partition('-')
    return f'σ < {high}' if low == '0' else f'σ > {low}' if high == 'inf' else f'σ {low}–{high}'


def _rates(shown):
    series = [rate for i, (name, run) in enumerate(shown.runs()) if (rate := _rate(name, run, i))]
    return [chart.lines('Learning rate, by the config', series)] if series else []


def _rate(name, run: record.Run, position):
    """The schedule of the optimizer over the steps so far; None where the config is of another version."""
    options = run.config.get('optimizer', {})
    try:
        rate = optimizer.schedule(
            options['lr'], options['warmup_images'], options['decay_images'], run.option('train', 'batch')
        )
        steps = np.unique(np.linspace(0, max(run.last_step() - 1, 1), 2 * thin.BUCKETS).round())
        values = [float(value) for value in np.asarray(rate(steps))]
    except (KeyError, TypeError):
        return None
    return chart.Series(name, (steps + 1).tolist(), values, colour=position, dashed=bool(position))
