"""The reading of compiled programs by `runtime.hlo`, against programs whose cost is known."""

import jax
import jax.numpy as jnp
import pytest
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


def test_bytes_moved():
    """What is read and written once each; of a stack that a loop goes through, a slice a round."""
    x = jnp.zeros((512, 512))
    assert cost(lambda x: jnp.sin(x) + 1, x).bytes == 2 * 512 * 512 * 4
    stack = jnp.zeros((64, 256, 256))
    once = cost(lambda w, x: w @ x, stack[0], stack[1])
    assert once.bytes == 3 * 256 * 256 * 4
    looped = cost(lambda x, stack: lax.scan(lambda x, w: (w @ x, None), x, stack)[0], stack[0], stack)
    # Besides the product a round copies the slice and the result at most, by far less than the stack.
    assert 64 * once.bytes <= looped.bytes <= 64 * 8 * 256 * 256 * 4


def test_loops_that_end_when_they_like():
    x = jnp.zeros((8, 8))
    text = jax.jit(lambda x: lax.while_loop(lambda x: x[0, 0] < 1, lambda x: x @ x, x)).lower(x).compile().as_text()
    with pytest.raises(ValueError, match='unknown length'):
        hlo.cost(text, 8)
    found = hlo.cost(text, 8, unknown=1)
    assert found.flops == 2 * 8**3 and found.open == 1


def test_branches_of_a_scope_that_is_rare_are_left_out():
    def step(x):
        with jax.named_scope('rare'):
            x = lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x, x)
        return x @ x

    text = jax.jit(step).lower(jnp.zeros((8, 8))).compile().as_text()
    assert hlo.cost(text, 8).flops == 3 * 2 * 8**3 and hlo.cost(text, 8, rare='rare').flops == 2 * 8**3


CALLS = """
ENTRY %main (x: bf16[8,32,32,64], w: bf16[128,3,3,64], a: bf16[4,16,32], b: bf16[4,32,8]) -> bf16[4,16,8] {
  %x = bf16[8,32,32,64]{3,2,1,0} parameter(0)
  %w = bf16[128,3,3,64]{3,2,1,0} parameter(1)
  %a = bf16[4,16,32]{2,1,0} parameter(2)
  %b = bf16[4,32,8]{2,1,0} parameter(3)
  %f = (bf16[8,32,32,128]{3,2,1,0}, u8[0]{0}) custom-call(%x, %w), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward"
  %y = bf16[8,32,32,128]{3,2,1,0} get-tuple-element(%f), index=0
  %i = (bf16[8,32,32,64]{3,2,1,0}, u8[0]{0}) custom-call(%y, %w), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardInput"
  %k = (bf16[128,3,3,64]{3,2,1,0}, u8[0]{0}) custom-call(%x, %y), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardFilter"
  ROOT %p = (bf16[4,16,8]{2,1,0}, s8[4194304]{0}) custom-call(%a, %b), custom_call_target="__cublas$TARGET", backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["2"],"rhs_contracting_dimensions":["1"],"lhs_batch_dimensions":["0"],"rhs_batch_dimensions":["0"]}}}
}
"""  # noqa: E501


@pytest.mark.parametrize('target', ['gemm', 'lt$matmul'])
def test_what_a_program_for_gpus_leaves_to_cublas_and_cudnn(target):
    text = CALLS.replace('TARGET', target)
    convolution = 2 * 8 * 64 * 128 * (3 * 32 - 2) ** 2
    found = hlo.cost(text, 8)
    assert found.flops == 3 * convolution + 2 * 4 * 16 * 32 * 8
    # Each convolution reads two of images, kernel and result and writes the third; what cuBLAS works in is no traffic.
    images, kernel, made = 8 * 32 * 32 * 64, 128 * 3 * 3 * 64, 8 * 32 * 32 * 128
    assert found.bytes == 2 * (3 * (images + kernel + made) + 4 * (16 * 32 + 32 * 8 + 16 * 8))
    with pytest.raises(ValueError, match='fmhaSoftmax'):
        hlo.cost(text.replace('__cudnn$convForward', '__cudnn$fmhaSoftmax'), 8)
