"""Real processes of this machine: asked to stop they save; killed again and again they end as if left alone."""

import os
import signal
import subprocess
import sys
import time

import pytest

from diffusion.runtime import digest, manifest
from launch import memory
from tests import conftest as top
from tests.launch import conftest

STEPS = 160
TRAIN = (
    'train',
    '--config=configs/toy2d.py',
    '--config.runtime.platform=cpu',
    '--config.runtime.devices=2',
    '--config.net.width=16',
    '--config.net.depth=1',
    '--config.train.batch=64',
    '--config.train.save_every=40',
    '--config.train.log_every=1',
    f'--config.train.steps={STEPS}',
    '--config.train.adaptive=8',
    '--config.data.examples=1000',
    '--config.preview.every=0',
    '--config.preview.num=0',
)


def hashes(folder):
    """Of every part of the last checkpoint."""
    saved = folder / 'checkpoints' / str(STEPS)
    return {name: digest.of_saved(saved / name) for name in manifest.read(saved)['items']}


def logged(folder):
    path = folder / 'metrics.jsonl'
    return path.read_text().count('"loss"') if path.exists() else 0


def wait(condition, supervisor, seconds=400):
    end = time.monotonic() + seconds
    while not condition() and supervisor.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_two_processes_killed_and_preempted_end_with_the_undisturbed_runs_hash(tmp_path, monkeypatch):
    """Three blows: SIGKILL of one program, SIGTERM of one, SIGKILL of the supervisor, which another takes over from."""
    home = tmp_path / 'home'
    monkeypatch.setenv('DIFFUSION_LAUNCH_HOME', str(home))
    monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', top.CACHE)

    def launch(name, again=False):
        flags = ('--processes=2', f'--name={name}', f'--workdir={tmp_path / name}')
        words = ('resume', name) if again else ('local', *flags, '--', *TRAIN)
        call = (sys.executable, '-m', 'diffusion.cli', 'launch', *words)
        return subprocess.Popen(call, cwd=conftest.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    undisturbed = launch('undisturbed')
    assert undisturbed.wait(400) == 0, (home / 'undisturbed' / 'log').read_text()
    supervisor, folder, run = launch('killed'), home / 'killed', tmp_path / 'killed'

    def pid(host):
        return memory.json.loads((folder / f'host-{host}' / 'attempt').read_text())['pid']

    blows = [
        lambda: os.kill(pid(1), signal.SIGKILL),
        lambda: os.kill(pid(0), signal.SIGTERM),
        lambda: supervisor.kill(),
    ]
    for number, blow in enumerate(blows):
        wait(lambda mark=(number + 1) * STEPS // 5: logged(run) >= mark, supervisor)
        blow()
        if number == 2:
            assert supervisor.wait(60) == -signal.SIGKILL
            supervisor = launch('killed', again=True)
    assert supervisor.wait(400) == 0, (folder / 'log').read_text()
    assert memory.load(folder).attempt == 3  # the killed supervisor took no program with it
    assert hashes(run) == hashes(tmp_path / 'undisturbed')
    said = (folder / 'log').read_text()
    assert '-9' in said and '75, 75' in said and '[0] ' in said
    for host in (0, 1):
        with pytest.raises(ProcessLookupError):
            os.kill(pid(host), 0)


@pytest.mark.parametrize('how', ['signal', 'command', 'after a crash'])
def test_a_job_that_is_asked_to_stop_saves_and_leaves_no_process(here, tmp_path, how):
    supervisor = here('local', '--processes=2', '--name=toy', '--', 'save')
    log = tmp_path / 'home' / 'toy' / 'log'
    wait(lambda: log.exists() and log.read_text().count('ready') == 2, supervisor)
    pids = [int(path.name) for path in (tmp_path / 'starts').iterdir()]
    if how == 'signal':
        supervisor.send_signal(signal.SIGINT)
    elif how == 'after a crash':
        supervisor.kill()
        supervisor.wait()
    if how != 'signal':
        assert here('stop', 'toy').wait(60) == 0
    assert supervisor.wait(60) == (-9 if how == 'after a crash' else 75)
    said = log.read_text()
    assert said.count('saved') == 2 and 'nothing is left' in said
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_supervisor_in_the_background_is_followed_by_its_log(here, tmp_path):
    assert here('local', '--detach', '--name=toy', '--', 'end', '2').wait(60) == 0
    said = here('logs', 'toy', '--follow').communicate(timeout=60)[0]
    assert "[0] ['end', '2'] None" in said and 'ended with 2' in said
    assert 'over: ended with 2' in here('ls').communicate(timeout=60)[0]
