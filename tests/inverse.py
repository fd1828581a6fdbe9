"""Inverse problems on laws that are known: for the tests and for the table of editing methods."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import build
from diffusion.core import chain, grids, operators, process, randomness, samplers
from tests import oracle

# A model that was trained with the measurement is no way to solve a problem whose law is known.
EDITORS = {name: make for name, make in build.SCHEMA['edit'].constructors.items() if name != 'conditioned'}
SHAPE = (4, 4, 1)


class Problem(NamedTuple):
    """Pictures x_0: [*shape] of a law, measured by an operator with noise; value: [1, ...], of a picture drawn."""

    law: oracle.Mixture
    shape: tuple[int, int, int]
    operator: operators.Operator
    noise: float
    value: np.ndarray

    def posterior(self) -> oracle.Mixture:
        return self.law.measured(matrix(self.operator, self.shape), self.value.ravel(), self.noise)

    def measurement(self) -> operators.Measurement:
        change = jnp.asarray(1 - KEPT) if self.operator.function is OPERATORS['mask'][0].function else None
        return operators.Measurement(self.operator, jnp.asarray(self.value, jnp.float32), self.noise, change)


KEPT = (np.random.default_rng(5).random((1, *SHAPE)) < 0.5).astype(np.float32)
OPERATORS = {
    'mask': (operators.mask(jnp.asarray(KEPT)), SHAPE),
    'downsample': (operators.downsample(2), SHAPE),
    'blur': (operators.blur(0.7), SHAPE),
    'grey': (operators.grey(), (2, 3, 3)),
}


def matrix(operator, shape) -> np.ndarray:
    """A as [M, D], column by column."""
    basis = jnp.eye(np.prod(shape)).reshape(-1, *shape)
    return np.asarray(operator.apply(basis)).reshape(len(basis), -1).T.astype(float)


@functools.cache
def problem(name: str, count: int = 1, noise: float = 0.0, seed: int = 0) -> Problem:
    """The operator of that name on a mixture of `count` Gaussians; the picture behind y is drawn from the law."""
    operator, shape = OPERATORS[name]
    dim = int(np.prod(shape))
    law = oracle.several(dim, count, seed) if count > 1 else oracle.gaussian(dim, seed)
    truth = law.sample(jax.random.key(seed), 1).reshape(1, *shape)
    value = np.asarray(operator.apply(truth))
    value = value + noise * np.random.default_rng(seed).normal(size=value.shape) * (value != 0)
    return Problem(law, shape, operator, noise, value)


def sampled(found: Problem, editor, steps: int, count: int) -> chain.Sampled:
    """`count` samples of x_0 given y by an editor, with Heun's sampler where it leads one, from sigma = 80 to 0.005."""

    @jax.jit
    def drawn(sigmas):
        keys = randomness.examples(jax.random.key(1), jnp.arange(count))
        edited = editor(samplers.heun(), found.measurement())
        return chain.generate(found.law.images(), edited, sigmas, keys, found.shape)

    return drawn(grids.karras()(process.VE(sigma_min=0.005, sigma_max=80.0), steps))


def points(drawn: chain.Sampled) -> np.ndarray:
    """As [B, D] in float64."""
    return np.asarray(drawn.x, np.float64).reshape(len(drawn.x), -1)


class Error(NamedTuple):
    """mean: root mean square of the mean's error over that of the posterior's deviations; spread: the trace of the
    covariance over that of the exact one; covariance: the Frobenius norm of its error over that of the exact one."""

    mean: float
    spread: float
    covariance: float


def error(found: Problem, drawn: np.ndarray) -> Error:
    exact = found.posterior()
    off, cov, true = drawn.mean(0) - exact.mean(), np.cov(drawn.T), exact.cov()
    return Error(
        float(np.sqrt(np.sum(off**2) / np.trace(true))),
        float(np.trace(cov) / np.trace(true)),
        float(np.linalg.norm(cov - true) / np.linalg.norm(true)),
    )
