"""Linear measurements of pictures: y = A x_0 + noise, each operator with its adjoint and its pseudo-inverse.

An operator is a map A on x: [B, H, W, C] that knows A^T, and functions of the symmetric A A^T: of the eigenvalues of
that matrix all of them are a few operations, whether it is diagonal (mask, downsample, grey) or diagonal in Fourier
space (blur). The pseudo-inverse is A^+ = A^T (A A^T)^+, and A^+ A is the orthogonal projection on what A sees.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

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
        # Real, because the kernel is even.
        sides = []
        for size in x.shape[1:3]:
            place = jnp.arange(size)
            kernel = jnp.exp(-(jnp.minimum(place, size - place) ** 2) / (2 * std**2))
            sides.append(jnp.fft.fft(kernel / jnp.sum(kernel)).real)
        full = (sides[0][:, None] * sides[1])[:, : x.shape[2] // 2 + 1, None].astype(x.dtype)
        return jnp.where(jnp.abs(full) < PASSED, 0.0, full)

    def multiply(factors, x):
        return jnp.fft.irfft2(factors * jnp.fft.rfft2(x, axes=(1, 2)), x.shape[1:3], (1, 2)).astype(x.dtype)

    def apply(x):
        return multiply(response(x), x)

    return Operator(apply, apply, lambda f, y: multiply(f(response(y) ** 2), y))
