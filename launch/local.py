"""Processes of this machine, as many as there are hosts in the spec, each its own `host` to the agent."""

import json
import shutil
import sys

from diffusion import ports, usage
from launch import hosts, memory, shell, sight
from launch import job as jobs

KEEPS = True
WORDS = {'here': (sight.READY, 'this machine; nothing is billed')}


def check(spec: jobs.Spec) -> None:
    for field in ('accelerator', 'zones', 'bucket', 'project'):
        if getattr(spec, field):
            raise usage.UsageError(f'local takes no {field}')


def look(job: memory.Job) -> sight.Sight:
    """A machine that is always there; when the job is to be removed, whatever still runs of it is looked for."""
    job.state.hosts = job.spec.hosts
    if job.state.removing and not (job.folder / 'launch-job.json').exists():
        return sight.Sight(sight.ABSENT, 'nothing was started')
    if job.state.removing:
        busy = [worker for worker in poll(job) if worker.state in ('running', 'busy', 'silent')]
        return sight.Sight(sight.READY if busy else sight.ABSENT, f'{len(busy)} processes')
    return sight.Sight(sight.READY, 'here')


def request(job: memory.Job) -> None:
    raise AssertionError('this machine is always there')


def remove(job: memory.Job) -> None:
    stop(job)


def prepare(job: memory.Job) -> None:
    described = hosts.describe(
        job.spec, python=sys.executable, home=str(job.folder.parent), archive='launch-tree.tar.gz', bucket=''
    )
    shell.write(job.folder / 'launch-job.json', described)
    shutil.copyfile(memory.root() / 'trees' / f'{job.spec.tree}.tar.gz', job.folder / 'launch-tree.tar.gz')
    result = job.run(_call(job, 0, ('prepare',), 'unpacks the tree', timeout=900.0))
    if not result.ok:
        raise sight.Broken(hosts.fault(result))


def start(job: memory.Job) -> None:
    """All processes find each other at a port that is free now."""
    if not job.state.port or all(worker.state != 'running' for worker in poll(job)):
        job.state.port = ports.free_pair()
        job.save()
    count = job.state.hosts

    def environment(host):
        if count == 1:
            return {}
        place = f'localhost:{job.state.port}'
        return {'JAX_COORDINATOR_ADDRESS': place, 'JAX_NUM_PROCESSES': str(count), 'JAX_PROCESS_ID': str(host)}

    hosts.start(job, lambda host, *args, **fields: _call(job, host, *args, **fields), environment)


def poll(job: memory.Job) -> list[sight.Worker]:
    return hosts.poll(job, lambda host, *args, **fields: _call(job, host, *args, **fields))


def stop(job: memory.Job) -> None:
    hosts.stop(job, lambda host, *args, **fields: _call(job, host, *args, **fields))


def _call(job, host, words, why, **fields):
    argv = (sys.executable, str(hosts.AGENT), words[0], 'launch-job.json', *words[1:])
    return shell.Command(argv, why, cwd=str(job.folder), **fields)


def billed(run: shell.Run, project: str) -> list[sight.Billed] | str:
    """Programs of jobs of this machine that still run."""
    rows = []
    for path in sorted(memory.root().glob('*/host-*/attempt')):
        name, host = path.parents[1].name, path.parent.name
        spec, state = memory.spec_of(path.parents[1]), memory.load(path.parents[1])
        if spec.target != 'local' or state is None:
            continue
        words = ('poll', 'launch-job.json', f'--attempt={state.attempt}', f'--host={host[5:]}')
        call = shell.Command((sys.executable, str(hosts.AGENT), *words), 'does it run', cwd=str(path.parents[1]))
        found = hosts.answer(run(call))
        if found.get('state') in ('running', 'busy'):
            pid = json.loads(path.read_text(encoding='utf-8')).get('pid')
            rows.append(sight.Billed('local', name, 'here', host, f'running, process {pid}'))
    return rows
