import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from diffusion.nets import layers
from diffusion.runtime import hlo, mesh


@pytest.mark.parametrize('features,dtype', [(32, 'float32'), (8, 'float32'), (64, 'bfloat16')])
def test_group_norm_is_flaxs(features, dtype):
    mine = layers.GroupNorm(features, rngs=nnx.Rngs(0))
    theirs = nnx.GroupNorm(features, num_groups=min(8, features // 4), rngs=nnx.Rngs(0))
    scale, bias, x = (np.random.default_rng(0).normal(size=(3, 4, 6, 6, features)).astype(np.float32) * 2 + 1)[:, :]
    for norm in (mine, theirs):
        norm.scale[...], norm.bias[...] = jnp.asarray(scale[0, 0, 0]), jnp.asarray(bias[0, 0, 0])
    x = jnp.asarray(x, dtype)
    found = mine(x)
    assert found.dtype == x.dtype
    np.testing.assert_allclose(
        found.astype(jnp.float32), theirs(x.astype(jnp.float32)), atol=1e-4 if dtype == 'float32' else 0.1
    )


def test_attention_is_softmax_of_the_products():
    module = layers.Attention(8, 6, heads=2, rngs=nnx.Rngs(0), zero=False)
    rng = np.random.default_rng(1)
    x, context = rng.normal(size=(2, 5, 8)), rng.normal(size=(2, 3, 6))
    mask = np.array([[True, True, False], [True, True, True]])
    dense = {
        n: [np.asarray(p, np.float64) for p in (m.kernel[...], m.bias[...])]
        for n, m in vars(module).items()
        if n in ('query', 'key', 'value', 'out')
    }
    q, k, v = (
        (a @ dense[n][0] + dense[n][1]).reshape(2, -1, 2, 4)
        for n, a in (('query', x), ('key', context), ('value', context))
    )
    logits = np.einsum('bqhd,bkhd->bhqk', q, k) / 2 + np.where(mask, 0, -np.inf)[:, None, None]
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = np.einsum('bhqk,bkhd->bqhd', weights, v).reshape(2, 5, 8) @ dense['out'][0] + dense['out'][1]
    with jax.default_matmul_precision('highest'):
        found = module(jnp.asarray(x, jnp.float32), jnp.asarray(context, jnp.float32), jnp.asarray(mask))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_table_that_is_split_is_exchanged_once_whatever_the_batch(capfd):
    grid = mesh.make(jax.devices(), fsdp=4, slices=2)
    graph, params = nnx.split(layers.Embed(12, 64, rngs=nnx.Rngs(0)))
    kept = jax.device_put(params, NamedSharding(grid, PartitionSpec(None, 'fsdp')))

    def look(params, numbers):
        return layers.spread(nnx.merge(graph, params)(numbers)) ** 2

    for batch in (8, 256):
        numbers = jax.device_put(jnp.arange(batch) % 12, mesh.batched(grid))
        with mesh.in_sight(grid):
            compiled = jax.jit(look).lower(kept, numbers).compile()
        found = hlo.cost(compiled.as_text(), 8)
        assert [one.kind for one in found.collectives] == ['all-gather'] and found.exchanged() == 12 * 64 * 4
        table = np.asarray(jax.tree.leaves(params)[0])
        np.testing.assert_array_equal(compiled(kept, numbers), table[np.asarray(numbers)] ** 2)
    assert 'rematerialization' not in capfd.readouterr().err
