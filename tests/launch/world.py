"""A cloud of paper for tests: gcloud, kubectl, squeue, sbatch and scancel over one state, in simulated time.

`call` is what each program does with its arguments; the programs on PATH (`programs.py`) run the same function on a
state that lies on disk. A job needs `work` seconds of machines; what it has done is saved every SAVED, as a checkpoint.
Whatever must never be is written into `wrong`: two machines of one job, two programs of it.
"""

import json
import pathlib
import shlex

import yaml

from launch import agent

HOSTS = 2
SAVED = 600.0
BOOT = 120.0


class World(dict):
    """now; work: see above; things: what is there by 'kind/zone/name'; done: s of work saved, by job; wrong; calls."""

    def __init__(self, stored=None):
        super().__init__(
            stored
            or dict(
                now=0.0, things={}, done={}, wrong=[], calls=[], times=[], billed=0.0, faults={}, serial=0, work=4000.0
            )
        )

    def pass_time(self, seconds):
        """In steps, so that what begins or ends in between does so at its time."""
        while seconds > 0:
            step = min(seconds, 30.0)
            seconds -= step
            self['now'] += step
            for key, thing in list(self['things'].items()):
                self._age(key, thing, step)

    def _age(self, key, thing, step):
        if thing['state'] == 'PROVISIONING' and self['now'] - thing['since'] >= BOOT:
            thing.update(state='ACTIVE', since=self['now'])
            if thing['kind'] != 'tpu':
                self.start(thing, range(HOSTS), 0)
        if thing['state'] == 'SUSPENDING' and self['now'] - thing['since'] >= 60:
            thing.update(state='SUSPENDED', since=self['now'])
        if thing['state'] == 'DELETING' and self['now'] - thing['since'] >= 30:
            del self['things'][key]
        if thing['state'] in ('ACTIVE', 'SUSPENDING', 'DELETING'):
            self['billed'] += step
        if self.runs(thing):
            thing['work'] += step
            saved = self['done'].get(thing['name'], 0.0)
            if thing['work'] - saved >= SAVED or thing['work'] >= self['work']:
                self['done'][thing['name']] = thing['work']
            if thing['work'] >= self['work']:
                thing['codes'] = [0] * HOSTS

        if self['now'] >= thing.get('saved_at', 1e18):
            self.save(thing)
        if thing['kind'] == 'slurm' and thing['codes']:
            self._leave(key, thing)

    def _leave(self, key, thing):
        """A batch job that has ended is out of the queue; its script has left the exit status, unless its node died."""
        del self['things'][key]
        if min(thing['codes']) >= 0:
            pathlib.Path(thing['output'].replace('/log-', '/ended-')).write_text(f'{max(thing["codes"])}\n')

    def runs(self, thing):
        return thing['state'] == 'ACTIVE' and len(thing['started']) == HOSTS and not thing['codes']

    def make(self, kind, zone, name, owner, state='PROVISIONING'):
        key = f'{kind}/{zone}/{name}'
        if key in self['things']:
            return False
        self['serial'] += 1
        self['things'][key] = dict(
            kind=kind, zone=zone, name=name, owner=owner, state=state, since=self['now'], started=[], codes=[],
            work=0.0, attempt=0, ready=False, number=self['serial'],
        )  # fmt: skip
        alive = [k for k, t in self['things'].items() if t['name'] == name and t['state'] in ('PROVISIONING', 'ACTIVE')]
        if len(alive) > 1:
            self['wrong'].append(f'two at once: {alive}')
        return True

    def start(self, thing, hosts, attempt):
        for other in self['things'].values():
            if other is not thing and other['name'] == thing['name'] and self.runs(other):
                self['wrong'].append(f'two programs of {thing["name"]}')
        if thing['attempt'] != attempt or not thing['started']:
            if self.runs(thing):
                self['wrong'].append(f'attempt {attempt} beside {thing["attempt"]}')
            thing.update(attempt=attempt, started=[], codes=[], work=self['done'].get(thing['name'], 0.0))
        thing['started'] = sorted({*thing['started'], *hosts})

    def save(self, thing):
        """As a program does that is told to end."""
        if self.runs(thing):
            self['done'][thing['name']] = thing['work']
            thing['codes'] = [75] * HOSTS

    def preempt(self, warned):
        """Takes away what is there; warned: its program is told before."""
        for thing in self['things'].values():
            if thing['state'] in ('ACTIVE', 'PROVISIONING'):
                if warned:
                    self.save(thing)
                if thing['kind'] == 'tpu':
                    thing.update(state='SUSPENDING', since=self['now'], started=[])
                elif not thing['codes']:
                    thing['codes'] = [-9] * HOSTS

    def find(self, kind, name, zone=''):
        return self['things'].get(f'{kind}/{zone}/{name}')


