"""What the platform tells JAX alone: its preemption service stops both of two processes at one check-point."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from diffusion import ports

pytestmark = pytest.mark.pods
ROOT = pathlib.Path(__file__).parents[2]
# SIGTERM is left to JAX, for which it stands for a notice.
JOB = """
import signal, sys, time
import jax
from jax.experimental import multihost_utils
from diffusion.runtime import preemption
jax.config.update('jax_platforms', 'cpu')
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]), cluster_detection_method='deactivate')
with preemption.listening(print, numbers=(signal.SIGINT,)) as stop:
    for step in range(1, 1000):
        multihost_utils.sync_global_devices('step')
        if step == 3:
            print('ready', flush=True)
        if stop.reached():
            print('at', step, flush=True)
            break
        time.sleep(0.02)
"""


def test_a_notice_stops_both_processes_at_one_check_point():
    address = f'localhost:{ports.free_pair()}'
    both = [
        subprocess.Popen(
            [sys.executable, '-c', JOB, address, str(process)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, 'JAX_NUM_CPU_DEVICES': '1'},
        )
        for process in range(2)
    ]
    try:
        while (line := both[0].stdout.readline()) != 'ready\n':  # Gloo talks too
            assert line, both[0].communicate(timeout=60)[1]
        both[1].send_signal(signal.SIGTERM)
        said = [each.communicate(timeout=60) for each in both]
    finally:
        for each in both:
            each.kill()
    ends = [out.splitlines()[-2:] for out, _ in said]
    assert ends[0] == ends[1] and ends[0][0] == 'maintenance notice' and ends[0][1].startswith('at '), said
