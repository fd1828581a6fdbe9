"""The reading of compiled programs by `runtime.hlo`, against programs whose cost is known."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from diffusion.runtime import hlo, mesh


def cost(function, *arguments):
    return hlo.cost(jax.jit(function).lower(*arguments).compile().as_text(), 8)


def test_products_in_a_loop_count_as_often_as_they_run():
    x, stack = jnp.zeros((16, 32)), jnp.zeros((5, 32, 32))
    found = cost(lambda x, stack: lax.scan(lambda x, w: (jnp.sin(x @ w), None), x, stack)[0], x, stack)
    assert found.flops == 5 * 2 * 16 * 32 * 32 and found.collectives == ()


def test_a_convolution():
    x, kernel = jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 3, 3, 16))
    numbers = ('NHWC', 'HWIO', 'NHWC')
    found = cost(lambda x, k: lax.conv_general_dilated(x, k, (1, 1), 'SAME', dimension_numbers=numbers), x, kernel)
    # Along each axis three taps for each of eight outputs, but the two that meet padding.
    assert found.flops == 2 * 2 * 16 * 3 * (3 * 8 - 2) ** 2


def test_a_sum_over_all_devices_and_one_that_stays_within_slices():
    grid = mesh.make(jax.devices(), fsdp=4, slices=2)

    def placed(shape, *axes):
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(grid, PartitionSpec(*axes)))

    product = jax.jit(lambda a, b: a @ b, out_shardings=mesh.replicated(grid))
    both = placed((16, 64), None, ('slice', 'data', 'fsdp')), placed((64, 8), ('slice', 'data', 'fsdp'))
    found = hlo.cost(product.lower(*both).compile().as_text(), 8)
    assert found.flops == 2 * 16 * 8 * 8 and found.exchanged() == 16 * 8 * 4 == found.exchanged(crossing=4)
    inside = placed((16, 64), None, 'fsdp'), placed((64, 8), 'fsdp')
    found = hlo.cost(product.lower(*inside).compile().as_text(), 8)
    assert found.flops == 2 * 16 * 16 * 8 and found.exchanged('all-reduce') == 16 * 8 * 4
    assert found.exchanged(crossing=4) == 0
