"""A job on a cloud of paper, looked after by the real supervisor in simulated time."""

import dataclasses
import os
import pathlib
import stat
import subprocess
import sys

import pytest

from launch import job as jobs
from launch import memory, pace, shell, supervisor, tree
from tests.launch import world as worlds

ROOT = pathlib.Path(__file__).parents[2]
TPU = dict(accelerator='v4-16', zones=('us-west4-a', 'us-east1-c'), bucket='my-bucket', workdir='/tmp/bucket/runs/toy')
KINDS = {
    'tpu-vm': dict(TPU, capacity='spot'),
    'gke': dict(accelerator='v4-16', bucket='my-bucket', workdir='/tmp/bucket/runs/toy', secrets=('TOKEN',)),
    'slurm': dict(hosts=2, gpus=1),
}


class Crash(BaseException):
    """The supervisor is killed; no handler of errors sees it."""


@dataclasses.dataclass
class Simulation:
    """A supervisor on `world`; crash: calls until it is killed, before or after what it called has happened."""

    world: worlds.World
    spec: jobs.Spec
    folder: pathlib.Path
    plan: list = dataclasses.field(default_factory=list)  # (time, what to do to the world)
    said: list = dataclasses.field(default_factory=list)
    asked: str = ''
    crash: tuple = ()

    def now(self):
        return self.world['now']

    def sleep(self, seconds):
        """Time passes up to the next planned event, and so on."""
        end = self.world['now'] + max(seconds, 1.0)
        while self.plan and self.plan[0][0] <= end:
            at, event = self.plan.pop(0)
            self.world.pass_time(max(at - self.world['now'], 0.0))
            event(self.world)
        self.world.pass_time(max(end - self.world['now'], 0.0))

    def run(self, command):
        left, after = self.crash or (None, None)
        if left is not None:
            self.crash = (left - 1, after)
            if left == 0 and not after:
                raise Crash
        self.world.pass_time(2.0)
        code, out, error = worlds.call(self.world, command.argv, command.input(dict(os.environ)))
        if left == 0:
            raise Crash
        return shell.Result(code, out, error)

    def supervise(self, **pacing):
        """The exit status of a supervisor that remembers what an earlier one has left."""
        state = memory.create(self.spec, self.folder)
        job = memory.Job(self.spec, state, self.folder, self.run, self.said.append, together=False)
        job.save()
        made = supervisor.Supervisor(job, self, pace.Pace(**pacing), lambda: self.asked, lambda host, text: None)
        return made.run()

    def state(self):
        return memory.load(self.folder)


@pytest.fixture
def simulated(tmp_path, monkeypatch):
    """simulated(target, **fields of the spec) -> a Simulation."""
    monkeypatch.setenv('DIFFUSION_LAUNCH_HOME', str(tmp_path))
    monkeypatch.setenv('TOKEN', 'very secret')
    (tmp_path / 'trees').mkdir()
    (tmp_path / 'trees' / 'abc.tar.gz').write_bytes(TREE)

    def make(target, **fields):
        known = dict(name='toy', words=('train', '--config=configs/toy2d.py'), tree='abc', max_hours=1000.0)
        spec = jobs.Spec(target=target, **{**known, **KINDS[target], **fields})
        return Simulation(worlds.World(), spec, tmp_path / spec.name)

    return make


TREE = tree.archive({'pyproject.toml': (0o644, b'', '')})
PROGRAM = """#!{python}
import fcntl, json, sys, pathlib
sys.path.insert(0, {root!r})
from tests.launch import world as worlds
path = pathlib.Path({state!r})
given = '' if sys.stdin.isatty() else sys.stdin.read()
with path.with_suffix('.lock').open('w') as lock:  # hosts are called side by side
    fcntl.flock(lock, fcntl.LOCK_EX)
    world = worlds.World(json.loads(path.read_text()))
    world.pass_time(30.0)
    code, out, error = worlds.call(world, [{name!r}, *sys.argv[1:]], given)
    path.write_text(json.dumps(world))
sys.stdout.write(out)
sys.stderr.write(error)
sys.exit(code)
"""


@pytest.fixture
def on_path(tmp_path, monkeypatch):
    """Programs named as the real ones, first on PATH, with a world on disk; returns the path of that."""
    state, programs = tmp_path / 'world.json', tmp_path / 'bin'
    state.write_text(worlds.json.dumps(worlds.World()))
    programs.mkdir()
    for name in ('gcloud', 'kubectl', 'squeue', 'sbatch', 'scancel'):
        text = PROGRAM.format(python=sys.executable, root=str(ROOT), state=str(state), name=name)
        (programs / name).write_text(text)
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv('PATH', f'{programs}{os.pathsep}{os.environ["PATH"]}')
    monkeypatch.setenv('DIFFUSION_LAUNCH_HOME', str(tmp_path / 'home'))
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    return state


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A small working tree of git, and the current folder."""
    folder = tmp_path / 'project'
    (folder / 'configs').mkdir(parents=True)
    (folder / 'pyproject.toml').write_text('[project]\nname = "diffusion"\n')
    (folder / 'configs' / 'toy2d.py').write_text('get_config = None\n')
    (folder / '.gitignore').write_text('runs/\n')
    for words in (('init', '-q'), ('add', '-A')):
        subprocess.run(('git', '-C', str(folder), *words), check=True)
    monkeypatch.chdir(folder)
    return folder


# What runs in place of `diffusion`: says its words and a variable, then does what the first word says.
WAITING = b"""
import os, pathlib, signal, sys, time
print(sys.argv[1:], os.environ.get('TOKEN'), flush=True)
with open(os.path.join(os.environ['STARTS'], str(os.getpid())), 'w'):
    pass
if sys.argv[1] == 'end':
    sys.exit(int(sys.argv[2]))
if sys.argv[1] == 'save':
    signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), os._exit(75)))
if sys.argv[1] == 'stubborn':
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('ready', flush=True)
time.sleep(300)
"""


@pytest.fixture
def here(project, tmp_path, monkeypatch):
    """here(*words) starts `diffusion launch WORDS` in a project whose program only waits to be told to save."""
    (project / 'diffusion').mkdir()
    (project / 'diffusion' / '__init__.py').write_text('')
    (project / 'diffusion' / 'cli.py').write_bytes(WAITING)
    (tmp_path / 'starts').mkdir()
    monkeypatch.setenv('STARTS', str(tmp_path / 'starts'))
    monkeypatch.setenv('DIFFUSION_LAUNCH_HOME', str(tmp_path / 'home'))
    monkeypatch.setenv('PYTHONPATH', str(ROOT))

    def start(*words):
        # -P: the launcher is this project's, and not the one in the current folder.
        call = (sys.executable, '-P', '-m', 'diffusion.cli', 'launch', *words)
        return subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    return start
