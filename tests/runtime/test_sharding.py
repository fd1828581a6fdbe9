import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from diffusion.nets import dit, functional, unet
from diffusion.runtime import mesh, optimizer, sharding, state

NETS = {
    'unet': lambda rngs: unet.UNet(width=8, multipliers=(1, 2), channels=3, vocabulary=7, length=3, rngs=rngs),
    'dit': lambda rngs: dit.DiT(
        width=32, depth=2, heads=2, channels=3, classes=4, vocabulary=7, length=3, text_layers=1, rngs=rngs
    ),
}


@pytest.mark.parametrize('net', NETS.values(), ids=NETS)
def test_every_parameter_of_every_network_has_a_rule_and_fsdp_splits_most(net):
    network = functional.functional(net)
    grid = mesh.make(jax.devices(), fsdp=4)
    target = state.abstract(grid, network.init, optimizer.adamw(clip=1.0)(8))
    leaves = jax.tree.leaves(target)
    split = sum(leaf.size for leaf in leaves if 'fsdp' in str(leaf.sharding.spec))
    assert split > 0.9 * sum(leaf.size for leaf in leaves)
    made = state.create(target, network.init, optimizer.adamw(clip=1.0)(8), 0)
    for leaf, wanted in zip(jax.tree.leaves(made), leaves, strict=True):
        assert leaf.sharding.is_equivalent_to(wanted.sharding, leaf.ndim)


@pytest.mark.parametrize('name', optimizer.__all__)
@pytest.mark.parametrize('net', NETS.values(), ids=NETS)
def test_every_optimizer_state_has_a_rule_and_moments_lie_where_their_parameters_do(net, name):
    grid = mesh.make(jax.devices(), fsdp=2, tensor=2)
    target = state.abstract(grid, functional.functional(net).init, getattr(optimizer, name)(clip=1.0)(8))
    places = {sharding.path_of(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(target.params)}
    followed = 0
    for keys, leaf in jax.tree_util.tree_leaves_with_path(target.opt_state):
        path = sharding.path_of(keys)
        owner = next((places[end] for end in places if path.endswith(f'/{end}')), None)
        if owner and owner.shape == leaf.shape:
            assert leaf.sharding == owner.sharding, path
            followed += leaf.size
    assert followed > 0.9 * sum(leaf.size for leaf in places.values())


def test_tensor_splits_the_inside_of_every_pair():
    """What the first puts out is what the second takes in; what goes between layers is whole."""
    splits = {
        path: sharding.spec(path, (3, 8, 8), 1, 4) for path in ('a/query/kernel', 'a/up/kernel', 'a/conv1/kernel')
    }
    assert set(splits.values()) == {PartitionSpec(None, None, 'tensor')}
    splits = {
        path: sharding.spec(path, (3, 8, 8), 2, 4) for path in ('a/out/kernel', 'a/down/kernel', 'a/conv2/kernel')
    }
    assert set(splits.values()) == {PartitionSpec(None, 'tensor', 'fsdp')}
    assert sharding.spec('a/query/bias', (8,), 2, 4) == PartitionSpec('tensor')
    assert sharding.spec('a/out/bias', (8,), 2, 4) == PartitionSpec()
    assert sharding.spec('a/query/kernel', (8, 6), 2, 4) == PartitionSpec('fsdp')
    assert sharding.spec('down/0_0/block/skip/kernel', (8, 8), 2, 4) == PartitionSpec('fsdp')


def test_a_parameter_without_a_rule_is_an_error():
    with pytest.raises(ValueError, match="no sharding rule for the parameter 'block/mystery'"):
        sharding.spec('block/mystery', (4, 4), 2)


def test_the_largest_axis_that_divides_is_split():
    assert sharding.spec('a/kernel', (3, 3, 6, 8), 4) == PartitionSpec(None, None, None, 'fsdp')
    assert sharding.spec('a/kernel', (9, 6), 2) == PartitionSpec(None, 'fsdp')
    assert sharding.spec('a/kernel', (9, 7), 2) == PartitionSpec()
    assert sharding.spec('a/bias', (8,), 4) == PartitionSpec()


def test_a_batch_keeps_its_order_over_devices():
    rows = np.arange(16, dtype=np.float32).reshape(16, 1)
    put = mesh.put(mesh.make(jax.devices(), fsdp=2), {'x': rows})['x']
    np.testing.assert_array_equal(jax.device_get(put), rows)
    assert {shard.data.shape for shard in put.addressable_shards} == {(2, 1)}
    assert jnp.sum(put) == rows.sum()


def test_fsdp_must_divide_the_devices():
    with pytest.raises(ValueError, match='does not divide the 8 devices'):
        mesh.make(jax.devices(), fsdp=3)
