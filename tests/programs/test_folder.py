"""`configs/folder.py` on a folder of one's own: no code, and images that cannot be read are counted and named."""

import json
import types

import numpy as np
import pytest

from diffusion import build
from diffusion.data import sources
from diffusion.programs import badfiles, workdir
from tests.data import written
from tests.programs import conftest

COUNT = 120
FLAGS = (
    '--config=configs/folder.py',
    '--config.runtime.platform=cpu',
    '--config.data.image_size=8',
    '--config.net.width=8',
    '--config.net.multipliers=1,',
    '--config.net.depth=1',
    '--config.net.attention=()',
    '--config.train.batch=24',
    '--config.runtime.devices=1',
    '--config.train.log_every=5',
    '--config.preview.every=0',
    '--config.preview.num=0',
)


@pytest.fixture
def folder(tmp_path):
    """120 pictures in three class folders, one of them cut."""
    path = written.folder(tmp_path / 'images', written.pictures(COUNT))
    cut(path, 7)
    return path


def cut(path, i):
    file = path / f'{written.pictures(COUNT)[i][0]}.png'
    file.write_bytes(file.read_bytes()[:80])


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def train(call, folder, run, *flags):
    return call('train', *FLAGS, f'--config.data.path={folder}', f'--workdir={run}', *flags)


@pytest.mark.long
def test_bad_files_are_counted_named_once_and_end_the_run_when_many(call, folder, tmp_path):
    run, read = tmp_path / 'run', '--config.data.memory=never'
    done = train(call, folder, run, read, '--config.train.steps=5')
    assert done.returncode == 0, done.stderr
    assert lines(run / 'bad_files.jsonl')[0]['name'] == 'bird/007.png'
    assert [line['bad_files'] for line in lines(run / 'metrics.jsonl')] == [1]
    assert json.loads((run / 'config.json').read_text())['facts']['classes'] == list(written.CLASSES)
    # Half a line of a run that was killed, another epoch: named once all the same.
    with (run / 'bad_files.jsonl').open('a') as file:
        file.write('{"index": 9')
    # The set may be moved, and decoded at once, as it is the same.
    folder = folder.rename(tmp_path / 'elsewhere')
    done = train(call, folder, run, '--config.train.steps=10')
    assert done.returncode == 0, done.stderr
    assert (run / 'bad_files.jsonl').read_text().count('bird/007.png') == 1
    assert [line['bad_files'] for line in lines(run / 'metrics.jsonl')] == [1, 1]
    # A second one of 120 is above 1 %: found by reading while it trains, or before where all are decoded.
    cut(folder, 100)
    many = tmp_path / 'many'
    ended = train(call, folder, many, read, '--config.train.steps=10')
    assert ended.returncode == 70
    assert '2 of 120 images cannot be read, more than data.max_bad=0.01' in ended.stderr
    assert {line['index'] for line in lines(many / 'bad_files.jsonl')} == {7, 100}
    refused = train(call, folder, tmp_path / 'refused', '--config.train.steps=10')
    assert refused.returncode == 2
    assert '2 of 120 images cannot be read' in refused.stderr
    assert not (tmp_path / 'refused').exists()


def test_where_all_are_decoded_at_the_start_all_are_named_then(folder, tmp_path):
    cut(folder, 100)
    setup = types.SimpleNamespace(data=sources.images(str(folder), max_bad=0.02), folder=str(tmp_path))
    found = badfiles.BadFiles(setup)
    assert found.count == 2
    assert [one.name for one in badfiles.read(tmp_path / 'bad_files.jsonl')] == ['bird/007.png', 'dog/100.png']
    batch = {**setup.data.gather(np.array([6, 7])), 'index': np.array([6, 7])}
    assert sorted(found.see(batch)) == ['caption', 'image', 'index', 'label']


def test_other_images_are_refused(call, folder, tmp_path):
    run = tmp_path / 'run'
    run.mkdir()
    overrides = [f'data.path={folder}', *(flag.removeprefix('--config.') for flag in FLAGS[1:])]
    config = build.resolve(str(conftest.ROOT / 'configs/folder.py'), overrides)
    workdir.write(str(run), workdir.describe(config, build.facts(config, build.source(config))))
    (folder / f'{written.pictures(COUNT)[3][0]}.txt').write_text('another caption')
    done = train(call, folder, run, '--config.train.steps=5')
    assert done.returncode == 2
    assert 'facts.fingerprint' in done.stderr


def test_no_path_is_one_line(call, tmp_path):
    done = call('train', '--config=configs/folder.py', f'--workdir={tmp_path / "run"}')
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert '--config.data.path=DIR' in done.stderr
    assert not (tmp_path / 'run').exists()


def test_images_without_classes_train_without_them(tmp_path):
    np.save(tmp_path / 'x.npy', np.random.default_rng(0).integers(0, 256, (30, 8, 8), np.uint8))
    overrides = [f'data.path={tmp_path / "x.npy"}', *(flag.removeprefix('--config.') for flag in FLAGS[2:])]
    config = build.resolve(str(conftest.ROOT / 'configs/folder.py'), overrides)
    run = build.experiment(config, build.facts(config, build.source(config)))
    assert (run.facts.shape, run.facts.classes, run.null) == ((8, 8, 1), (), {})
