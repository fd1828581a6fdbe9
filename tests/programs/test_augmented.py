"""A run that is augmented and told so: everything that draws from it or measures it does so at label zero."""

import json

import jax
import numpy as np
import pytest

from diffusion import build
from diffusion.core import augment
from tests.programs import conftest

# What is the U-Net's alone gives way to a network that compiles soon.
TINY = tuple(word for word in conftest.TINY if 'multipliers' not in word)
SMALL = (
    '--config.net.name=DiT',
    '--config.net.patch=4',
    '--config.net.width=16',
    '--config.net.depth=1',
    '--config.net.heads=2',
    '--config.sampler.name=euler',
    '--config.augment.name=edm',
    '--config.augment.p=0.5',
    '--config.train.steps=4',
    '--config.train.accumulate=2',
    '--config.preview.num=4',
    '--config.preview.match=0',
    '--config.runtime.devices=2',
)


@pytest.fixture(scope='module')
def augmented(data_dir, tmp_path_factory):
    """A small augmented run."""
    words = [word.removeprefix('--config.') for word in (*TINY[2:], *SMALL)]
    config = build.resolve(str(conftest.ROOT / 'configs/emoji.py'), [*words, f'data.data_dir={data_dir}'])
    data = build.source(config)
    return build.experiment(config, build.facts(config, data))


@pytest.mark.long
def test_what_draws_is_the_network_at_label_zero(augmented):
    run = augmented
    assert set(run.null) == {'tokens'} and set(run.batch_shapes()) == {'image', 'tokens'}
    params = run.network.init(jax.random.key(0))
    noise = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: leaf + 0.1 * noise.standard_normal(leaf.shape, np.float32), params)
    x = noise.standard_normal((2, 16, 16, 3)).astype(np.float32)
    sigma = np.full(2, 0.5, np.float32)
    cond = {name: np.stack([value] * 2) for name, value in run.null.items()}
    call = jax.jit(run.denoiser)
    drawn = jax.jit(build.denoise(run, params, cond))(x, sigma)
    zero = call(params, x, sigma, {**cond, 'augment': np.zeros((2, 9), np.float32)})
    np.testing.assert_allclose(drawn, zero, rtol=1e-6, atol=1e-6)
    told = call(params, x, sigma, {**cond, 'augment': np.ones((2, 9), np.float32)})
    assert np.abs(told - drawn).max() > 1e-3
    assert params['condition']['augment']['kernel'].shape[0] == augment.edm().labels


@pytest.mark.slow
def test_it_trains_draws_and_is_measured(call, data_dir, tmp_path):
    run = tmp_path / 'run'
    done = call('train', *TINY, *SMALL, f'--config.data.data_dir={data_dir}', f'--workdir={run}')
    assert done.returncode == 0, done.stderr
    losses = [json.loads(line).get('loss', 1.0) for line in (run / 'metrics.jsonl').read_text().splitlines()]
    assert np.all(np.isfinite(losses)) and list((run / 'samples').glob('*.png'))
    done = call('sample', f'--workdir={run}', '--prompt=cat', '--num=2', f'--out={tmp_path / "out"}')
    assert done.returncode == 0, done.stderr
    cheap = ('--solver=bosh3', '--rtol=1e-1', '--atol=1e-1', '--num=8', '--batch=8', '--probes=1')
    done = call('evaluate', f'--workdir={run}', '--metrics=bpd', *cheap)
    assert done.returncode == 0, done.stderr
    refused = call('sample', f'--workdir={run}', '--prompt=cat', '--config.augment.p=0.1', f'--out={tmp_path / "two"}')
    assert refused.returncode == 2 and 'fixed by the training' in refused.stderr
