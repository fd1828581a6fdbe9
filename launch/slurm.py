"""Slurm: one batch job an attempt, named as the job is; one task a node, or one a GPU."""

import getpass
import os
import sys
import tarfile
from pathlib import Path

from diffusion import usage
from launch import job as jobs
from launch import memory, shell, sight

KEEPS = False  # the machines go with the program
WARNING = 120  # s before the time limit at which the program is told to save
WORDS = {
    'PENDING': (sight.WAITING, 'in the queue: wait; `squeue --start` tells for how long'),
    'REQUEUED': (sight.WAITING, 'in the queue again: wait'),
    'CONFIGURING': (sight.WAITING, 'nodes are being started: wait'),
    'SUSPENDED': (sight.WAITING, 'halted by Slurm for another job: wait'),
    'RUNNING': (sight.READY, 'runs'),
    'STOPPED': (sight.READY, 'halted by a signal: scontrol resume, or diffusion launch stop'),
    'SIGNALING': (sight.READY, 'has been told to save'),
    'COMPLETING': (sight.LEAVING, 'is being cleared away: wait'),
    'STAGE_OUT': (sight.LEAVING, 'is being cleared away: wait'),
    'ended': (sight.READY, 'has ended; its exit status decides what comes next'),
}
GONE = 'COMPLETED FAILED CANCELLED TIMEOUT NODE_FAIL PREEMPTED BOOT_FAIL OUT_OF_MEMORY DEADLINE'


def check(spec: jobs.Spec) -> None:
    if not spec.max_hours:
        raise usage.UsageError('slurm needs a time limit: --max-hours=24')
    if spec.zones or spec.bucket or spec.project:
        raise usage.UsageError('slurm takes no zones, bucket or project: its nodes share your folders')
    if spec.tasks > 1 and spec.tasks != spec.gpus:
        raise usage.UsageError(f'{spec.tasks} tasks for {spec.gpus} GPUs a node: one task a node, or one a GPU')
    if '%' in str(memory.root()):
        raise usage.UsageError(f'{memory.root()}: sbatch would read the % in it: set DIFFUSION_LAUNCH_HOME')


def look(job: memory.Job) -> sight.Sight:
    user = getpass.getuser()
    words = ('squeue', '--noheader', f'--user={user}', f'--name={job.spec.name}', '--format=%A|%T|%k')
    result = job.run(shell.Command(words, 'is the job in the queue', again=True))
    if not result.ok:
        return sight.Sight(sight.UNKNOWN, result.said)
    rows = [line.strip().split('|') for line in result.out.splitlines() if line.strip()]
    if any(len(row) != 3 or not row[0].isdecimal() for row in rows):
        return sight.Sight(sight.UNKNOWN, f'squeue says {result.said}')
    rows = [row for row in rows if row[1] not in GONE.split()]
    if rows:
        number, state, comment = sorted(rows, key=lambda row: row[2] != job.state.owner)[0]
        if comment == job.state.owner:
            job.state.job_id = number
        owner = comment if comment not in ('', '(null)') else 'someone'
        return sight.Sight(WORDS.get(state, (sight.UNKNOWN, ''))[0], state, owner)
    if job.state.launched and not job.state.removing and _ended(job).exists():
        return sight.Sight(sight.READY, 'ended', job.state.owner)
    return sight.Sight(sight.ABSENT, 'no job in the queue')


def script(job: memory.Job) -> str:
    """The batch script: the program on all tasks, and its exit status in a file, for Slurm forgets it soon."""
    spec, ended = job.spec, _ended(job)
    words = jobs.with_workdir(spec.words, spec.workdir)
    program = shell.quoted(('srun', '--label', '--kill-on-bad-exit=0', sys.executable, '-m', 'diffusion.cli', *words))
    setup = f'{shell.quoted(("bash", spec.setup))} || exit 2\n' if spec.setup else ''
    beside = shell.quoted((f'{ended}.tmp', str(ended)))
    return (
        '#!/bin/bash\n'
        f'cd {shell.quoted((str(_tree(job)),))} || exit 2\n'
        f'{setup}{program}\n'
        'code=$?\n'
        f'printf \'%s\\n\' "$code" > {shell.quoted((f"{ended}.tmp",))} && mv {beside}\n'
        'exit "$code"\n'
    )


