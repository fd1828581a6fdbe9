"""Options of the training, all at once, on points in the plane."""

import json
import shutil

import jax
import numpy as np
import pytest

from diffusion import build
from diffusion.data import pipeline
from diffusion.runtime import checkpoint, mesh, state
from tests.programs import conftest

OPTIONS = ('train.uncertainty=True', 'train.adaptive=8', 'train.variance_steps=100', 'weighting.name=soft_min_snr')
SMALL = ('net.width=16', 'net.depth=1', 'train.batch=64', 'process.name=LinearLogSNR', 'process.shift=2.0')
CONFIG = str(conftest.ROOT / 'configs/toy2d.py')
WORDS = (
    f'--config={CONFIG}',
    *(f'--config.{override}' for override in (*SMALL, *OPTIONS)),
    '--config.runtime.platform=cpu',
    '--config.train.steps=8',
    '--config.train.save_every=4',
    '--config.train.log_every=2',
    '--config.sampler.name=ancestral',
    '--config.sampler.learned=True',
    '--config.preview.num=8',
    '--config.sample.steps=4',
    '--config.sample.batch=8',
)


def whole_state(folder, step):
    config = json.loads((folder / 'config.json').read_text())['config']
    run = experiment([f'train.{key}={config["train"][key]}' for key in ('adaptive', 'uncertainty', 'variance_steps')])
    target = state.abstract(mesh.make(jax.devices()[:1]), run.network.init, run.optimizer, run.memory)
    saved = checkpoint.open_existing(str(folder))
    found = saved.restore(step, target)
    saved.close()
    return found


def experiment(overrides):
    config = build.resolve(CONFIG, [*SMALL, *overrides])
    return build.experiment(config, build.facts(config, build.source(config)))


def test_a_run_with_every_option_resumes_bit_for_bit_and_is_drawn_from(call, tmp_path):
    whole, halves = tmp_path / 'whole', tmp_path / 'halves'
    assert call('train', *WORDS, f'--workdir={whole}').returncode == 0
    shutil.copytree(whole, halves)
    shutil.rmtree(halves / 'checkpoints' / '8')
    again = call('train', *WORDS, f'--workdir={halves}')
    assert again.returncode == 0 and 'step 4 of 8' in again.stderr
    one, other = (whole_state(folder, 8) for folder in (whole, halves))
    jax.tree.map(np.testing.assert_array_equal, other, one)
    assert one.params['uncertainty']['coefficients'].any() and one.memory['adaptive']['weight'].all()

    line = json.loads((whole / 'metrics.jsonl').read_text().splitlines()[-1])
    ranges = [name for name in line if name.startswith('loss_sigma_')]
    assert {'loss', 'vlb'} <= set(line) and ranges and all(line[name] > 0 for name in ranges)

    drawn = call('sample', f'--workdir={whole}', '--num=8', '--guidance=2', f'--out={tmp_path / "out"}')
    assert drawn.returncode == 0 and 'ancestral sampler' in drawn.stdout, drawn.stderr
    points = np.load(tmp_path / 'out' / 'points.npy')
    assert points.shape == (8, 2) and np.isfinite(points).all()


def test_the_options_do_not_depend_on_the_devices():
    run, seen = experiment(OPTIONS), []
    for devices in (1, 4):
        grid = mesh.make(jax.devices()[:devices], fsdp=min(devices, 2))
        target = state.abstract(grid, run.network.init, run.optimizer, run.memory)
        current = state.create(target, run.network.init, run.optimizer, 0, run.memory)
        step = state.jit_step(state.step(run.loss, run.optimizer, run.ema, 0), grid, target)
        stream = pipeline.batches(build.source(run.config), batch=run.train.batch, seed=0, encode=None)
        for _ in range(12):
            current, metrics = step(current, mesh.put(grid, run.inputs(next(stream))))
        stream.close()
        seen.append(jax.device_get((current.memory, current.params, metrics)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5), *seen)


@pytest.mark.parametrize(
    'word,say',
    [
        ('train.adaptive=1', 'a number of bins, at least 2'),
        ('train.variance_steps=-3', 'steps of a chain, at least 2'),
        ('sampler.eta=0.5', 'contradict each other'),
        ('weighting.name=min_snrr', "did you mean 'min_snr'"),
        ('process.shift=0', 'shift=0.0: must be positive'),
        ('density.name=mode', None),
    ],
)
def test_what_cannot_be_is_refused(call, tmp_path, word, say):
    extra = ['--config.density.scale=5'] if say is None else []
    done = call('train', *WORDS, f'--config.{word}', *extra, f'--workdir={tmp_path / "run"}')
    assert done.returncode == 2 and done.stderr.count('\n') == 1
    assert (say or 'must be in [-1, 1.75]') in done.stderr
    assert not (tmp_path / 'run').exists()


def test_a_variance_that_was_not_learned_and_a_grid_too_fine_are_refused(call, tmp_path):
    words = (f'--config={CONFIG}', '--config.runtime.platform=cpu', f'--workdir={tmp_path / "run"}')
    done = call('train', *words, '--config.sampler.name=ancestral', '--config.sampler.learned=True')
    assert done.returncode == 2 and 'train.variance_steps' in done.stderr
    done = call('train', *words, '--config.grid.name=discrete', '--config.grid.levels=10')
    assert done.returncode == 2 and '18 steps, but there are 10 levels' in done.stderr
    assert not (tmp_path / 'run').exists()
