"""The multiplications of a function as it is written: those of its matrix products and convolutions.

Counted in its jaxpr, so the same on every machine, whatever a compiler splits, repeats or leaves to a library.
"""

import math

import jax
from jax.extend import core

from diffusion.runtime import hlo_products


def flops(function, *arguments) -> int:
    """Two a multiplication, loops as often as they run, of branches the dearest, products with padding left out.

    arguments: arrays or their shapes. Raises ValueError for a product in a loop of unknown length.
    """
    return _of(jax.make_jaxpr(function)(*arguments).jaxpr)


def _of(jaxpr) -> int:
    return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation):
    name, given = equation.primitive.name, equation.params
    if name == 'dot_general':
        return _dot(equation)
    if name == 'conv_general_dilated':
        return _convolution(equation)
    inner = [_of(jaxpr) for jaxpr in _inner(given)]
    if name == 'scan':
        return given['length'] * sum(inner)
    if name == 'while' and sum(inner):
        raise ValueError('a product runs in a loop of unknown length')
    return max(inner, default=0) if name == 'cond' else sum(inner)


def _inner(given):
    for value in given.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            if isinstance(each, core.ClosedJaxpr):
                yield each.jaxpr
            elif isinstance(each, core.Jaxpr):
                yield each


def _dot(equation):
    (axes, _), _ = equation.params['dimension_numbers']
    left = equation.invars[0].aval.shape
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in axes)


def _convolution(equation):
    given, made = equation.params, equation.outvars[0].aval.shape
    left, right = (value.aval.shape for value in equation.invars)
    images, kernel, out = given['dimension_numbers']
    found = 2 * right[kernel[1]] * made[out[1]] * (left[images[0]] // given['batch_group_count'])
    for axis, stride in enumerate(given['window_strides']):
        sizes = left[images[axis + 2]], right[kernel[axis + 2]], made[out[axis + 2]]
        apart = given['lhs_dilation'][axis], given['rhs_dilation'][axis]
        found *= hlo_products.meetings(*sizes, stride, given['padding'][axis][0], *apart)
    return found
