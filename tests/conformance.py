"""What a sampler promises in its docstring, and what it does to the exact mixture: for the tests and the benchmark.

A sampler's docstring ends with "Order: 2. NFE: 2 N - 1." for its defaults. "(weak)" marks the order of the moments of
a stochastic sampler, "none" an error that does not vanish with N, "adaptive" a sampler that chooses its own steps.
"""

import functools
import itertools
import random
import re
from typing import NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from scipy import integrate

from diffusion import build
from diffusion.core import brownian, chain, precond, randomness, weighting
from tests import oracle

SAMPLERS = build.SCHEMA['sampler'].constructors
PROCESSES = build.SCHEMA['process'].constructors


class Promise(NamedTuple):
    """order: None where there is none; weak: of moments; nfe: in N, None where adaptive."""

    order: int | None
    weak: bool
    nfe: str | None

    def evaluations(self, steps: int) -> int:
        return eval(re.sub(r'(\d) N', r'\1 * N', self.nfe), {'N': steps})


def promise(name: str) -> Promise:
    found = re.search(
        r'Order: (\d|none|adaptive)( \(weak\))?\. NFE: (adaptive|[\dN +-]+)\.', ' '.join(SAMPLERS[name].__doc__.split())
    )
    assert found, f'the docstring of {name} does not end with "Order: ... NFE: ..."'
    order, weak, nfe = found.groups()
    return Promise(int(order) if order.isdigit() else None, bool(weak), None if nfe == 'adaptive' else nfe)


def draw(denoise, name: str, sigmas, shape, count: int, seed: int = 0, first: int = 0, **options) -> chain.Sampled:
    """Samples first, first + 1, ... (count of them), each from its own key, as `diffusion sample` draws them."""
    keys = randomness.examples(jax.random.key(seed), first + jnp.arange(count))
    return chain.generate(denoise, SAMPLERS[name](**options), sigmas, keys, shape)


def even_grid(steps: int, dtype=None, high: float = 10.0):
    """Levels that come closer everywhere at the same rate as steps grow: what a convergence order needs."""
    return jnp.asarray(high * (1 - np.arange(steps + 1) / steps) ** 3, dtype)


@functools.cache
def ode_truth(count: int = 64, high: float = 10.0) -> tuple[np.ndarray, np.ndarray]:
    """Points at sigma = high, and where the probability-flow ODE of the mixture takes them, by scipy in float64."""
    law = oracle.plane()
    start = high * np.random.default_rng(0).normal(size=(count, law.dim))

    with jax.enable_x64(True):
        slope = jax.jit(lambda x, sigma: law.velocity(x, jnp.full(count, sigma)))

        def field(sigma, flat):
            return np.asarray(slope(flat.reshape(count, -1), sigma)).ravel()

        solved = integrate.solve_ivp(field, (high, 1e-7), start.ravel(), 'DOP853', rtol=1e-12, atol=1e-12)
    return start, solved.y[:, -1].reshape(count, -1)


def ode_errors(name: str, counts, **options) -> np.ndarray:
    """Mean distance of a sampler from `ode_truth`, in float64."""
    start, truth = ode_truth()
    with jax.enable_x64(True):
        x = jnp.asarray(start).reshape(len(start), 1, 1, -1)
        keys = jax.random.split(jax.random.key(0), len(start))
        law, sampler = oracle.plane(), SAMPLERS[name](**options)
        run = jax.jit(lambda sigmas: sampler(law.images(), x, sigmas, keys).x)
        found = [np.asarray(run(even_grid(steps))).reshape(truth.shape) for steps in counts]
    return np.array([np.abs(points - truth).mean() for points in found])


