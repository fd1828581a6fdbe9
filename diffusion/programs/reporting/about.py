"""The first section of a report: what the run is, where it ran, how far it is."""

import time

from diffusion.programs import page
from diffusion.programs.reporting import axes, record, view


def section(shown: view.View) -> view.Section:
    """Facts of the run, and of the one it is held against, side by side."""
    runs = shown.runs()
    facts = [_facts(run) for _, run in runs]
    names = list(dict.fromkeys(name for each in facts for name in each))
    head = ['', *(name for name, _ in runs)] if shown.against else ['', '']
    rows = [[name, *(each.get(name, '') for each in facts)] for name in names]
    config = [
        [f'{part}.{key}', view.short(value)]
        for part, values in shown.run.config.items()
        for key, value in values.items()
    ]
    return view.Section(
        'What it is',
        [
            page.table(head, rows),
            view.folded('The whole config, as it was resolved', page.table(['', ''], config)),
            *(view.note(f'left out: {said}', bad=True) for said in shown.run.odd),
        ],
    )


def state(run: record.Run) -> str:
    """How far a run is, in a line. Whether a process is at it now, nothing in its workdir says for sure."""
    step, steps = run.last_step(), run.option('train', 'steps', 0)
    if not step:
        return f'nothing is logged yet; {steps:,} steps are planned'
    if step >= steps:
        return f'finished: {step:,} of {steps:,} steps'
    last = run.rows[-1].get('time') if run.rows else None
    ago = f'; its last line is {_duration(max(time.time() - last, 0))} older than this page' if last else ''
    return f'under way or stopped: {step:,} of {steps:,} steps{ago}'


def _facts(run):
    facts, batch = run.about.get('facts', {}), run.option('train', 'batch', 0)
    step, hours, speed = run.last_step(), record.hours(run), record.speed(run)
    pauses = '' if run.starts else ', pauses included'
    shape = ' × '.join(map(str, facts.get('shape', [])))
    return {
        'folder': str(run.folder),
        'state': state(run),
        'data': f'{facts.get("examples", 0):,} examples of {shape} ({facts.get("dtype", "?")}), '
        f'{_named(run, "data")}, fingerprint {str(facts.get("fingerprint", "?"))[:16]}',
        'process': f'{_named(run, "process")}, predicting by {_named(run, "precond")}',
        'network': _named(run, 'net') + _size(run),
        'optimizer': f'{_named(run, "optimizer")}, batch {batch:,}',
        'hardware': _hardware(run.starts[-1]) if run.starts else 'not written down by the version that trained it',
        'hours': 'unknown' if hours is None else f'{hours:.2f} of training{pauses}',
        'speed': 'unknown' if speed is None else f'{speed:,.0f} images/s, the median over its lines',
        'images seen': f'{step * batch:,}',
        'starts': f'{len(run.starts)}' if run.starts else 'unknown',
        'checkpoints': ', '.join(f'{each:,}' for each in run.checkpoints) or 'none',
        'versions': ', '.join(f'{name} {version}' for name, version in run.about.get('versions', {}).items()),
        'commit': run.about.get('commit') or 'unknown',
    }


def _named(run, section):
    values = run.config.get(section, {})
    rest = ', '.join(f'{key} {view.short(value)}' for key, value in values.items() if key != 'name' and value != '')
    name = values.get('name', '?')
    return f'{name} ({view.short(rest)})' if rest else str(name)


def _size(run):
    for content in reversed(run.checkpoints.values()):
        try:
            return f', {content["items"]["params"]["numbers"]:,} weights'
        except (KeyError, TypeError):
            continue
    return ''


def _hardware(start) -> str:
    devices, hosts = start.get('devices', {}), start.get('hosts', [])
    return (
        f'{devices.get("count", "?")} × {devices.get("platform", "?")} ({devices.get("kind", "?")}), '
        f'{start.get("cores", "?")} cores a host, {start.get("system", "?")}; host{"s" if len(hosts) > 1 else ""} '
        f'{", ".join(map(str, hosts[:8]))}{f" and {len(hosts) - 8} more" if len(hosts) > 8 else ""}'
    )


def _duration(seconds: float) -> str:
    for unit, size in (('days', 86400), ('hours', 3600), ('minutes', 60)):
        if seconds >= 2 * size:
            return f'{axes.number(round(seconds / size))} {unit}'
    return f'{seconds:.0f} seconds'
