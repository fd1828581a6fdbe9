"""The multiplications of one line of a compiled program: a matrix product, a convolution, or a call of a library of
NVIDIA that makes one."""

import functools
import math
import re

import numpy as np

from diffusion.runtime import hlo_text

# Where the images, the kernel and the output of the convolution forwards are in what XLA for GPUs hands to cuDNN, whose
# window is always that one's: 0 and 1 the operands, 2 the result.
_CUDNN = {'Forward': (0, 1, 2), 'BackwardInput': (2, 1, 0), 'BackwardFilter': (0, 2, 1)}
_GEMM = ('gemm', 'matmul')


def flops(line: hlo_text.Line, shapes: dict[str, str]) -> int:
    """Two a multiplication, those with padding left out as far as the line itself pads. shapes: of the operands by
    their names. Raises ValueError for a call of a library whose products cannot be told from the text."""
    if not (line.opcode in ('dot', 'convolution') or _multiplies(line)):
        return 0
    arrays = [hlo_text.arrays(shapes[name])[0][1] for name in line.operands[:2]]
    arrays.append(hlo_text.arrays(line.shape)[0][1])
    if line.opcode == 'dot':
        return _product(arrays, re.search(r'lhs_contracting_dims=\{([\d,]*)\}', line.rest)[1])
    if line.library in _GEMM:
        return _product(arrays, re.search(r'"lhs_contracting_dimensions":\[([\d,"]*)\]', line.rest)[1].replace('"', ''))
    kind = next((kind for kind in ('BackwardInput', 'BackwardFilter') if line.library.endswith(kind)), 'Forward')
    return _convolution(line, *(arrays[i] for i in _CUDNN[kind]))


def _multiplies(line):
    if line.library.startswith('fmha'):
        raise ValueError(f'{line.name}: the products of {line.library} of cuDNN are not told by the program')
    return line.library in _GEMM or line.library.startswith('conv')


def _product(arrays, axes):
    left, _, made = arrays
    return 2 * math.prod(made) * math.prod(left[int(axis)] for axis in axes.split(',') if axis)


def passes(line: hlo_text.Line, shapes: dict[str, str]) -> int:
    """That the matrix units of a TPU take for the precision asked for."""
    precision = re.search(r'operand_precision=\{(\w+)', line.rest)
    if not precision or not any(shapes[name].startswith('f32') for name in line.operands[:2]):
        return 1
    return {'highest': 6, 'high': 3}.get(precision[1], 1)


def _convolution(line, left, right, made):
    """XLA for TPUs writes all products so: what meets padding or the gaps of a dilation is no product of the model."""
    images, kernel, out = re.search(r'dim_labels=(\w+)_(\w+)->(\w+)', line.rest).groups()
    window = re.search(r'window=\{([^}]*)\}', line.rest)
    given = dict(part.split('=') for part in window[1].split()) if window else {}

    def values(key, otherwise):
        return given[key].split('x') if key in given else [otherwise] * sum(map(str.isdecimal, images))

    flops = 2 * right[kernel.index('i')] * made[out.index('f')]
    flops *= left[images.index('b')] // line.number('batch_group_count', 1)
    parts = (
        values(key, one) for key, one in (('stride', '1'), ('pad', '0_0'), ('lhs_dilate', '1'), ('rhs_dilate', '1'))
    )
    for axis, (stride, pad, spread, apart) in enumerate(zip(*parts)):
        sizes = left[images.index(str(axis))], right[kernel.index(str(axis))], made[out.index(str(axis))]
        flops *= meetings(*sizes, int(stride), int(pad.split('_')[0]), int(spread), int(apart))
    return flops


@functools.lru_cache(4096)
def meetings(given: int, taps: int, made: int, stride: int, pad: int, spread: int, apart: int) -> int:
    """How many pairs of an output and a tap along one axis meet one of the numbers given."""
    places = np.arange(made)[:, None] * stride + np.arange(taps) * apart - pad
    return int(np.sum((places >= 0) & (places <= (given - 1) * spread) & (places % spread == 0)))
