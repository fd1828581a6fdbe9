"""A checkpoint of two processes with four devices each, opened by one process on any number of devices."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import ports
from diffusion.runtime import checkpoint, digest, ema, mesh, optimizer, state, store

pytestmark = pytest.mark.pods
ROOT = pathlib.Path(__file__).parents[2]
AVERAGES = ema.EMA(others=(7,), profiles=(0.1,))
# What each of the processes does: a state over all devices, saved four times, two kept; then a damaged one passed over.
WRITE = """
import sys, jax
process, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.config.update('jax_num_cpu_devices', 4)
jax.distributed.initialize(f'127.0.0.1:{port}', 2, process)
from tests.runtime import test_other_topology as here
from diffusion.runtime import checkpoint, manifest
target, made = here.build(jax.devices(), 4)
saved = checkpoint.Checkpoints(folder, keep=2)
for step in (1, 2, 3, 4):
    saved.save(step, made._replace(step=made.step + step), {'position': {'step': step, 'examples': step * 16}})
saved.wait()
if process == 0:
    (saved._store.folder / '4' / manifest.FILE).unlink()
step, said = saved.settle()
back = saved.restore(step, target)
same = all(bool((a == b).all()) for a, b in zip(jax.tree.leaves(back.params), jax.tree.leaves(made.params)))
saved.close()
print(step, len(said), same, int(back.step))
"""
READ = """
import sys, jax
jax.config.update('jax_num_cpu_devices', int(sys.argv[1]))
from tests.runtime import test_other_topology as here
print(here.reopened(sys.argv[2], jax.devices(), int(sys.argv[3])))
"""


def init(key):
    return {'layer': {'kernel': jax.random.normal(key, (32, 16)), 'bias': jnp.arange(16.0)}}


def build(devices, fsdp):
    built = optimizer.adam(clip=1.0)(8)
    target = state.abstract(mesh.make(devices, fsdp), init, built, ema=AVERAGES)
    return target, state.create(target, init, built, 3, ema=AVERAGES)


def reopened(folder, devices, fsdp):
    """[step, examples, hash of the arrays] of the newest checkpoint, as restored on these devices."""
    target, _ = build(devices, fsdp)
    saved = checkpoint.Checkpoints(folder, create=False)
    step = saved.latest()
    back = jax.device_get(saved.restore(step, target))
    examples = saved.meta(step)['position']['examples']
    saved.close()
    return json.dumps([int(back.step), examples, digest.of_arrays(back._replace(step=np.int32(0)))])


def python(code, *words):
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': ''}
    command = [sys.executable, '-c', code, *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp('two') / 'run'
    port = ports.free_pair()
    both = [python(WRITE, process, port, folder) for process in (0, 1)]
    # Gloo says hello on the same stream.
    said = [process.communicate(timeout=120)[0].splitlines()[-1].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    # The damaged step 4 is passed over by both, and process 0 alone has something to say of it.
    assert said == [['3', '2', 'True', '3'], ['3', '0', 'True', '3']]
    return folder


def test_two_processes_rotate_and_agree_on_what_is_good(written):
    assert store.steps(written / checkpoint.FOLDER) == [3]
    assert (written / checkpoint.ASIDE / '4').is_dir()
    assert store.newest_good(written / checkpoint.FOLDER) == (3, [])


@pytest.mark.parametrize('devices,fsdp', [(8, 2), (4, 4), (2, 1), (1, 1)])
def test_it_opens_on_fewer_devices(written, devices, fsdp):
    _, made = build(jax.devices(), 4)
    wanted = digest.of_arrays(jax.device_get(made))
    assert json.loads(reopened(written, jax.devices()[:devices], fsdp)) == [3, 48, wanted]


def test_it_opens_on_more_devices(written):
    process = python(READ, 16, written, 16)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 0 and said.splitlines()[-1] == reopened(written, jax.devices()[:1], 1)
