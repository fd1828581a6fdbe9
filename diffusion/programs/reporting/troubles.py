"""What went wrong and what was begun again: starts, skipped steps, damaged checkpoints."""

import datetime

from diffusion.programs import page
from diffusion.programs.reporting import view
from diffusion.runtime import checkpoint, store

MOST = 100  # rows of a table


def section(shown: view.View) -> view.Section:
    """Of the run alone."""
    run = shown.run
    body = [_starts(run), _rollbacks(run), _incidents(run), _damaged(run)]
    return view.Section('Incidents and restarts', [piece for piece in body if piece])


def _starts(run):
    if not run.starts:
        return view.note('When and where it was started was not written down by the version that trained it.')
    rows = [
        [
            _when(start['time']),
            f'{start["step"]:,}',
            ', '.join(map(str, start.get('hosts', [])[:4])),
            view.short(start.get('devices', {})),
            str(start.get('commit') or '')[:12],
        ]
        for start in run.starts[-MOST:]
    ]
    return view.note(f'Started {view.times(len(run.starts))}.') + page.table(
        ['when (UTC)', 'after step', 'hosts', 'devices', 'commit'], rows
    )


def _rollbacks(run):
    standing = [
        content['meta'].get('guard', {}) for content in run.checkpoints.values() if content and 'meta' in content
    ]
    back = max((one.get('rollbacks', 0) for one in standing), default=0)
    passed = max((one.get('offset', 0) for one in standing), default=0)
    return view.note(f'It went back {view.times(back)}, and passed over {passed:,} examples.', bad=True) if back else ''


def _incidents(run):
    if not run.incidents:
        return view.note(
            'No step was skipped.' if not any(run.series('skipped')[1]) else 'No evidence of skipped steps is kept.'
        )
    rows = []
    for folder, found in run.incidents[:MOST]:
        if isinstance(found, str):
            rows.append([folder.name, '', found, '', ''])
            continue
        layers = ', '.join(f'{name} {norm}' for name, norm in found['layers'][:3])
        again = 'yes' if (folder / 'replay.json').exists() else 'no'
        when = _when(found['time']) if 'time' in found else ''
        rows.append([f'{found["step"]:,}', when, view.short(found['metrics'].get('loss')), layers, again])
    head = ['step', 'when (UTC)', 'loss', 'largest gradients', 'replayed']
    hint = 'To see one again: diffusion train --replay=' + str(run.folder / 'incidents' / run.incidents[0][0].name)
    return view.note(f'{len(run.incidents)} skipped steps are kept as evidence. {hint}', bad=True) + page.table(
        head, rows
    )


def _damaged(run):
    aside = store.numbered(run.folder / checkpoint.ASIDE)
    unread = [step for step, content in run.checkpoints.items() if content is None]
    said = [f'checkpoints set aside as damaged: {", ".join(map(str, aside))}'] if aside else []
    said += [f'checkpoints without a manifest that can be read: {", ".join(map(str, unread))}'] if unread else []
    return view.note('; '.join(said), bad=True) if said else ''


def _when(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime('%Y-%m-%d %H:%M:%S')
