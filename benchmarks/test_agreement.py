"""The two networks of the benchmarks are one network."""

import pytest

pytest.importorskip('torch', reason="needs PyTorch: pip install -e '.[bench]'")

import agreement
import cases
import torch
import torch_step

UNET, DIT = list(cases.CASES)[:2]


@pytest.mark.parametrize(
    'name, overrides',
    [
        (UNET, ()),
        (UNET, ('net.multipliers=1,2', 'net.depth=2')),
        (UNET, ('net.width=16', 'net.embedding=48')),
        (DIT, ()),
        (DIT, ('net.patch=8', 'net.width=64', 'net.heads=2', 'net.depth=2', 'net.mlp_ratio=2.0')),
    ],
)
def test_networks_have_the_same_weights_and_outputs(name, overrides):
    config = cases.CASES[name].resolved([*overrides, 'runtime.platform=cpu'])
    found = agreement.check(config, cases.CASES[name].facts(config))
    assert found['output'] < 1e-4
    if name == UNET and not overrides:
        assert found['weights'] == 693_731


def test_a_config_that_pytorch_does_not_cover_is_refused():
    unet, dit = cases.CASES[UNET], cases.CASES[DIT]
    assert not torch_step.unsupported(unet.resolved()) and not torch_step.unsupported(dit.resolved())
    assert 'attention' in torch_step.unsupported(unet.resolved(['net.attention=1,']))
    assert 'clip' in torch_step.unsupported(unet.resolved(['optimizer.clip=1']))
    assert 'remat' in torch_step.unsupported(dit.resolved(['net.remat=full']))


def test_loss_of_a_network_that_outputs_zero_is_the_variance_of_its_target():
    """E F_target**2 = 1 where the data has mean zero and variance sigma_data**2 (2206.00364, App. B.6)."""
    config = cases.CASES[UNET].resolved()
    torch.manual_seed(0)
    image = (127.5 + 127.5 * 0.6 * torch.randn(512, 3, 16, 16)).clamp(0, 255)
    scale = ((image / 127.5 - 1) ** 2).mean().sqrt().item()
    config['precond']['sigma_data'] = scale
    cond = {'tokens': torch.zeros(512, 12, dtype=torch.long)}
    loss = torch_step.denoising_loss(lambda x, *_: torch.zeros_like(x), config, image.to(torch.uint8), cond)
    assert abs(loss.item() - 1) < 0.02
