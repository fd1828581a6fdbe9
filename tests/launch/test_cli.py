"""Calls as a user types them, with gcloud, kubectl and Slurm's programs on PATH that keep a world on disk."""

import json
import re
import shlex
import subprocess
import sys

import pytest

from diffusion import cli
from launch import memory, pace
from tests.launch import conftest
from tests.launch import world as worlds

CALLS = {
    'tpu-vm': ('--type=v4-16', '--zones=us-west4-a,us-east1-c', '--spot', '--bucket=gs://my-bucket', '--max-hours=9'),
    'gke': ('--type=v4-16', '--bucket=gs://my-bucket', '--max-hours=9', '--secret-env=TOKEN'),
    'slurm': ('--nodes=2', '--gpus=8', '--tasks=gpu', '--max-hours=9'),
}
TRAIN = ('--', 'train', '--config=configs/toy2d.py', '--config.x.y=a b;$(touch x)\'"\nñ')


@pytest.fixture
def launch(on_path, project, monkeypatch, capsys):
    """launch(*words) -> (exit status, stdout, stderr); the clock of supervisors does not wait."""
    monkeypatch.setenv('TOKEN', 'very secret')
    monkeypatch.setattr(pace.Clock, 'sleep', lambda self, seconds: None)
    monkeypatch.setattr('getpass.getuser', lambda: 'me')

    def run(*words):
        capsys.readouterr()
        status = cli.main(['launch', *words])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def commands(printed):
    """The calls in what a dry run prints."""
    text = re.sub(r" <<'EOF'\n.*?\nEOF$", '', printed, flags=re.S | re.M)
    found, lines = [], iter(text.splitlines())
    for line in lines:
        if line.split(' ')[0] in ('gcloud', 'kubectl', 'squeue', 'sbatch', 'scancel'):
            while True:  # a word may hold an end of line
                try:
                    found.append(tuple(shlex.split(line)))
                    break
                except ValueError:
                    line += '\n' + next(lines)
    return set(found)


@pytest.mark.parametrize('target', CALLS)
def test_a_dry_run_prints_what_is_called_and_nothing_else(launch, on_path, target):
    status, printed, _ = launch(target, *CALLS[target], '--dry-run', *TRAIN)
    assert status == 0 and not json.loads(on_path.read_text())['calls'] and not memory.root().exists()
    world = json.loads(on_path.read_text())
    on_path.write_text(json.dumps({**world, 'work': 30.0}))
    status, said, error = launch(target, *CALLS[target], *TRAIN)
    assert status == 0, error
    world = json.loads(on_path.read_text())
    called = {tuple(call) for call in world['calls']}
    # Pods have names that only the cluster knows, and whether any has said anything.
    known = {call for call in called | commands(printed) if call[:2] == ('kubectl', 'logs')}
    assert called - known == commands(printed) - known
    assert world['wrong'] == [] and not [t for t in world['things'].values() if t['state'] != 'DELETING']
    files = [path.read_text() for path in memory.root().rglob('*') if path.suffix in ('.json', '') and path.is_file()]
    assert not any('very secret' in text for text in (printed, said, error, *files, *map(str, called)))
    assert len(files) > 3


def test_the_script_for_slurm_is_one_that_bash_takes_and_says_every_word(launch, tmp_path):
    _, printed, _ = launch('slurm', *CALLS['slurm'], '--dry-run', *TRAIN)
    script = re.search(r"<<'EOF'\n(.*?)\nEOF", printed, re.S)[1]
    subprocess.run(('bash', '-n'), input=script, text=True, check=True)
    assert '--ntasks-per-node=8' in printed and '--gpus-per-node=8' in printed
    one = launch('slurm', '--nodes=2', '--gpus=8', '--max-hours=1', '--dry-run', *TRAIN)[1]
    assert '--ntasks-per-node=1' in one and '--gpus-per-node=8' in one
    # bash itself, with another srun: it is called with the words as they were typed.
    (tmp_path / 'srun').write_text(f'#!{sys.executable}\nimport sys\nprint(sys.argv[1:])\n')
    (tmp_path / 'srun').chmod(0o755)
    line = script[script.index('srun') : script.index('\ncode=')].replace('srun', str(tmp_path / 'srun'), 1)
    said = subprocess.run(('bash', '-c', line), capture_output=True, text=True, check=True).stdout
    assert repr(TRAIN[-1]) in said


def test_status_stop_ls_and_logs_of_a_job_whose_supervisor_is_gone(launch, on_path, monkeypatch):
    waits = iter(range(50))

    def die_when_it_runs(self, seconds):
        next(waits)
        things = json.loads(on_path.read_text())['things'].values()
        if any(len(thing['started']) == worlds.HOSTS for thing in things):
            raise conftest.Crash

    monkeypatch.setattr(pace.Clock, 'sleep', die_when_it_runs)
    with pytest.raises(conftest.Crash):
        launch('tpu-vm', *CALLS['tpu-vm'], '--price=2', *TRAIN)
    status, said, _ = launch('status')
    assert status == 0 and 'ACTIVE, machines READY: the machines are there and billed' in said
    assert 'no supervisor runs, so no limit is kept: diffusion launch resume toy2d' in said and 'in money' in said
    assert 'NOT SUPERVISED' in launch('ls')[1]
    status, said, _ = launch('ls', '--all-zones')
    assert status == 0 and re.search(r'toy2d +tpu-vm +us-west4-a +queued-resources +ACTIVE +yes', said), said
    assert 'attempt 1 is started' in launch('logs', 'toy2d')[1]
    monkeypatch.setattr(pace.Clock, 'sleep', lambda self, seconds: None)
    status, _, said = launch('stop', 'toy2d')
    assert status == 0 and 'nothing is left' in said
    assert not [t for t in json.loads(on_path.read_text())['things'].values() if t['state'] != 'DELETING']
    status, said, _ = launch('status', 'toy2d')
    assert 'over: asked to stop (exit status 75)' in said and 'the same call goes on' in said
    assert launch('resume', 'toy2d')[0] == 2 and launch('stop', 'toy2d')[0] == 0


