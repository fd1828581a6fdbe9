"""Linear measurements of pictures: y = A x_0 + noise, each operator with its adjoint and its pseudo-inverse.

An operator is a map A on x: [B, H, W, C] that knows A^T, and functions of the symmetric A A^T: of the eigenvalues of
that matrix all of them are a few operations, whether it is diagonal (mask, downsample, grey) or diagonal in Fourier
space (blur). The pseudo-inverse is A^+ = A^T (A A^T)^+, and A^+ A is the orthogonal projection on what A sees.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

# ITU-R BT.601, the luminance that image libraries mean by grey.
LUMINANCE = (0.299, 0.587, 0.114)
# A blur passes a frequency or loses it: what it damps below this is not to be had back from 8 bits.
PASSED = 0.01


@dataclasses.dataclass(frozen=True)
class Operator:
    """apply: A, x: [B, H, W, C] -> y: [B, ...]; adjoint: A^T, y -> x; function: (f, y) -> f(A A^T) y, with f on arrays
    of eigenvalues, which are at least 0."""

    apply: Callable
    adjoint: Callable
    function: Callable

    def pinv(self, y):
        """A^+ y: the smallest x with A x as close to y as can be (Moore-Penrose)."""
        return self.adjoint(self.function(inverse, y))

    def project(self, x):
        """A^+ A x: the part of x that is measured."""
        return self.pinv(self.apply(x))


@dataclasses.dataclass(frozen=True)
class Measurement:
    """value: y: [B or 1, ...] in the units of x_0; noise: its standard deviation, a scalar, 0 for none; change: for
    pictures that are known but may be changed here more and there less, how much: [B or 1, H, W, 1] in [0, 1]."""

    operator: Operator
    value: Any
    noise: Any = 0.0
    change: Any = None

    def residual(self, x):
        """y - A x."""
        return self.value - self.operator.apply(x)

    def met(self, x):
        """The closest to x that has the measurement: x + A^+ (y - A x)."""
        return x + self.operator.pinv(self.residual(x))


def inverse(eigenvalues):
    """1 / eigenvalue, 0 where it is 0."""
    return jnp.where(eigenvalues > 0, 1 / jnp.where(eigenvalues > 0, eigenvalues, 1.0), 0.0)


def mask(kept) -> Operator:
    """Keeps values and sets the others to 0. kept: 0 or 1, of a shape that goes with [B, H, W, C]."""

    def multiply(x):
        return kept * x

    return Operator(multiply, multiply, lambda f, y: f(kept) * y)


def downsample(factor: int) -> Operator:
    """Means over squares of factor x factor pixels: [B, H, W, C] -> [B, H / factor, W / factor, C]."""

    def apply(x):
        batch, height, width, channels = x.shape
        if height % factor or width % factor:
            raise ValueError(f'{height} x {width} pixels do not divide by {factor}')
        return x.reshape(batch, height // factor, factor, width // factor, factor, channels).mean((2, 4))

    def adjoint(y):
        return jnp.repeat(jnp.repeat(y, factor, 1), factor, 2) / factor**2

    return Operator(apply, adjoint, lambda f, y: f(jnp.asarray(1 / factor**2, y.dtype)) * y)


def grey(weights: tuple[float, ...] = LUMINANCE) -> Operator:
    """The weighted sum of the channels: [B, H, W, C] -> [B, H, W, 1]."""
    square = sum(weight**2 for weight in weights)

    def apply(x):
        return jnp.sum(x * jnp.asarray(weights, x.dtype), -1, keepdims=True)

    def adjoint(y):
        return y * jnp.asarray(weights, y.dtype)

    return Operator(apply, adjoint, lambda f, y: f(jnp.asarray(square, y.dtype)) * y)


def blur(std: float) -> Operator:
    """Convolution with a Gaussian of std pixels, sampled at the pixels and of sum 1; the borders are joined (circular).

    Frequencies that the Gaussian damps below `PASSED` are 0 in A itself, so that A^+ enlarges nothing by more than
    1 / PASSED.
    """
    if not std > 0:
        raise ValueError(f'blur of {std:g} pixels: above 0')

    def response(x):
        sides = []
        for size in x.shape[1:3]:
            place = np.arange(size)
            kernel = np.exp(-(np.minimum(place, size - place) ** 2) / (2 * std**2))
            waves = np.cos(2 * np.pi * np.outer(_frequencies(size), place) / size)
            sides.append(waves @ (kernel / kernel.sum()))
        full = np.outer(*sides)[..., None]
        return jnp.asarray(np.where(np.abs(full) < PASSED, 0.0, full), x.dtype)

    def multiply(factors, x):
        # By products, not an FFT: XLA's FFT for CPUs fails on the layouts that its gradient may ask of it.
        rows, columns = (jnp.asarray(_waves(size), x.dtype) for size in x.shape[1:3])
        turned = jnp.einsum('kh,bhwc,lw->bklc', rows, x, columns, precision='highest')
        return jnp.einsum('kh,bklc,lw->bhwc', rows, factors * turned, columns, precision='highest')

    def apply(x):
        return multiply(response(x), x)

    return Operator(apply, apply, lambda f, y: multiply(f(response(y) ** 2), y))


def _frequencies(size: int) -> np.ndarray:
    """Of each row of `_waves`: [size] int, 0, 1, 1, 2, 2 ..."""
    return (np.arange(size) + 1) // 2


def _waves(size: int) -> np.ndarray:
    """The orthonormal cosines and sines that every symmetric circular convolution scales: float64 [size, size]."""
    phase = 2 * np.pi * np.outer(_frequencies(size), np.arange(size)) / size
    rows = np.where(np.arange(size)[:, None] % 2, np.cos(phase), np.sin(phase))
    rows[0] = 1.0
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