def flags(argv):
    """{name: value} of --name=value."""
    return dict(word[2:].split('=', 1) if '=' in word else (word[2:], '') for word in argv if word.startswith('--'))


def call(world, argv, text=''):
    """(exit status, stdout, stderr) of a program; faults: {what: how many times more} in world['faults']."""
    world['calls'].append(list(argv))
    world['times'].append(world['now'])
    program = {'gcloud': gcloud, 'kubectl': kubectl, 'squeue': squeue, 'sbatch': sbatch, 'scancel': scancel}[argv[0]]
    return program(world, list(argv[1:]), text)


def fault(world, what):
    left = world['faults'].get(what, 0)
    world['faults'][what] = max(left - 1, 0)
    return left > 0


def gcloud(world, argv, text):
    given = flags(argv)
    if argv[:2] == ['storage', 'cp']:
        return 0, '', ''
    noun, verb = argv[2:4]
    zone = given.get('zone', '')
    if verb == 'list':
        if fault(world, 'garbage'):
            return 0, '<html>502 Bad Gateway</html>', ''
        if fault(world, 'silence'):
            return None, '', 'did not answer'
        return 0, json.dumps([shown(t, noun) for t in world['things'].values() if there(t, noun, zone)]), ''
    if verb == 'create':
        if fault(world, 'capacity'):
            return 1, '', 'ERROR: There is no more capacity in the zone "z"; you can try in another zone'
        if fault(world, 'denied'):
            return 1, '', 'ERROR: PERMISSION_DENIED: tpu.googleapis.com has not been used'
        owner = given['labels'].partition('=')[2]
        if not world.make('tpu', zone, argv[4], owner, 'FAILED' if fault(world, 'failed') else 'PROVISIONING'):
            return 1, '', 'ERROR: ALREADY_EXISTS: Resource already exists'
        return (None, '', 'timed out') if fault(world, 'made all the same') else (0, '', '')
    thing = world.find(
        'tpu', argv[4].rstrip(':') if verb != 'scp' else next(w for w in argv if w.endswith(':'))[:-1], zone
    )
    if verb == 'delete':
        return delete(world, thing)
    if thing is None or thing['state'] != 'ACTIVE':
        return 255, '', 'ERROR: ssh: connect to host 10.0.0.2 port 22: Connection refused'
    if verb == 'scp':
        return 0, '', ''
    # What the remote login shell makes of it.
    return host(world, thing, given['worker'], shlex.split(given['command']))


def there(thing, noun, zone):
    made = noun == 'queued-resources' or thing['state'] in ('ACTIVE', 'SUSPENDING')
    return thing['kind'] == 'tpu' and zone in ('-', thing['zone']) and made


def shown(thing, noun):
    place = f'projects/p/locations/{thing["zone"]}/{"queuedResources" if noun != "tpu-vm" else "nodes"}/{thing["name"]}'
    labels = {'launched-by': thing['owner']}
    if noun == 'tpu-vm':
        state = 'READY' if thing['state'] == 'ACTIVE' else 'PREEMPTED'
        return {'name': place, 'state': state, 'labels': labels, 'networkEndpoints': [{}] * HOSTS}
    return {'name': place, 'state': {'state': thing['state']}, 'tpu': {'nodeSpec': [{'node': {'labels': labels}}]}}


def delete(world, thing):
    if thing is None:
        return 1, '', 'ERROR: NOT_FOUND: Resource was not found'
    if thing['kind'] == 'jobset':
        world.save(thing)  # pods have their grace
    if fault(world, 'not deleted'):
        return 1, '', 'ERROR: INTERNAL'
    thing.update(state='DELETING', since=world['now'], started=[])
    return (None, '', 'timed out') if fault(world, 'deleted all the same') else (0, '', '')