def request(job: memory.Job) -> None:
    """Everything that Slurm must know is in arguments, which need no quoting; the script comes by standard input."""
    spec, job.state.job_id = job.spec, ''
    _unpack(job)
    seconds = int(min(job.remaining(), spec.max_hours * 3600))
    words = (
        'sbatch',
        '--parsable',
        f'--job-name={spec.name}',
        f'--comment={job.state.owner}',
        f'--nodes={spec.hosts}',
        f'--ntasks-per-node={spec.tasks}',
        *((f'--gpus-per-node={spec.gpus}',) if spec.gpus else ()),
        f'--time={max(seconds // 60, 1)}',
        f'--signal=TERM@{WARNING}',
        '--no-requeue',
        '--export=ALL',
        f'--output={_log(job)}',
        *((f'--partition={spec.partition}',) if spec.partition else ()),
        *((f'--account={spec.account}',) if spec.account else ()),
    )
    result = job.run(shell.Command(words, 'submits the job', stdin=script(job)))
    if not result.ok:
        raise sight.Refusal(result.said, result.code is None or 'limit' in result.error.lower())
    job.state.job_id = result.out.strip().split(';')[0]


def remove(job: memory.Job) -> None:
    """By its number, which a look has found where the answer to the submission was lost."""
    if job.state.job_id:
        job.run(shell.Command(('scancel', job.state.job_id), 'removes the job'))


def prepare(job: memory.Job) -> None:
    """Nothing: the nodes share the folders of this machine."""


def start(job: memory.Job) -> None:
    """Nothing: the submission was the start."""


def poll(job: memory.Job) -> list[sight.Worker]:
    """One for all tasks; srun puts each one's number before its lines."""
    text, path, offset = '', _log(job), job.state.read.get('0', 0)
    ended = _ended(job)
    code = ended.read_text(encoding='utf-8').strip() if ended.exists() else ''
    if path.exists():
        with open(path, 'rb') as log:
            log.seek(offset)
            data = log.read()
        if not code:
            data = data[: data.rfind(b'\n') + 1]
        job.state.read['0'] = offset + len(data)
        text = data.decode('utf-8', 'replace')
    if not code:
        return [sight.Worker(0, 'running', None, text)]
    if not code.isdecimal():
        return [sight.Worker(0, 'silent', None, f'{ended} holds {code[:40]!r}')]
    return [sight.Worker(0, 'ended', int(code) if int(code) <= 128 else 128 - int(code), text)]


def stop(job: memory.Job) -> None:
    """The tasks are told to save; the time limit is what ends those that do not."""
    if job.state.job_id:
        job.run(shell.Command(('scancel', '--signal=TERM', job.state.job_id), 'asks the program to save and end'))


def _tree(job) -> Path:
    return job.folder / f'tree-{job.spec.tree}'


def _log(job) -> Path:
    return job.folder / f'log-{job.state.attempt}'


def _ended(job) -> Path:
    return job.folder / f'ended-{job.state.attempt}'


def _unpack(job):
    """The packed tree, so that what is changed here later does not change a job that is started again."""
    root = _tree(job)
    if root.exists():
        return
    beside = root.with_suffix('.tmp')
    with tarfile.open(memory.root() / 'trees' / f'{job.spec.tree}.tar.gz') as packed:
        packed.extractall(beside, filter='data')
    os.replace(beside, root)


def billed(run: shell.Run, project: str) -> list[sight.Billed] | str:
    user = getpass.getuser()
    result = run(shell.Command(('squeue', '--noheader', f'--user={user}', '--format=%j|%T|%D|%P'), 'all of mine'))
    rows = [line.strip().split('|') for line in result.out.splitlines() if line.strip()]
    if not result.ok or any(len(row) != 4 for row in rows):
        return result.said
    return [sight.Billed('slurm', name, part, f'{nodes} node(s)', state) for name, state, nodes, part in rows]
