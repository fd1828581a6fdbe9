"""The log-density of a model: the probability-flow ODE with the instantaneous change of variables.

The model is the law of x at level sigma_min of the ODE that starts with N(0, sigma_max**2 I) at sigma_max. That is a
density of its own, computed here without approximation but for the solver's tolerance and the probes. From the law of
the data it differs, besides by what training missed, at its two ends: it is smoothed by sigma_min, and the law of the
data at sigma_max is only nearly that normal one. For data of mean square m a dimension the latter makes up to
m / (2 sigma_max**2) nats a dimension on average, and of the order of sqrt(m) / sigma_max in a single picture.

x is x_t / alpha(t), which has the units of x_0, so that no factor of alpha enters: log p(x_t) would be less by
d log alpha.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffusion.core import ode, precond


class LogDensity(NamedTuple):
    """value: [B, P] nats of the whole picture, one estimate a probe, -inf nowhere; code: [B, ...], what the ODE takes
    the picture to at sigma_max, divided by sigma_max. The rest as in `ode.Solution`; an evaluation is one of the
    denoiser together with its P derivatives."""

    value: jax.Array
    code: jax.Array
    nfe: jax.Array
    accepted: jax.Array
    rejected: jax.Array
    finished: jax.Array


def log_density(denoise, trace, x, sigma_min, sigma_max, method: ode.Method) -> LogDensity:
    """log p(x) at level sigma_min: Chen et al. 1806.07366, Theorem 1; Song et al. 2011.13456, Sec. 4.3.

    x: [B, ...]; trace: see `divergence`; sigma_min, sigma_max: scalars. In the variables of `ode` (y, lambda), with d
    dimensions, d log p(y) / dlambda = -(d / n**2 - tr dD/dx). It is integrated in nats a dimension beside y, so that
    the tolerance is the same at any size.
    """
    dims = math.prod(x.shape[1:])
    low, high = (jnp.full(x.shape[0], jnp.log(sigma), x.dtype) for sigma in (sigma_min, sigma_max))

    def field(state, time):
        y, _ = state
        sigma = jnp.exp(time)
        norm = ode.size(sigma)
        wide = precond.per_example(norm, y)
        x0, divergence = trace(lambda x: denoise(x, sigma), wide * y)
        grown = (1 / norm**2)[:, None] - divergence / dims
        return (y / wide - x0) / wide, grown

    estimates = jax.eval_shape(lambda x: trace(lambda x: x, x)[1], x)
    begin = (x / ode.size(sigma_min), jnp.zeros(estimates.shape, x.dtype))
    found = ode.solve(field, begin, low, high, method, ode.LONGEST)
    y, grown = found.state
    code = y * ode.size(sigma_max) / sigma_max
    prior = (
        -0.5 * jnp.sum(code**2, tuple(range(1, x.ndim)))
        - 0.5 * dims * math.log(2 * math.pi)
        - dims * jnp.log(sigma_max)
    )
    # From y back to x at both ends: d log n.
    scales = dims * (jnp.log(ode.size(sigma_max)) - jnp.log(ode.size(sigma_min)))
    value = prior[:, None] + scales + dims * grown
    return LogDensity(value, code, found.nfe, found.accepted, found.rejected, found.finished)


def bits_per_dim(nats, dims: int):
    """nats: a log-probability (natural logarithm) of a picture of `dims` values -> its negative in bits a value."""
    return -nats / (dims * math.log(2))
