"""What is compiled where a program starts again, or is asked for something else: nothing."""

import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from diffusion.runtime import compilation
from tests.programs import conftest

TOY = (
    '--config=configs/toy2d.py',
    '--config.train.steps=4',
    '--config.train.save_every=4',
    '--config.train.batch=16',
    '--config.net.width=16',
    '--config.net.depth=1',
    '--config.preview.num=8',
    '--config.sample.steps=3',
)


def missed(call, *words):
    """How many programs a call compiled; it must be in order."""
    before = compilation.TALLY.missed
    done = call(*words)
    assert done.returncode == 0, done.stderr
    return compilation.TALLY.missed - before


def test_other_values_of_a_sample_compile_nothing(call, trained, tmp_path):
    sample = ('sample', f'--workdir={trained}', '--config.runtime.platform=cpu')
    missed(call, *sample, '--num=3', '--guidance=2', '--prompt=cat face', f'--out={tmp_path}/a')
    other = ('--seeds=70-73', '--guidance=4', '--prompt=a dog', '--config.grid.rho=5', f'--out={tmp_path}/b')
    assert missed(call, *sample, *other) == 0


@pytest.mark.long
def test_other_values_of_an_edit_compile_nothing(call, trained, tmp_path):
    for name in 'ab':
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (16, 16, 4), np.uint8)
        pixels[..., 3] = 255
        pixels[4:9, 4:9, 3] = 0
        Image.fromarray(pixels).save(tmp_path / f'{name}.png')
    for action, first, second in (
        ('inpaint', ('--num=3', '--prompt=cat', '--guidance=2'), ('--num=4', '--prompt=dog', '--guidance=3')),
        ('invert', ('--prompt=cat', '--guidance=1.5'), ('--prompt=dog', '--guidance=1.25')),
    ):
        edit = ('edit', action, f'--workdir={trained}', '--config.runtime.platform=cpu')
        missed(call, *edit, f'--image={tmp_path}/a.png', *first, f'--out={tmp_path}/{action}-a')
        assert missed(call, *edit, f'--image={tmp_path}/b.png', *second, f'--out={tmp_path}/{action}-b') == 0, action


@pytest.mark.long
def test_second_start_of_a_job_compiles_nothing(diffusion, tmp_path):
    """The cache is that of the workdirs' parent, as a user has it."""
    said = []
    for name in 'ab':
        done = diffusion('train', *TOY, f'--workdir={tmp_path}/{name}', JAX_COMPILATION_CACHE_DIR='')
        assert done.returncode == 0, done.stderr
        said.append(re.search(r'compile: (\d+) missed, (\d+) from the cache', done.stderr))
    first, second = ([int(count) for count in found.groups()] for found in said)
    assert first[0] > 0 and first[1] == 0
    assert second == [0, first[0]]
    drawn = [
        diffusion('sample', f'--workdir={tmp_path}/a', f'--out={tmp_path}/{out}', JAX_COMPILATION_CACHE_DIR='').stdout
        for out in 'cd'
    ]
    assert 'compile: 0 missed' in drawn[1], drawn


def test_wiring_a_run_touches_no_device():
    """What starts JAX's backend before a program has said how many devices there are leaves a CPU with one."""
    code = (
        'from diffusion import build\n'
        'from jax._src import xla_bridge\n'
        "config = build.resolve('configs/emoji.py', [])\n"
        'build.experiment(config, build.facts(config, build.source(config)))\n'
        'assert not xla_bridge.backends_are_initialized()\n'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=conftest.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
