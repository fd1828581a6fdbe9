"""Cloud TPU VMs through queued resources: one request and one slice, both named as the job is."""

import dataclasses
import json
import shutil

from diffusion import usage
from launch import hardware, hosts, memory, shell, sight
from launch import job as jobs

GCLOUD = ('gcloud', 'compute', 'tpus')
KEEPS = True  # machines outlive the program, which may be started on them again
# Queued resources: state, and what it means. cloud.google.com/tpu/docs/queued-resources
WORDS = {
    'CREATING': (sight.WAITING, 'the request is being looked at: wait'),
    'ACCEPTED': (sight.WAITING, 'the request is in the queue: wait, nothing is billed'),
    'WAITING_FOR_RESOURCES': (
        sight.WAITING,
        'in the queue until there is room: wait, or add --zones; nothing is billed',
    ),
    'PROVISIONING': (sight.WAITING, 'machines are being made: wait some minutes'),
    'ACTIVE': (sight.READY, 'the machines are there and billed'),
    'SUSPENDING': (sight.LEAVING, 'the machines are being taken away: wait, then the request is removed and made anew'),
    'SUSPENDED': (sight.DEAD, 'the machines were taken away; such a request is never served again: it is removed'),
    'FAILED': (sight.DEAD, 'the request cannot be granted: it is removed and made anew'),
    'DELETING': (sight.LEAVING, 'is being deleted: wait'),
}
NODES = {
    'CREATING': sight.WAITING,
    'STARTING': sight.WAITING,
    'RESTARTING': sight.WAITING,
    'REIMAGING': sight.WAITING,
    'REPAIRING': sight.WAITING,
    'READY': sight.READY,
    'DELETING': sight.LEAVING,
    'STOPPING': sight.LEAVING,
    'STOPPED': sight.DEAD,
    'PREEMPTED': sight.DEAD,
    'TERMINATED': sight.DEAD,
    'HIDDEN': sight.DEAD,
    'HIDING': sight.DEAD,
    'UNHIDING': sight.WAITING,
    'UNKNOWN': sight.DEAD,
}
SCARCE = ('no more capacity', 'resource_exhausted', 'stockout', 'insufficient', 'quota', 'unavailable', 'timed out')


def check(spec: jobs.Spec) -> None:
    part = hardware.tpu(spec.accelerator)
    if part is None:
        raise usage.UsageError(f'--type={spec.accelerator!r}: a TPU as v5e-16 is wanted')
    if not part.api:
        raise usage.UsageError(
            f'{spec.accelerator}: TPU7x has no queued resources, it comes with GKE only: '
            f'diffusion launch gke --type={spec.accelerator} ...'
        )
    if not spec.zones:
        raise usage.UsageError('tpu-vm needs --zones=us-west4-a,... in the order in which they are tried')
    if not spec.bucket:
        raise usage.UsageError(
            'tpu-vm needs --bucket=gs://...: the hosts share the workdir in it, and it outlives a spot machine'
        )
    if spec.slices != 1:
        raise usage.UsageError('tpu-vm runs one slice: several slices with `diffusion launch gke --slices=...`')


def look(job: memory.Job) -> sight.Sight:
    """Both the request and its machines are looked for: either may be left over without the other."""
    place = (f'--zone={job.state.zone}', *_project(job.spec), '--format=json')
    asked = job.run(_command(('queued-resources', 'list', *place), 'is the request there', again=True))
    made = job.run(_command(('tpu-vm', 'list', *place), 'are its machines there', again=True))
    requests, nodes = listed(asked), listed(made)
    if requests is None or nodes is None:
        return sight.Sight(sight.UNKNOWN, (asked if requests is None else made).said)
    request, node = _named(requests, job.spec.name), _named(nodes, job.spec.name)
    if request is None and node is None:
        return sight.Sight(sight.ABSENT, 'no request')
    if request is None:
        return sight.Sight(sight.DEAD, f'machines without a request, {node.get("state")}', _owner(node))
    state = str((request.get('state') or {}).get('state'))
    inner = ((request.get('tpu') or {}).get('nodeSpec') or [{}])[0].get('node') or {}
    owner = _owner(inner) or _owner(node or {})
    kind = WORDS.get(state, (sight.UNKNOWN, ''))[0]
    if kind != sight.READY:
        return sight.Sight(kind, state, owner)
    if node is None:
        return sight.Sight(sight.WAITING, 'ACTIVE, but machines are not listed', owner)  # lists lag behind
    health = f', {node["health"]}' if node.get('health', 'HEALTHY') != 'HEALTHY' else ''
    job.state.hosts = len(node.get('networkEndpoints') or ()) or hardware.tpu(job.spec.accelerator).hosts
    return sight.Sight(
        NODES.get(str(node.get('state')), sight.UNKNOWN), f'{state}, machines {node.get("state")}{health}', owner
    )


def listed(result: shell.Result) -> list[dict] | None:
    """What a list command of gcloud printed, None where that is no list."""
    if not result.ok:
        return None
    try:
        found = json.loads(result.out)
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, list) and all(isinstance(item, dict) for item in found) else None


