"""Kubernetes with JobSet, as Google's GKE offers it for TPU and GPU slices: one JobSet an attempt.

The JobSet never restarts by itself (maxRestarts 0): what decides is in one place, the supervisor. The Job has a
deadline, so that its pods end, and their nodes can be given back, also where no supervisor is alive any more.
"""

import json
import shutil

from diffusion import usage
from launch import agent, hardware, hosts, jobset, manifest, memory, shell, sight
from launch import job as jobs

KEEPS = False
LABEL = 'jobset.sigs.k8s.io/jobset-name'
WORDS = {
    'Completed': (sight.READY, 'has ended well: it is removed'),
    'Failed': (sight.READY, 'has ended; the exit statuses of its pods decide what comes next'),
    'Running': (sight.READY, 'runs'),
    'Pending': (sight.WAITING, 'pods wait for nodes: wait; kubectl describe pod says for what'),
    'Suspended': (sight.WAITING, 'is held back by a queue (Kueue): wait'),
    'Deleting': (sight.LEAVING, 'is being deleted: wait'),
}


def check(spec: jobs.Spec) -> None:
    if hardware.tpu(spec.accelerator) is None and not spec.accelerator.startswith('nvidia-'):
        raise usage.UsageError(
            f"--type={spec.accelerator!r}: a TPU as v5e-16, or a GPU by GKE's name, nvidia-h100-80gb"
        )
    if hardware.tpu(spec.accelerator) is None and (not spec.gpus or spec.slices != 1):
        raise usage.UsageError('GPUs on gke: --nodes=N --gpus=GPUS_A_NODE, and no --slices')
    if not spec.bucket:
        raise usage.UsageError(
            'gke needs --bucket=gs://...: it brings the packed tree to the pods and holds the workdir'
        )
    if spec.zones:
        raise usage.UsageError('gke takes no --zones: they are those of the cluster')


def look(job: memory.Job) -> sight.Sight:
    found = _get(job, 'jobset', job.spec.name, '--ignore-not-found')
    if found is None or isinstance(found, str):
        return sight.Sight(sight.UNKNOWN, found or 'kubectl gives no JSON')
    if not found:
        return sight.Sight(sight.ABSENT, 'no JobSet')
    meta = found.get('metadata') or {}
    owner = (meta.get('labels') or {}).get('launched-by', 'someone')
    if meta.get('deletionTimestamp'):
        return sight.Sight(sight.LEAVING, 'Deleting', owner)
    true = _true(found)
    for name in ('Completed', 'Failed', 'Suspended'):
        if name in true:
            return sight.Sight(WORDS[name][0], name, owner)
    pods = _get(job, 'pods', f'--selector={LABEL}={job.spec.name}')
    if not isinstance(pods, dict):
        return sight.Sight(sight.UNKNOWN, str(pods), owner)
    phases = [(pod.get('status') or {}).get('phase') for pod in pods.get('items') or ()]
    state = 'Running' if any(phase not in (None, 'Pending') for phase in phases) else 'Pending'
    return sight.Sight(WORDS[state][0], state, owner)


def _true(found):
    """The conditions of a JobSet that hold."""
    conditions = (found.get('status') or {}).get('conditions') or ()
    return {item.get('type') for item in conditions if item.get('status') == 'True'}


def _get(job, *words):
    """What kubectl prints as JSON: {} for nothing, a text for why there is none."""
    call = ('kubectl', 'get', *words, f'--namespace={job.spec.namespace}', '--output=json')
    result = job.run(shell.Command(call, f'how is the {words[0]}', again=True))
    if not result.ok:
        return result.said
    try:
        found = json.loads(result.out) if result.out.strip() else {}
    except json.JSONDecodeError:
        return f'kubectl prints {result.said}'
    return found if isinstance(found, dict) else f'kubectl prints {result.said}'


def request(job: memory.Job) -> None:
    """Brings the tree into the bucket, then creates: a JobSet that is there already is not made a second time."""
    spec = job.spec
    described = hosts.describe(
        spec,
        install='tpu' if hardware.tpu(spec.accelerator) else 'gpu',
        archive=f'{jobs.MOUNT}/launch/{spec.name}/{spec.tree}-tree.tar.gz',
        bucket='',
    )
    names = tuple(f'{spec.tree}-{what}' for what in ('tree.tar.gz', 'agent.py', 'job.json'))
    shutil.copyfile(memory.root() / 'trees' / f'{spec.tree}.tar.gz', job.folder / names[0])
    shutil.copyfile(hosts.AGENT, job.folder / names[1])
    shell.write(job.folder / names[2], described)
    place = f'gs://{spec.bucket}/launch/{spec.name}/'
    copy, why = ('gcloud', 'storage', 'cp', *names, place), 'brings the packed tree into the bucket'
    _granted(job.run(shell.Command(copy, why, cwd=str(job.folder), timeout=900.0)))
    if spec.secrets:
        apply = ('kubectl', 'apply', '--server-side', '--force-conflicts', '--filename=-')

        def text(values):
            return manifest.yaml(jobset.secret(spec, job.state.owner, values))

        _granted(job.run(shell.Command(apply, 'hands over the secrets', stdin=text, secrets=spec.secrets)))
    create = ('kubectl', 'create', '--filename=-')
    result = job.run(shell.Command(create, 'creates the JobSet', stdin=manifest.yaml(jobset.jobset(job))))
    if 'AlreadyExists' not in result.error:
        _granted(result)