def test_what_does_not_answer_is_said_to_be_missing(launch, on_path):
    world = json.loads(on_path.read_text())
    on_path.write_text(json.dumps({**world, 'faults': {'garbage': 1}}))
    status, said, _ = launch('ls', '--all-zones')
    assert status == 1 and 'THIS IS NOT ALL: tpu-vm did not answer' in said


def test_another_call_of_a_job_that_is_going_on_is_refused(launch, monkeypatch):
    def die(self, seconds):
        raise conftest.Crash

    monkeypatch.setattr(pace.Clock, 'sleep', die)
    with pytest.raises(conftest.Crash):
        launch('tpu-vm', *CALLS['tpu-vm'], *TRAIN)
    status, _, said = launch('tpu-vm', *CALLS['tpu-vm'], '--max-hours=5', *TRAIN)
    assert status == 2 and 'max_hours' in said and said.count('\n') == 1
    with memory.held(memory.root() / 'toy2d'):
        status, _, said = launch('tpu-vm', *CALLS['tpu-vm'], *TRAIN)
    assert status == 2 and 'is being supervised already' in said


@pytest.mark.parametrize(
    'words,say',
    [
        (('tpuvm',), "did you mean 'tpu-vm'"),
        (('tpu-vm', *CALLS['tpu-vm']), 'nothing to run'),
        (('tpu-vm', '--type=tpu7x-64', *CALLS['tpu-vm'][1:], *TRAIN), 'TPU7x has no queued resources'),
        (('tpu-vm', '--type=v5e-17', *CALLS['tpu-vm'][1:], *TRAIN), 'there are v5e-1, v5e-4'),
        (('tpu-vm', *CALLS['tpu-vm'][:-1], *TRAIN), 'paid by the hour'),
        (('tpu-vm', *CALLS['tpu-vm'], '--reserved', *TRAIN), '--spot or --reserved'),
        (('tpu-vm', *CALLS['tpu-vm'], '--max-cost=5', *TRAIN), '--max-cost needs --price'),
        (('tpu-vm', *CALLS['tpu-vm'], '--nmae=x', *TRAIN), "did you mean '--name'"),
        (('tpu-vm', *CALLS['tpu-vm'], '--name=My Job', *TRAIN), "job name 'My Job'"),
        (('tpu-vm', *CALLS['tpu-vm'], '--secret-env=NOT_SET', *TRAIN), 'no such variable'),
        (('tpu-vm', *CALLS['tpu-vm'], '--secret-env=TOKEN', *TRAIN, '--key=very secret'), 'it would be stored'),
        (('tpu-vm', *CALLS['tpu-vm'], '--setup=nowhere.sh', *TRAIN), 'no file of the packed tree'),
        (('tpu-vm', *CALLS['tpu-vm'], '--workdir=../x', *TRAIN), 'a path in the bucket'),
        (('gke', '--type=h100', '--bucket=b-1', '--max-hours=1', *TRAIN), 'a TPU as v5e-16'),
        (('slurm', *TRAIN), 'needs a time limit'),
        (('slurm', '--tasks=gpu', '--max-hours=1', *TRAIN), 'at least 1'),
        (('local', '--processes=0', *TRAIN), 'at least 1'),
        (('status', 'nobody'), "no job 'nobody'"),
        (('logs', '../x'), 'no name of a job'),
    ],
)
def test_a_wrong_call_is_one_line_and_calls_nothing(launch, on_path, words, say):
    status, _, said = launch(*words)
    assert status == 2 and say in said and said.count('\n') == 1
    assert not json.loads(on_path.read_text())['calls'] and not list(memory.root().glob('*/spec.json'))


def test_help_does_without_jax(project):
    for words in ([], ['tpu-vm'], ['stop']):
        code = (
            'import sys; from diffusion import cli\ntry:\n status = cli.main(["launch", *sys.argv[1:], "--help"])\n'
            'except SystemExit as end:\n status = end.code\n'
            'sys.exit(status or bool({"jax", "numpy", "absl"} & set(sys.modules)))'
        )
        done = subprocess.run((sys.executable, '-c', code, *words), capture_output=True, text=True, check=False)
        assert done.returncode == 0 and 'usage: diffusion launch' in done.stdout, done.stderr


def test_hosts_of_the_world_are_those_of_the_type():
    from launch import hardware

    assert hardware.tpu('v4-16').hosts == worlds.HOSTS
