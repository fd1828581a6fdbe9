"""A run goes on on other devices where it stopped, with the next examples."""

import json
import shutil

import numpy as np
import pytest

from diffusion.runtime import checkpoint, manifest
from tests.programs.test_checkpoint import QUICK

pytestmark = pytest.mark.pods

MOVES = ([1, 1], [2, 1], [4, 4], [16, 2])


def on(devices, fsdp):
    return (f'--config.runtime.devices={devices}', f'--config.runtime.fsdp={fsdp}')


@pytest.fixture(scope='module')
def begun(diffusion, tmp_path_factory):
    """Six steps on 8 devices, the parameters split over 4."""
    folder = tmp_path_factory.mktemp('eight') / 'run'
    done = diffusion('train', *QUICK, *on(8, 4), '--config.train.steps=6', f'--workdir={folder}')
    assert done.returncode == 0, done.stderr
    return folder


def test_it_goes_on_on_any_number_of_devices(diffusion, call, begun, tmp_path):
    losses, position = {}, {}
    for devices, fsdp in ([8, 4], *MOVES):
        folder = shutil.copytree(begun, tmp_path / str(devices))
        here = call if devices <= 8 else diffusion  # this process has eight
        done = here('train', *QUICK, *on(devices, fsdp), f'--workdir={folder}')
        assert done.returncode == 0 and 'goes on where it stopped: step 6 of 12' in done.stderr, done.stderr
        lines = map(json.loads, (folder / 'metrics.jsonl').read_text().splitlines())
        losses[devices] = [line['loss'] for line in lines if line['step'] > 6]
        position[devices] = manifest.read(folder / checkpoint.FOLDER / '12')['meta']['position']
    assert all((found['step'], found['examples']) == (12, 192) for found in position.values())
    for devices, _ in MOVES:
        np.testing.assert_allclose(losses[devices], losses[8], rtol=1e-5)
