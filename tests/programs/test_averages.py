"""`diffusion checkpoint ema`: averages made afterwards of the snapshots of a run, and drawing with them."""

import shutil

import numpy as np
import orbax.checkpoint as ocp
import pytest

from diffusion.runtime import manifest, profiles, store
from tests.programs.test_checkpoint import QUICK

PROFILES = ('--config.ema.profiles=0.05,0.1', '--config.ema.snapshot_every=3')


@pytest.fixture(scope='module')
def run(diffusion, tmp_path_factory):
    folder = tmp_path_factory.mktemp('averages') / 'run'
    done = diffusion('train', *QUICK, *PROFILES, f'--workdir={folder}')
    assert done.returncode == 0, done.stderr
    return folder


def arrays(folder):
    """{path: array} of a part of a checkpoint, by Orbax alone."""
    tree = ocp.StandardCheckpointer().restore(folder.resolve())
    flat = {}

    def walk(node, path):
        for key, value in node.items():
            walk(value, f'{path}/{key}') if isinstance(value, dict) else flat.update(
                {f'{path}/{key}': np.asarray(value)}
            )

    walk(tree, '')
    return flat


@pytest.mark.long
def test_an_average_is_the_least_squares_sum_of_all_snapshots(call, run):
    assert store.steps(run / 'snapshots') == [3, 6, 9, 12]
    made = call('checkpoint', 'ema', f'--workdir={run}', '--length=0.07', '--config.runtime.platform=cpu')
    assert made.returncode == 0, made.stderr
    place = run / 'averages' / 'posthoc_0.07' / '12'
    terms = [(step, name) for step in (3, 6, 9, 12) for name in ('power_0.05', 'power_0.1')]
    weights = profiles.combination([(step, profiles.length_of(name)) for step, name in terms], 12, 0.07)
    parts = [arrays(run / 'snapshots' / str(step) / name) for step, name in terms]
    for path, found in arrays(place / 'average').items():
        wanted = sum(weight * part[path].astype(np.float64) for weight, part in zip(weights, parts))
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)
    assert manifest.read(place)['meta']['length'] == 0.07 and manifest.problems(place) == []
    again = call('checkpoint', 'ema', f'--workdir={run}', '--length=0.07')
    assert again.returncode == 2 and 'add --overwrite' in again.stderr
    assert call('checkpoint', 'ema', f'--workdir={run}', '--length=0.07', '--overwrite').returncode == 0


def test_a_length_that_was_kept_comes_back(call, run, tmp_path):
    out = tmp_path / 'mine'
    done = call('checkpoint', 'ema', f'--workdir={run}', '--length=0.1', '--step=9', f'--out={out}')
    assert done.returncode == 0, done.stderr
    kept, found = arrays(run / 'snapshots' / '9' / 'power_0.1'), arrays(out / '9' / 'average')
    assert kept.keys() == found.keys()
    for path in kept:
        np.testing.assert_allclose(found[path], kept[path], rtol=1e-5, atol=1e-6)
    drawn = call('sample', f'--workdir={run}', '--num=2', '--steps=2', f'--weights={out}', f'--out={tmp_path / "out"}')
    assert drawn.returncode == 0 and 'weights of step 9' in drawn.stdout, drawn.stderr
    points = np.load(tmp_path / 'out' / 'points.npy')
    words = ('sample', f'--workdir={run}', '--num=2', '--steps=2')
    for name in ('power_0.1', 'raw'):
        assert call(*words, f'--weights={name}', f'--out={tmp_path / name}').returncode == 0
        assert not np.array_equal(np.load(tmp_path / name / 'points.npy'), points)


def test_a_damaged_snapshot_is_never_averaged(call, run, tmp_path):
    copy = shutil.copytree(run, tmp_path / 'copy')
    (copy / 'snapshots' / '6' / manifest.FILE).write_text('{}')
    done = call('checkpoint', 'ema', f'--workdir={copy}', '--length=0.15')
    assert done.returncode == 2 and 'snapshot of step 6 is damaged' in done.stderr
    shutil.rmtree(copy / 'snapshots' / '6')
    done = call('checkpoint', 'ema', f'--workdir={copy}', '--length=0.15')
    assert done.returncode == 0 and 'of 6 stored averages' in done.stdout, done.stderr


@pytest.mark.parametrize(
    'words,say',
    [
        (['--length=0.5'], 'length 0.5'),
        (['--length=0.1', '--step=4'], 'there are 3, 6, 9, 12'),
        (['--length=0.1', '--config.train.steps=4'], 'fixed by the training'),
    ],
)
def test_a_wrong_call_is_one_line(call, run, words, say):
    done = call('checkpoint', 'ema', f'--workdir={run}', *words)
    assert done.returncode == 2 and say in done.stderr and done.stderr.count('\n') == 1