def weak_errors(name: str, counts, variance: float = 0.5, **options) -> np.ndarray:
    """Error of the variance that a stochastic sampler gives to N(0, variance), without any sampling.

    Its denoiser is linear, so the sample is a linear function of the noise it starts from and of the increments of the
    Brownian path: one example for each of them, with 1 there and 0 elsewhere, gives its coefficient.
    """
    errors = []
    for steps in counts:
        sigmas = np.asarray(even_grid(steps))
        logs = np.log(sigmas[:-1])
        knots = np.sort(np.concatenate([[-20.0], logs, (logs[1:] + logs[:-1]) / 2]))

        def basis(keys, shape, sigma, knots=knots):
            # Example i > 0 has the path that rises between knots i - 1 and i alone, by a standard deviation.
            width = jnp.asarray(np.diff(knots))
            log_sigma = jnp.log(sigma)
            share = jnp.clip((jnp.clip(log_sigma, -20.0, None) - knots[:-1]) / width, 0, 1) * jnp.sqrt(width)
            inside = jnp.concatenate([jnp.zeros(1), share]).reshape(-1, *[1] * len(shape)) * jnp.ones(shape)
            return brownian.Place(log_sigma, jnp.int32(0), inside)

        def denoise(x, sigma):
            return x * (variance / (variance + sigma**2)).reshape(-1, 1, 1, 1)

        start = jnp.zeros((len(knots), 1, 1, 1)).at[0].set(np.sqrt(variance + sigmas[0] ** 2))
        with mock.patch.object(brownian, 'place', basis), jax.enable_x64(True):
            keys = jax.random.split(jax.random.key(0), len(knots))
            found = jax.jit(lambda x, s, k: SAMPLERS[name](**options)(denoise, x, s, k).x)(
                jnp.asarray(start, float), even_grid(steps), keys
            )
            errors.append(abs(float(jnp.sum(found**2)) - variance))
    return np.array(errors)


def order(errors, counts) -> float:
    """The slope of log error against log steps."""
    return -np.polyfit(np.log(counts), np.log(errors), 1)[0]


def through(coeffs, exact, dtype=jnp.float32):
    """The exact denoiser (x, sigma, cond) -> D as a prediction type has it: by a network F = (D - skip x) / out that
    returns dtype. coeffs: a `precond.Precond`."""

    def network(params, scaled, noise, cond, keys):
        sigma = jnp.exp(4 * noise)
        skip, out, inp, _ = (precond.per_example(c, scaled) for c in coeffs(sigma))
        return ((exact(scaled / inp, sigma, cond) - skip * scaled / inp) / out).astype(dtype)

    denoise = precond.denoiser(coeffs, network)
    return lambda x, sigma, cond: denoise(None, x, sigma, cond)


def through_row(row: str, law: oracle.Mixture, dtype=jnp.float32):
    """`through` a prediction type by name, without a condition."""
    denoise = through(getattr(precond, row)(), lambda x, sigma, cond: law.images()(x, sigma), dtype)
    return lambda x, sigma: denoise(x, sigma, {})


def covering(*axes) -> list[tuple]:
    """Some of the product of the axes, so few that they hold every pair of values of two axes once at least."""
    product = list(itertools.product(*axes))
    random.Random(0).shuffle(product)
    seen, chosen = set(), []
    for place in product:
        pairs = set(itertools.combinations(enumerate(place), 2))
        if not pairs <= seen:
            seen |= pairs
            chosen.append(place)
    return chosen


def denoiser_error(row: str, level: float, dtype: str) -> float:
    """Root mean square of what `through` misses of D at one noise level, over 512 points."""
    law, sigma = oracle.plane(), jnp.full(512, level)
    noise = jax.random.normal(jax.random.key(1), (512, law.dim))
    x = (law.sample(jax.random.key(0), 512) + level * noise).reshape(512, 1, 1, -1)
    found = through_row(row, law, jnp.dtype(dtype))(x, sigma)
    return float(jnp.sqrt(jnp.mean((found - law.images()(x, sigma)) ** 2)))


def weight(name: str, sigma):
    """A weighting at sigma: [B], for a network that predicts noise and levels drawn evenly in log sigma."""
    level = weighting.Level(sigma, precond.eps()(sigma).out, jnp.ones_like(sigma))
    return getattr(weighting, name)()(level)
