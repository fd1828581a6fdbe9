"""The two networks of the benchmark are one network."""

import pathlib

import pytest

pytest.importorskip('torch', reason="needs PyTorch: pip install -e '.[bench]'")

import agreement
import torch
import torch_step

from diffusion import build

CONFIG = str(pathlib.Path(__file__).parents[1] / 'configs/emoji.py')


@pytest.mark.parametrize(
    'overrides', [[], ['net.multipliers=1,2', 'net.depth=2'], ['net.width=16', 'net.embedding=48']]
)
def test_networks_have_the_same_weights_and_outputs(overrides):
    config = build.resolve(CONFIG, [*overrides, 'runtime.platform=cpu'])
    found = agreement.check(config, build.facts(config, build.source(config)))
    assert found['output'] < 1e-4
    if not overrides:
        assert found['weights'] == 693_731


def test_a_config_that_pytorch_does_not_cover_is_refused():
    assert not torch_step.unsupported(build.resolve(CONFIG, []))
    assert 'attention' in torch_step.unsupported(build.resolve(CONFIG, ['net.attention=1,']))
    assert 'clip' in torch_step.unsupported(build.resolve(CONFIG, ['optimizer.clip=1']))


def test_loss_of_a_network_that_outputs_zero_is_the_variance_of_its_target():
    """E F_target**2 = 1 where the data has mean zero and variance sigma_data**2 (2206.00364, App. B.6)."""
    config = build.resolve(CONFIG, [])
    torch.manual_seed(0)
    image = (127.5 + 127.5 * 0.6 * torch.randn(512, 3, 16, 16)).clamp(0, 255)
    scale = ((image / 127.5 - 1) ** 2).mean().sqrt().item()
    config['precond']['sigma_data'] = scale
    tokens = torch.zeros(512, 12, dtype=torch.long)
    loss = torch_step.denoising_loss(lambda x, noise, tokens: torch.zeros_like(x), config, image, tokens)
    assert abs(loss.item() - 1) < 0.02