def _named(found, name):
    return next((item for item in found if str(item.get('name')).rsplit('/', 1)[-1] == name), None)


def _owner(node):
    return (node.get('labels') or {}).get('launched-by', '')


def request(job: memory.Job) -> None:
    spec = job.spec
    part = hardware.tpu(spec.accelerator)
    words = (
        'queued-resources',
        'create',
        spec.name,
        f'--node-id={spec.name}',
        f'--zone={job.state.zone}',
        f'--accelerator-type={part.api}',
        f'--runtime-version={spec.runtime or part.runtime}',
        f'--labels=launched-by={job.state.owner}',
        *({'spot': ('--spot',), 'reserved': ('--reserved',)}.get(spec.capacity, ())),
        *((f'--network={spec.network}',) if spec.network else ()),
        *((f'--service-account={spec.service_account}',) if spec.service_account else ()),
        *_project(spec),
        '--quiet',
    )
    result = job.run(_command(words, f'asks for {part.hosts} host(s) in {job.state.zone}', timeout=600.0))
    if not result.ok and 'already exists' not in result.error.lower() and 'already_exists' not in result.error.lower():
        scarce = result.code is None or any(word in result.error.lower() for word in SCARCE)
        raise sight.Refusal(result.said, scarce)


def remove(job: memory.Job) -> None:
    """The request with its machines, and machines that have lost their request."""
    place = (f'--zone={job.state.zone}', *_project(job.spec), '--quiet')
    words = ('queued-resources', 'delete', job.spec.name, *place, '--force')
    result = job.run(_command(words, 'removes the request and its machines', timeout=900.0))
    if not result.ok and 'not_found' in result.error.lower().replace(' ', '_'):
        job.run(_command(('tpu-vm', 'delete', job.spec.name, *place), 'removes machines alone', timeout=900.0))


def prepare(job: memory.Job) -> None:
    """Copies tree, agent and job file to every host, and sets all of them up."""
    spec = job.spec
    shell.write(job.folder / 'launch-job.json', hosts.describe(spec, install='tpu'))
    shutil.copyfile(hosts.AGENT, job.folder / 'launch-agent.py')
    shutil.copyfile(memory.root() / 'trees' / f'{spec.tree}.tar.gz', job.folder / 'launch-tree.tar.gz')
    files = ('launch-tree.tar.gz', 'launch-agent.py', 'launch-job.json')
    place = ('--worker=all', f'--zone={job.state.zone}', *_project(spec), '--quiet')
    # Names without a folder: a colon in a path would be taken for a host.
    copy = _command(('tpu-vm', 'scp', *files, f'{spec.name}:', *place), 'copies the packed tree', timeout=900.0)
    result = job.run(dataclasses.replace(copy, cwd=str(job.folder)))
    if not result.ok:
        raise sight.Broken(f'the tree could not be copied: {result.said}')
    result = job.run(_ssh(job, 'all', ('prepare',), 'unpacks, installs, mounts the bucket', timeout=1800.0))
    if not result.ok:
        raise sight.Broken(f'a host could not be set up: {hosts.fault(result)}')


def start(job: memory.Job) -> None:
    hosts.start(job, lambda host, *args, **fields: _ssh(job, host, *args, **fields))


def poll(job: memory.Job) -> list[sight.Worker]:
    return hosts.poll(job, lambda host, *args, **fields: _ssh(job, host, *args, **fields))


def stop(job: memory.Job) -> None:
    hosts.stop(job, lambda host, *args, **fields: _ssh(job, host, *args, **fields))


def _ssh(job, host, words, why, **fields):
    remote = shell.quoted(('python3', 'launch-agent.py', words[0], 'launch-job.json', *words[1:]))
    place = (f'--worker={host}', f'--zone={job.state.zone}', *_project(job.spec), '--quiet')
    return _command(('tpu-vm', 'ssh', job.spec.name, *place, f'--command={remote}'), why, **fields)


def _command(words, why, **fields):
    return shell.Command((*GCLOUD, *words), why, **fields)


def _project(spec):
    return (f'--project={spec.project}',) if spec.project else ()


def billed(run: shell.Run, project: str) -> list[sight.Billed] | str:
    """Everything of all zones, of whoever; a text says why it cannot be told."""
    place = ('--zone=-', *((f'--project={project}',) if project else ()), '--format=json')
    found, rows = {}, []
    for kind in ('queued-resources', 'tpu-vm'):
        result = run(_command((kind, 'list', *place), f'all {kind}'))
        found[kind] = listed(result)
        if found[kind] is None:
            return result.said
    for kind, items in found.items():
        for item in items:
            parts = str(item.get('name')).split('/')
            state = item.get('state')
            state = state.get('state') if isinstance(state, dict) else state
            where = parts[-3] if len(parts) > 3 else str(item.get('zone', '?'))
            rows.append(sight.Billed('tpu-vm', parts[-1], where, str(item.get('acceleratorType') or kind), str(state)))
    return rows
