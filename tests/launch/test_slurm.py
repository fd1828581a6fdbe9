"""A real Slurm of one node, where it is installed: it runs the job, one task a GPU, takes it away once, and goes on."""

import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

from diffusion import ports
from tests import conftest as top
from tests.launch import conftest
from tests.launch import test_local as local

CONFIG = """
ClusterName=one
SlurmctldHost={host}
SlurmctldPort={port}
SlurmdPort={other}
AuthType=auth/none
CredType=cred/none
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} Gres=gpu:2 State=UNKNOWN
PartitionName=batch Nodes=ALL Default=YES State=UP
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Slurm's daemons with two devices that stand for GPUs; their settings are in the environment."""
    if not shutil.which('slurmctld') or not shutil.which('slurmd') or os.geteuid():
        pytest.skip('Slurm is not installed here, or this is not root: apt-get install slurm-wlm')
    folder = tmp_path / 'slurm'
    for part in ('state', 'spool'):
        (folder / part).mkdir(parents=True)
    host = socket.gethostname().split('.')[0]
    port = ports.free_pair()
    text = CONFIG.format(folder=folder, host=host, port=port, other=port + 1, cores=os.cpu_count())
    (folder / 'slurm.conf').write_text(text)
    (folder / 'gres.conf').write_text('Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n')
    monkeypatch.setenv('SLURM_CONF', str(folder / 'slurm.conf'))
    daemons = [subprocess.Popen((name, '-D'), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
               for name in ('slurmctld', 'slurmd')]  # fmt: skip
    end = time.monotonic() + 60
    while 'idle' not in subprocess.run(('sinfo', '-h', '-o', '%t'), capture_output=True, text=True, check=False).stdout:
        assert time.monotonic() < end, (folder / 'slurmctld.log').read_text()
        time.sleep(0.5)
    yield folder
    subprocess.run(('scancel', '--name=toy'), check=False)
    end = time.monotonic() + 60
    while subprocess.run(('squeue', '-h'), capture_output=True, check=False).stdout and time.monotonic() < end:
        time.sleep(0.5)
    for daemon in reversed(daemons):
        daemon.terminate()
        daemon.wait(30)


@pytest.mark.slow
def test_a_real_slurm_runs_the_job_and_goes_on_after_it_was_taken_away(cluster, tmp_path, monkeypatch):
    home, run = tmp_path / 'home', tmp_path / 'run'
    monkeypatch.setenv('DIFFUSION_LAUNCH_HOME', str(home))
    monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', top.CACHE)
    flags = ('--gpus=2', '--tasks=gpu', '--max-hours=0.5', f'--workdir={run}', '--name=toy')
    call = (sys.executable, '-m', 'diffusion.cli', 'launch', 'slurm', *flags, '--', *local.TRAIN)
    supervisor = subprocess.Popen(call, cwd=conftest.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    local.wait(lambda: local.logged(run) >= local.STEPS // 3, supervisor)
    subprocess.run(('scancel', '--signal=TERM', '--name=toy'), check=True)
    assert supervisor.wait(400) == 0, (home / 'toy' / 'log').read_text()
    said = (home / 'toy' / 'log').read_text()
    assert 'attempt 1 ended with 75' in said and 'attempt 2 is started' in said
    assert '0: ' in said and '2 cpu device(s) of 2 processes' in said and 'goes on where it stopped' in said
    assert subprocess.run(('squeue', '-h'), capture_output=True, text=True, check=True).stdout == ''


@pytest.mark.slow
def test_a_real_slurm_lets_the_tasks_save_and_leaves_none(cluster, here, tmp_path):
    """Told to save by Slurm it is submitted again; told by the user it saves, once, and is gone."""
    supervisor = here('slurm', '--gpus=2', '--tasks=gpu', '--max-hours=0.5', '--name=toy', '--', 'save')
    log, starts = tmp_path / 'home' / 'toy' / 'log', tmp_path / 'starts'
    local.wait(lambda: len(list(starts.iterdir())) == 2, supervisor)
    time.sleep(2)
    subprocess.run(('scancel', '--signal=TERM', '--name=toy'), check=True)
    local.wait(lambda: len(list(starts.iterdir())) == 4, supervisor)
    time.sleep(2)
    assert here('stop', 'toy').wait(200) == 0 and supervisor.wait(60) == 75
    said = log.read_text()
    assert 'attempt 1 ended with 75: stopped with all saved, goes on' in said
    assert said.count('0: saved') == said.count('1: saved') == 2 and 'nothing is left' in said
    assert subprocess.run(('squeue', '-h'), capture_output=True, text=True, check=True).stdout == ''
