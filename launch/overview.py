"""What the user asks about jobs: how they are, in words, and what still bills."""

from pathlib import Path

from launch import memory, shell, sight, targets

TOOLS = {'tpu-vm': 'gcloud', 'gke': 'kubectl', 'slurm': 'squeue', 'local': 'this machine'}


def folders() -> list[Path]:
    return sorted(path.parent for path in memory.root().glob('*/state.json'))


def over(folder: Path) -> bool:
    state = memory.load(folder)
    return state is not None and state.outcome is not None and not state.removing


def status(job: memory.Job) -> str:
    """Some lines: what was asked for, how it is now, and what to do next."""
    spec, state = job.spec, job.state
    lines = [f'{spec.name}: {spec.target} {spec.accelerator}'.rstrip() + f', diffusion {shell.quoted(spec.words)}']
    used = [f'attempt {state.attempt}']
    if spec.target != 'local':
        limit = f' of {spec.hours():.2f}' if spec.hours() != float('inf') else ''
        used.append(f'{state.billed / 3600:.2f}{limit} h of machines')
    if spec.price:
        used.append(f'{state.billed / 3600 * spec.price:.2f} in money')
    lines.append('  ' + ', '.join(used))
    if state.outcome is not None and not state.removing:
        lines.append(f'  over: {state.outcome[1]} (exit status {state.outcome[0]})')
        lines.append(f'  next: {_after(state.outcome[0])}')
        return '\n'.join(lines)
    supervised = memory.supervised(job.folder)
    found = targets.BY_NAME[spec.target].look(job)
    where = f' in {state.zone}' if state.zone else ''
    lines.append(f'  now{where}: {found.said or found.kind}: {meaning(spec.target, found)}')
    lines.append('  ' + (f'next: {_next(found, spec)}' if supervised else f'next: {_alone(found, spec.name)}'))
    return '\n'.join(lines)


def meaning(target: str, found: sight.Sight) -> str:
    """A state in plain words."""
    general = {
        sight.ABSENT: 'nothing is there, nothing is billed',
        sight.WAITING: 'is being made',
        sight.READY: 'machines are there and billed' if target != 'local' else 'this machine',
        sight.DEAD: 'the machines will not come back',
        sight.LEAVING: 'is being deleted',
        sight.UNKNOWN: 'no answer that makes sense; nothing is done until there is one',
    }
    known = targets.BY_NAME[target].WORDS.get(found.said.split(',')[0])
    return known[1] if known and known[0] == found.kind else general[found.kind]


def _next(found, spec) -> str:
    return {
        sight.ABSENT: 'nothing for you: the supervisor asks for machines',
        sight.WAITING: 'nothing for you: the supervisor waits',
        sight.READY: f'diffusion launch logs {spec.name} --follow',
        sight.DEAD: 'nothing for you: the supervisor removes it and asks anew',
        sight.LEAVING: 'nothing for you: the supervisor waits until it is gone',
        sight.UNKNOWN: f'see whether {TOOLS[spec.target]} works by itself: {_hint(spec)}',
    }[found.kind]


def _alone(found, name) -> str:
    if found.kind == sight.ABSENT:
        return f'no supervisor runs, nothing is billed: diffusion launch resume {name}'
    return f'no supervisor runs, so no limit is kept: diffusion launch resume {name}, or stop {name}'


def _hint(spec) -> str:
    return {
        'tpu-vm': 'gcloud auth login; gcloud config get project',
        'gke': 'gcloud container clusters get-credentials CLUSTER --location=...; kubectl get jobsets',
        'slurm': 'sinfo',
        'local': 'diffusion doctor',
    }[spec.target]


def _after(code) -> str:
    return {
        0: 'it is done',
        75: 'all is saved: the same call goes on from there (with a larger limit, if that ended it)',
        70: 'look at the log: diffusion launch logs',
    }.get(code, 'mend what the log says: diffusion launch logs')


def jobs_table() -> str:
    rows = [('job', 'target', 'type', 'zone', 'attempt', 'hours', 'state')]
    for folder in folders():
        spec, state = memory.spec_of(folder), memory.load(folder)
        if over(folder):
            now = f'over: {state.outcome[1]}'
        elif memory.supervised(folder):
            now = 'supervised'
        else:
            now = (
                f'NOT SUPERVISED: diffusion launch resume {spec.name}' if state.going() else 'never asked for anything'
            )
        hours = f'{state.billed / 3600:.2f}'
        rows.append((spec.name, spec.target, spec.accelerator, state.zone, str(state.attempt), hours, now))
    return _table(rows) if rows[1:] else 'no job was launched from here'


def billed(run: shell.Run, project: str) -> tuple[str, bool]:
    """A table of all that is there, and whether every target answered."""
    known = {folder.name for folder in folders()}
    rows, silent, said = [('what', 'target', 'where', 'type', 'state', 'from here')], [], []
    for name, target in targets.BY_NAME.items():
        found = target.billed(run, project)
        if isinstance(found, str):
            missing = found.endswith('is not installed here')
            said.append(f'{name}: {found}')
            if not missing:
                silent.append(name)
            continue
        for item in found:
            rows.append(
                (item.name, item.target, item.where, item.what, item.said, 'yes' if item.name in known else 'no')
            )
    lines = [_table(rows) if rows[1:] else 'nothing bills, as far as was told']
    lines += [f'not asked: {line}' for line in said]
    if silent:
        lines.append(f'THIS IS NOT ALL: {", ".join(silent)} did not answer')
    return '\n'.join(lines), not silent


def _table(rows) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return '\n'.join('  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
