"""Multiplications counted as a function is written, against the numbers by hand and XLA's own."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from diffusion.runtime import hlo, products


def test_products_by_hand():
    x, stack = jnp.zeros((16, 32)), jnp.zeros((5, 32, 32))

    def loss(stack, x):
        return jnp.sum(lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, stack)[0])

    assert products.flops(jnp.matmul, jnp.zeros((4, 3, 7)), jnp.zeros((4, 7, 2))) == 2 * 4 * 3 * 7 * 2
    forward = 5 * 2 * 16 * 32 * 32
    assert products.flops(loss, stack, x) == forward
    # Backwards a product for the weights and one for what came in.
    assert products.flops(jax.grad(loss), stack, x) == 3 * forward
    assert products.flops(lambda x: lax.cond(x[0, 0] > 0, lambda x: x @ x.T @ x, lambda x: x, x), x) == 4 * 16 * 16 * 32
    with pytest.raises(ValueError, match='unknown length'):
        products.flops(lambda x: lax.while_loop(lambda x: x[0, 0] < 1, lambda x: x @ x, x), jnp.zeros((3, 3)))


@pytest.mark.parametrize(
    'kind',
    [
        dict(window_strides=(1, 1), padding='SAME'),
        dict(window_strides=(2, 1), padding='VALID'),
        dict(window_strides=(1, 1), padding=((2, 1), (0, 3)), lhs_dilation=(2, 3), rhs_dilation=(1, 2)),
        dict(window_strides=(1, 2), padding='SAME', feature_group_count=2),
        dict(window_strides=(1, 1), padding='SAME', batch_group_count=2),
    ],
)
def test_convolutions_as_xla_counts_them(kind):
    """XLA's count of the instruction as written, `Lowered.cost_analysis`, leaves out padding and gaps too."""
    groups = kind.get('feature_group_count', 1)
    x, kernel = jnp.zeros((2, 9, 8, 4)), jnp.zeros((3, 3, 4 // groups, 6))

    def convolve(x, kernel):
        return lax.conv_general_dilated(x, kernel, dimension_numbers=('NHWC', 'HWIO', 'NHWC'), **kind)

    counted = jax.jit(convolve).lower(x, kernel).cost_analysis()['flops']
    assert products.flops(convolve, x, kernel) == counted


def test_the_compiled_program_agrees():
    """A loss and its gradient: as many as the compiled program has, on one device."""
    x, kernel = jnp.zeros((2, 8, 8, 4)), jnp.zeros((3, 3, 4, 4))

    def loss(kernel, x):
        y = lax.conv_general_dilated(x, kernel, (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
        return jnp.sum(jnp.einsum('bhwc,bhwd->bcd', y, y) ** 2)

    gradient = jax.grad(loss, (0, 1))
    text = jax.jit(gradient).lower(kernel, x).compile().as_text()
    assert hlo.cost(text, 1).flops == products.flops(gradient, kernel, x)
