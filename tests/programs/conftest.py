"""Programs as a user runs them: in this process where that is enough, in one of their own where it is not."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from diffusion import cli
from tests import conftest

ROOT = pathlib.Path(__file__).parents[2]
# The smallest text-to-image run there is: seconds to compile, nothing worth looking at.
TINY = (
    '--config=configs/emoji.py',
    '--config.runtime.platform=cpu',
    '--config.net.width=8',
    '--config.net.multipliers=1,2',
    '--config.net.text_width=8',
    '--config.train.steps=8',
    '--config.train.batch=16',
    '--config.train.log_every=2',
    '--config.train.save_every=4',
    '--config.preview.every=0',
    '--config.preview.num=10',
    '--config.preview.match=5',
    '--config.sample.steps=3',
    '--config.sample.batch=8',
)


@pytest.fixture(scope='session')
def diffusion(data_dir, tmp_path_factory):
    """diffusion(*words) -> CompletedProcess of `diffusion WORDS` in the project's folder."""
    environment = {
        **os.environ,
        'TFDS_DATA_DIR': data_dir,
        'JAX_COMPILATION_CACHE_DIR': conftest.CACHE,
        'JAX_DEBUG_KEY_REUSE': '1',
    }

    def run(*words, start=False, **extra):
        command = [sys.executable, '-m', 'diffusion.cli', *map(str, words)]
        kwargs = dict(cwd=ROOT, env={**environment, **extra}, text=True)
        if start:
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kwargs)
        return subprocess.run(command, capture_output=True, timeout=300, check=False, **kwargs)

    return run


@pytest.fixture
def call(capsys, monkeypatch):
    """call(*words) -> CompletedProcess of `diffusion WORDS` run in this process, which is seconds faster."""
    monkeypatch.chdir(ROOT)

    def run(*words):
        capsys.readouterr()
        status = cli.main([str(word) for word in words])
        said = capsys.readouterr()
        return subprocess.CompletedProcess(words, status, said.out, said.err)

    return run


@pytest.fixture(scope='session')
def trained(diffusion, tmp_path_factory):
    """The workdir of a tiny run that has all its steps."""
    folder = tmp_path_factory.mktemp('runs') / 'tiny'
    done = diffusion('train', *TINY, f'--workdir={folder}')
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def copied(trained, tmp_path):
    """copied(name) -> a workdir like `trained`'s, without results, to be written into. It lies beside that one, so that
    they share a classifier."""

    def copy(name='run'):
        folder = trained.parent / f'{tmp_path.name}-{name}'
        shutil.copytree(trained, folder, ignore=shutil.ignore_patterns('eval'))
        return folder

    return copy


@pytest.fixture(scope='session')
def points(diffusion, tmp_path_factory):
    """An unconditional run in the plane."""
    folder = tmp_path_factory.mktemp('points') / 'run'
    flags = ('--config.train.labels=false', '--config.train.steps=400', '--config.train.save_every=400')
    done = diffusion('train', '--config=configs/toy2d.py', *flags, f'--workdir={folder}')
    assert done.returncode == 0, done.stderr
    return folder