def _granted(result):
    if not result.ok:
        raise sight.Refusal(result.said, result.code is None or 'quota' in result.error.lower())


def remove(job: memory.Job) -> None:
    spec = job.spec
    place = (f'--namespace={spec.namespace}', '--ignore-not-found')
    words = ('kubectl', 'delete', 'jobset', spec.name, *place, '--cascade=foreground')
    job.run(shell.Command(words, 'removes the JobSet with its pods', timeout=600.0))
    if spec.secrets:
        job.run(shell.Command(('kubectl', 'delete', 'secret', f'{spec.name}-env', *place), 'removes the secrets'))


def prepare(job: memory.Job) -> None:
    """Nothing: each pod prepares itself."""


def start(job: memory.Job) -> None:
    """Nothing: the creation was the start."""


def poll(job: memory.Job) -> list[sight.Worker]:
    """A worker a pod. Of a JobSet that has failed, pods that are gone were killed with their node."""
    found = _get(job, 'pods', f'--selector={LABEL}={job.spec.name}')
    state = _get(job, 'jobset', job.spec.name, '--ignore-not-found')
    if not isinstance(found, dict) or not isinstance(state, dict):
        return [sight.Worker(0, 'silent', None, str(found))]
    if not state:
        return [sight.Worker(0, 'gone')]
    over = _true(state) & {'Completed', 'Failed'}
    workers = [_worker(job, pod) for pod in sorted(found.get('items') or (), key=_name)]
    if 'Completed' in over:
        return [sight.Worker(w.host, 'ended', 0, w.text) for w in workers] or [sight.Worker(0, 'ended', 0)]
    if over and not any(worker.state == 'ended' for worker in workers):
        return [sight.Worker(0, 'ended', agent.KILLED, ''.join(worker.text for worker in workers))]
    if over:
        return [w if w.state == 'ended' else sight.Worker(w.host, 'gone', None, w.text) for w in workers]
    return workers or [sight.Worker(0, 'running')]


def _name(pod):
    return str((pod.get('metadata') or {}).get('name'))


def _worker(job, pod):
    meta, status = pod.get('metadata') or {}, pod.get('status') or {}
    notes = {**(meta.get('annotations') or {}), **(meta.get('labels') or {})}
    a_slice = hardware.tpu(job.spec.accelerator)
    host = int(notes.get('batch.kubernetes.io/job-completion-index') or 0)
    host += int(notes.get('jobset.sigs.k8s.io/job-index') or 0) * (a_slice.hosts if a_slice else 0)
    phase = status.get('phase')
    if phase in (None, 'Pending'):
        return sight.Worker(host, 'running')
    text = _log(job, _name(pod), host)
    for container in status.get('containerStatuses') or ():
        ended = (container.get('state') or {}).get('terminated')
        if container.get('name') == 'diffusion' and ended:
            code = int(ended.get('exitCode', 128 + 9))
            return sight.Worker(host, 'ended', code if code <= 128 else 128 - code, text)
    if phase == 'Failed':
        return sight.Worker(host, 'ended', agent.KILLED, text)  # evicted, or its node is gone
    return sight.Worker(host, 'running', None, text)


def _log(job, pod, host):
    """Lines that are new since the last time; each comes with the time at which it was written."""
    last = job.state.read.get(pod, '')
    since = (f'--since-time={last}',) if last else ()
    place = (f'--namespace={job.spec.namespace}', '--container=diffusion', '--timestamps')
    result = job.run(shell.Command(('kubectl', 'logs', pod, *place, *since), f'what pod {host} says', again=True))
    lines = []
    for line in result.out.splitlines() if result.ok else ():
        stamp, _, text = line.partition(' ')
        if stamp > last:
            lines.append(text + '\n')
            job.state.read[pod] = stamp
    return ''.join(lines)


def stop(job: memory.Job) -> None:
    """Pods are told to save by being deleted; kubectl returns when they are gone."""
    remove(job)


def billed(run: shell.Run, project: str) -> list[sight.Billed] | str:
    result = run(shell.Command(('kubectl', 'get', 'jobsets', '--all-namespaces', '--output=json'), 'all JobSets'))
    try:
        items = json.loads(result.out)['items'] if result.ok else None
    except (json.JSONDecodeError, TypeError, KeyError):
        items = None
    if items is None:
        return result.said
    rows = []
    for item in items:
        meta, status = item.get('metadata') or {}, item.get('status') or {}
        true = [c.get('type') for c in status.get('conditions') or () if c.get('status') == 'True']
        said = next((name for name in true if name in ('Completed', 'Failed', 'Suspended')), 'Running')
        if said not in ('Completed', 'Failed'):
            rows.append(sight.Billed('gke', str(meta.get('name')), str(meta.get('namespace')), 'JobSet', said))
    return rows