def host(world, thing, worker, words):
    assert words[:2] == ['python3', 'launch-agent.py'] and words[3] == 'launch-job.json', words
    action, given = words[2], flags(words)
    said = {}
    if action == 'prepare':
        if fault(world, 'half set up'):
            return 1, agent.MARK + json.dumps({'error': 'pip: exit status 1: no space left on device'}) + '\n', ''
        thing['ready'] = True
    elif fault(world, 'deaf'):
        return 255, '', 'ssh: Connection timed out'
    elif not thing['ready']:
        return 2, '', "python3: can't open file 'launch-agent.py'"
    elif action == 'start':
        attempt = int(given['attempt'])
        if fault(world, 'not started'):
            return 255, '', 'ssh: Connection reset'
        world.start(thing, [int(worker)], attempt)
        said = {'state': 'running'}
    elif action == 'stop':
        world.save(thing)
    elif action == 'poll':
        same = thing['attempt'] == int(given['attempt']) and int(worker) in thing['started']
        code = thing['codes'][int(worker)] if thing['codes'] else None
        said = {'state': 'none'} if not same else {'state': 'running' if code is None else 'ended', 'code': code}
        said |= {'offset': 0, 'log': ''}
    return 0, 'Welcome to Ubuntu\n' + agent.MARK + json.dumps(said) + '\n', ''


def kubectl(world, argv, text):
    given = flags(argv)
    if argv[0] == 'create':
        manifest = yaml.safe_load(text)
        if fault(world, 'capacity'):
            return 1, '', 'Error from server (Forbidden): exceeded quota'
        meta = manifest['metadata']
        made = world.make('jobset', '', meta['name'], meta['labels']['launched-by'])
        return (0, 'created', '') if made else (1, '', 'Error from server (AlreadyExists): jobsets already exists')
    if argv[0] == 'apply':
        return 0, '', ''
    if argv[0] == 'logs':
        return 0, '', ''
    if argv[0] == 'delete':
        thing = world.find('jobset', argv[2])
        return delete(world, thing) if thing else (0, '', '')
    if fault(world, 'garbage'):
        return 0, 'I1125 not json', ''
    if argv[1] == 'jobsets':
        return 0, json.dumps({'items': [jobset(t) for t in world['things'].values() if t['kind'] == 'jobset']}), ''
    if argv[1] == 'jobset':
        thing = world.find('jobset', argv[2])
        return 0, json.dumps(jobset(thing)) if thing else '', ''
    thing = world.find('jobset', given['selector'].partition('=')[2])
    return 0, json.dumps({'items': pods(thing) if thing else []}), ''


def jobset(thing):
    over = {'type': 'Completed' if not any(thing['codes']) else 'Failed', 'status': 'True'}
    meta = {'name': thing['name'], 'labels': {'launched-by': thing['owner']}}
    if thing['state'] == 'DELETING':
        meta['deletionTimestamp'] = 'now'
    return {'metadata': meta, 'status': {'conditions': [over] if thing['codes'] else []}}


def pods(thing):
    """Of a lost node there is no pod any more."""
    items = []
    for index in range(HOSTS):
        code = thing['codes'][index] if thing['codes'] else None
        state = {'running': {}} if code is None else {'terminated': {'exitCode': code}}
        status = {'phase': 'Pending' if thing['state'] == 'PROVISIONING' else 'Running'}
        status['containerStatuses'] = [{'name': 'diffusion', 'state': state}]
        meta = {
            'name': f'{thing["name"]}-job-0-{index}-x',
            'labels': {'batch.kubernetes.io/job-completion-index': str(index)},
        }
        if code is None or code >= 0:
            items.append({'metadata': meta, 'status': status})
    return items


def squeue(world, argv, text):
    if fault(world, 'garbage'):
        return 0, 'slurm_load_jobs error: Unable to contact slurm controller', ''
    if fault(world, 'silence'):
        return 1, '', 'squeue: error: Unable to contact slurm controller'
    rows = []
    for thing in world['things'].values():
        state = {'PROVISIONING': 'PENDING', 'ACTIVE': 'RUNNING'}.get(thing['state'], 'COMPLETING')
        if thing['kind'] == 'slurm':
            mine = f'{thing["name"]}|{state}|{HOSTS}|batch'
            rows.append(f'{thing["number"]}|{state}|{thing["owner"]}' if 'name' in flags(argv) else mine)
    return 0, '\n'.join(rows) + '\n', ''


def sbatch(world, argv, text):
    given = flags(argv)
    if fault(world, 'capacity'):
        return 1, '', 'sbatch: error: QOSMaxSubmitJobPerUserLimit'
    world.make('slurm', '', given['job-name'], given['comment'])
    thing = world.find('slurm', given['job-name'])
    thing['output'] = given['output']
    return (None, '', 'timed out') if fault(world, 'made all the same') else (0, f'{thing["number"]}\n', '')


def scancel(world, argv, text):
    for key, thing in list(world['things'].items()):
        if thing['kind'] == 'slurm' and str(thing['number']) == argv[-1]:
            if 'signal' in flags(argv):
                thing['saved_at'] = world['now'] + 60.0  # saving takes a minute; a second signal would end it unsaved
            else:
                del world['things'][key]
    return 0, '', ''
