"""Editors that change the denoiser, for any sampler: D + sigma**2 grad_x log p(y | x).

With the exact log p(y | x) this is the denoiser of p(x_0 | y) (`guidance.classifier`). What is known of it is p(y | x)
= E[N(y; A x_0, s**2 I) | x], for which both take x_0 given x as normal around D(x): its covariance is what they differ
in. The contract is that of `editing`.
"""

import jax
import jax.numpy as jnp

from diffusion.core import operators, precond

__all__ = ['pigdm', 'mmps']

SOLVED = 1e-11  # of the square of the residual


def pigdm(spread: float = 1.0):
    """ΠGDM: x_0 given x has covariance r**2 I. Song et al., Pseudoinverse-Guided Diffusion (ICLR 2023).

    r**2 = sigma**2 spread**2 / (sigma**2 + spread**2), what a Gaussian of independent values of deviation `spread` has
    (theirs: 1). grad log p(y | x) = (dD/dx)^T A^T (r**2 A A^T + s**2 I)^-1 (y - A D). One evaluation of the denoiser
    and of its derivative. Theirs is a DDIM step whose guidance they weigh by r**2; here it is the score itself, so
    that any sampler may follow it. Bias: exact for data of covariance spread**2 I. Where the values depend on each
    other the covariance of what is hidden is misjudged, most of all in the middle of the noise levels.
    """
    if not spread > 0:
        raise ValueError(f'spread={spread}: above 0')

    def weigh(measurement, residual, variance, _):
        known = measurement.noise**2
        hidden = variance * spread**2 / (variance + spread**2)

        def solve(eigenvalues):
            # In proportion to sigma**2, so that nothing is divided by a small one where s = 0.
            total = hidden / variance * eigenvalues + known / variance
            return jnp.where(eigenvalues > 0, 1 / jnp.where(eigenvalues > 0, total, 1.0), 0.0)

        return measurement.operator.function(solve, residual)

    return _led(weigh)


def mmps(iterations: int = 3):
    """Moment matching: x_0 given x has covariance sigma**2 dD/dx, which is the true one. Rozet et al. 2405.13712.

    Solves (s**2 I + sigma**2 A (dD/dx) A^T) v = y - A D by conjugate gradients, an evaluation of the derivative each;
    then D + sigma**2 (dD/dx)^T A^T v. iterations: of those, from 1.
    Bias: exact for Gaussian data, of any covariance, once the iterations have converged; fewer leave the least certain
    directions out. A mixture given x is no Gaussian, and what its modes have to say of y is flattened.
    """
    if iterations < 1:
        raise ValueError(f'iterations={iterations}: at least 1')

    def weigh(measurement, residual, variance, hidden):
        def covariance(v):
            # Of the equation divided by sigma**2.
            return measurement.operator.apply(hidden(v)) + measurement.noise**2 / variance * v

        return conjugate_gradients(covariance, residual, iterations)

    return _led(weigh)


def _led(weigh):
    """The editor whose denoiser is D + (dD/dx)^T A^T v. weigh: (measurement, y - A D, sigma**2, the map from v to what
    is added) -> v."""

    def edit(sampler, measurement):
        def lead(denoise):
            def led(x, sigma):
                x0, pull = jax.vjp(lambda x: denoise(x, sigma), x)

                def hidden(v):
                    return pull(measurement.operator.adjoint(v))[0]

                variance = precond.per_example(sigma**2, x)
                return x0 + hidden(weigh(measurement, measurement.residual(x0), variance, hidden))

            return led

        return lambda denoise, x, sigmas, keys: sampler(lead(denoise), x, sigmas, keys)

    return edit


def conjugate_gradients(multiply, right, iterations: int):
    """v: [B, ...] with multiply(v) = right, each example by itself: Hestenes & Stiefel (1952).

    multiply: symmetric and at least 0; of a singular one the smallest solution. An example that is solved stays as it
    is.
    """

    whole = _dot(right, right)

    def advance(_, carry):
        v, left, way, square = carry
        moved = multiply(way)
        # Beyond what float32 resolves the directions are rounding.
        length = jnp.where(square > SOLVED * whole, _ratio(square, _dot(way, moved)), 0.0)
        v, left = v + length * way, left - length * moved
        after = _dot(left, left)
        return v, left, left + _ratio(after, square) * way, after

    start = (jnp.zeros_like(right), right, right, whole)
    return jax.lax.fori_loop(0, iterations, advance, start)[0]


def _dot(a, b):
    return jnp.sum(a * b, tuple(range(1, a.ndim)), keepdims=True)


def _ratio(a, b):
    return a * operators.inverse(jnp.maximum(b, 0.0))
