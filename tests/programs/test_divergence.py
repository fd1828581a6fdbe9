"""Data that break the training: what is skipped, written down, gone back from and passed over."""

import dataclasses
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from diffusion import build
from diffusion.data import pipeline
from diffusion.programs import replay
from diffusion.runtime import checkpoint, mesh, state

ROOT = pathlib.Path(__file__).parents[2]
BATCH = 16
TOY = (
    '--config=configs/toy2d.py',
    '--config.runtime.platform=cpu',
    '--config.runtime.devices=4',
    '--config.net.width=16',
    '--config.net.depth=1',
    f'--config.train.batch={BATCH}',
    '--config.train.save_every=4',
    '--config.train.log_every=2',
    '--config.train.skips=3',
    '--config.data.examples=1000',
    '--config.preview.num=16',
    '--config.sample.steps=2',
    '--config.sample.batch=16',
)


def ids_of(first, last):
    """The examples of steps first ... last where nothing is passed over."""
    return pipeline.example_ids(np.arange((first - 1) * BATCH, last * BATCH), 1000, 0)


@pytest.fixture
def poisoned(monkeypatch):
    """poisoned(ids): from now on these examples are not numbers."""
    clean = build.source

    def poison(ids):
        def source(config):
            made = clean(config)

            def opened():
                records = made.open()

                def gather(indices):
                    batch = dict(records.gather(indices))
                    bad = np.isin(indices, ids)[:, None, None, None]
                    return {**batch, 'image': np.where(bad, np.float32(np.nan), batch['image'])}

                return dataclasses.replace(records, gather=gather)

            return dataclasses.replace(made, open=opened)

        monkeypatch.setattr(build, 'source', source)

    return poison


def train(call, folder, steps, *flags):
    return call('train', *TOY, f'--config.train.steps={steps}', *flags, f'--workdir={folder}')


def final(folder, step):
    run = json.loads((folder / 'config.json').read_text())
    config = build.resolve('configs/toy2d.py', [flag.removeprefix('--config.') for flag in TOY[1:]])
    made = build.experiment(config, build.facts_from_json(run['facts'], config))
    target = state.abstract(mesh.make(jax.devices()[:4]), made.network.init, made.optimizer, made.memory, made.ema)
    saved = checkpoint.open_existing(folder)
    found, meta = jax.device_get(saved.restore(step, target)), saved.meta(step)
    saved.close()
    return made, target, found, meta


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_bad_step_is_skipped_written_down_and_seen_again(call, poisoned, tmp_path):
    bad = ids_of(6, 6)[[2, 11]]
    poisoned(bad)
    done = train(call, tmp_path / 'run', 8)
    assert done.returncode == 0, done.stderr
    assert 'step 6 skipped: loss nan' in done.stderr and '1 in a row' in done.stderr
    lines = [json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
    assert [line['skipped'] for line in lines if 'skipped' in line] == [0, 0, 0.5, 0]
    assert all(np.isfinite(line['loss']) for line in lines if 'loss' in line)

    folder = tmp_path / 'run' / 'incidents' / '0000006'
    told = json.loads((folder / 'incident.json').read_text())
    assert told['step'] == 6 and told['checkpoint'] == 4 and told['metrics']['loss'] == 'nan'
    assert told['ids'] == ids_of(6, 6).tolist()
    bins = [value for name, value in told['metrics'].items() if name.startswith('loss_sigma_')]
    assert 1 <= bins.count('nan') <= 2 < len(bins)
    assert told['layers'][0][1] == 'nan'

    again = call('train', f'--replay={folder}', '--config.runtime.platform=cpu', '--config.runtime.devices=4')
    assert again.returncode == 0, again.stderr
    seen = json.loads((folder / 'replay.json').read_text())
    assert sorted(seen['examples']) == sorted(bad.tolist())
    assert seen['metrics'] == told['metrics']
    assert [layer['gradient'] for layer in seen['layers'][:10]] == [norm for _, norm in told['layers']]


@pytest.mark.long
def test_what_is_not_broken_here_says_so(call, poisoned, monkeypatch, tmp_path):
    with monkeypatch.context():
        poisoned(ids_of(2, 2))
        assert train(call, tmp_path / 'run', 4).returncode == 0
    poisoned([])
    done = call('train', f'--replay={tmp_path / "run" / "incidents" / "0000002"}')
    assert done.returncode == 1 and 'NOT skipped here' in done.stdout
    done = call('train', f'--replay={tmp_path / "run"}')
    assert done.returncode == 2 and 'is no incident' in done.stderr


@pytest.mark.long
def test_after_some_in_a_row_it_goes_back_and_passes_over_them(call, poisoned, tmp_path):
    """Steps 11 to 13 are bad: back to 8, and on with the data of step 14, as if those between were not there."""
    poisoned(ids_of(11, 13))
    done = train(call, tmp_path / 'run', 16)
    assert done.returncode == 0, done.stderr
    assert 'back to the checkpoint of step 8, passing over 80 examples' in done.stderr
    run, target, found, meta = final(tmp_path / 'run', 16)
    assert meta['position'] == {'step': 16, 'examples': 16 * BATCH + 80} and meta['guard']['rollbacks'] == 1

    _, _, current, _ = final(tmp_path / 'run', 8)
    grid = mesh.make(jax.devices()[:4])
    step = state.jit_step(state.step(run.loss, run.optimizer, run.ema, 0), grid, target)
    current = jax.device_put(current, state.shardings_of(target))
    for number in range(14, 22):
        rows = build.source(run.config).gather(ids_of(number, number))
        current, _ = step(current, mesh.put(grid, run.inputs(rows)))
    equal(found, jax.device_get(current))

    # Killed within the row, it takes the same turns.
    assert train(call, tmp_path / 'again', 12).returncode == 0
    assert final(tmp_path / 'again', 12)[3]['guard'] == {'offset': 0, 'bad': 2, 'last': 12, 'rollbacks': 0}
    done = train(call, tmp_path / 'again', 16)
    assert done.returncode == 0 and 'back to the checkpoint of step 8' in done.stderr
    equal(final(tmp_path / 'again', 16)[2], found)


def test_what_never_recovers_ends_with_70(call, poisoned, tmp_path):
    poisoned(np.arange(1000))
    done = train(call, tmp_path / 'run', 16, '--config.train.rollbacks=2', '--config.train.incidents=4')
    assert done.returncode == 70
    assert 'back to the beginning' in done.stderr and 'had gone back 2 times' in done.stderr
    assert len(list((tmp_path / 'run' / 'incidents').iterdir())) == 4


@pytest.mark.long
def test_the_checkpoint_of_an_incident_outlives_rotation(call, poisoned, tmp_path):
    poisoned(ids_of(6, 6))
    assert train(call, tmp_path / 'run', 20, '--config.train.keep=1').returncode == 0
    assert sorted(int(path.name) for path in (tmp_path / 'run' / 'checkpoints').iterdir()) == [4, 20]
    shutil.rmtree(tmp_path / 'run' / 'incidents')
    assert train(call, tmp_path / 'run', 24, '--config.train.keep=1').returncode == 0
    assert sorted(int(path.name) for path in (tmp_path / 'run' / 'checkpoints').iterdir()) == [24]


def test_culprits_are_found_by_halves():
    asked = []

    def broken_by(rows):
        asked.append(len(rows))
        return bool({3, 40} & set(rows.tolist()))

    assert replay.culprit_rows(broken_by, np.arange(64)) == [3, 40]
    assert len(asked) < 30
