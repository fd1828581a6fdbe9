"""The same run on any layout of devices: what a training computes does not depend on where."""

import pathlib

import jax
import numpy as np
import pytest

from diffusion import build
from diffusion.data import pipeline
from diffusion.runtime import mesh, state

ROOT = pathlib.Path(__file__).parents[1]
NETS = {
    'UNet': ['net.width=8', 'net.multipliers=1,2', 'net.attention=1', 'net.cross_attention=1'],
    'DiT': ['net.name=DiT', 'net.patch=4', 'net.width=32', 'net.depth=2', 'net.heads=2', 'net.text_width=16'],
}


def train(data_dir, overrides, devices, fsdp, steps=20):
    """Losses [steps] and the final parameters."""
    batch = 16
    config = build.resolve(
        str(ROOT / 'configs/emoji.py'),
        [f'data.data_dir={data_dir}', f'train.batch={batch}', 'net.dropout=0.1', *overrides],
    )
    data = build.source(config)
    run = build.experiment(config, build.facts(config, data))
    grid = mesh.make(jax.devices()[:devices], fsdp)
    target = state.abstract(grid, run.network.init, run.optimizer)
    current = state.create(target, run.network.init, run.optimizer, 0)
    advance = state.step(run.loss, run.optimizer, run.ema, 0)
    step = state.jit_step(advance, grid, target).lower(target, run.batch_shapes()).compile()
    stream = pipeline.batches(data, batch=batch, seed=0, encode=run.facts.tokenizer.encode)
    losses = []
    for _ in range(steps):
        with jax.transfer_guard('disallow'):
            current, metrics = step(current, mesh.put(grid, run.inputs(next(stream))))
        losses.append(float(jax.device_get(metrics['loss'])))
    stream.close()
    return np.array(losses), jax.device_get(current.params)


@pytest.mark.parametrize('net', NETS)
def test_losses_agree_on_one_and_eight_devices(net, data_dir):
    one, _ = train(data_dir, NETS[net], 1, 1)
    assert one[-5:].mean() < one[:5].mean()
    for devices, fsdp in ((8, 1), (8, 4)):
        other, _ = train(data_dir, NETS[net], devices, fsdp)
        np.testing.assert_allclose(other[0], one[0], rtol=1e-6)
        np.testing.assert_allclose(other, one, rtol=1e-4)
