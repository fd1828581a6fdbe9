"""The same run on any layout of devices: what a training computes does not depend on where."""

import jax
import numpy as np
import pytest

from diffusion.runtime import mesh, platform
from tests import layouts


@pytest.fixture(scope='module')
def alone():
    """net, data_dir -> 20 steps on one device."""
    known = {}

    def found(net, data_dir):
        if net not in known:
            known[net] = layouts.train(net, layouts.Layout(), data_dir, steps=20)
        return known[net]

    return found


def agree(other, one):
    np.testing.assert_allclose(other.losses[0], one.losses[0], rtol=1e-6)
    np.testing.assert_allclose(other.losses, one.losses, rtol=1e-4)
    assert other.compare(one)[2] < 1e-3


@pytest.mark.pods
@pytest.mark.parametrize('net', ['UNet', 'DiT'])
def test_losses_and_parameters_agree_on_one_and_eight_devices(net, data_dir, alone):
    one = alone(net, data_dir)
    assert one.losses[-5:].mean() < one.losses[:5].mean()
    every = layouts.Layout(8, slices=2, fsdp=2, tensor=2, accumulate=2)
    for layout in (layouts.Layout(8), layouts.Layout(8, fsdp=4), every):
        agree(layouts.train(net, layout, data_dir, steps=20), one)


def test_points_agree_in_pieces_and_split_over_features(data_dir, alone):
    for layout in (layouts.Layout(1, accumulate=4), layouts.Layout(8, tensor=4, accumulate=2)):
        agree(layouts.train('PointNet', layout, data_dir, steps=20), alone('PointNet', data_dir))


@pytest.mark.pods
@pytest.mark.parametrize('processes', [2, 4])
def test_real_processes_agree_with_one(processes, data_dir, alone):
    """Also where processes share rows, because their devices split features."""
    both = [
        layouts.Layout(4, fsdp=2, accumulate=2, processes=processes),
        layouts.Layout(4, tensor=4, processes=processes),
        layouts.Layout(4, slices=2, fsdp=2, processes=processes),
    ]
    for found in layouts.train_in_processes('PointNet', both[: 6 // processes], data_dir, steps=20):
        agree(found, alone('PointNet', data_dir))


@pytest.mark.slow
@pytest.mark.parametrize('layout', layouts.LAYOUTS, ids=str)
@pytest.mark.parametrize('net', layouts.NETS)
def test_the_whole_table(net, layout, data_dir, alone):
    if layout.processes > 1:
        found = layouts.train_in_processes(net, [layout], data_dir, steps=20)[0]
    else:
        found = layouts.train(net, layout, data_dir, steps=20)
    agree(found, alone(net, data_dir))


@pytest.mark.parametrize(
    'batch,devices,pieces,say',
    [
        (10, 4, 1, '8 and 12'),
        (3, 4, 1, 'do: 4'),
        (16, 4, 3, '4 devices in 3 pieces each: the nearest that do: 12 and 24'),
    ],
)
def test_a_batch_that_does_not_divide_is_told_the_nearest(batch, devices, pieces, say):
    with pytest.raises(ValueError, match=say):
        platform.check_batch(batch, devices, pieces)


def test_slices_group_the_devices_and_must_divide_them():
    grid = mesh.make(jax.devices(), fsdp=2, slices=2)
    assert dict(grid.shape) == {'slice': 2, 'data': 2, 'fsdp': 2, 'tensor': 1} and mesh.shards(grid) == 8
    assert [device.id for device in grid.devices[1].flat] == [device.id for device in jax.devices()[4:]]
    with pytest.raises(ValueError, match=r'runtime.slices=3 x runtime.fsdp=2 does not divide the 8'):
        mesh.make(jax.devices(), fsdp=2, slices=3)
