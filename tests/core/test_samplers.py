"""Every process x grid x sampler draws the exact mixture when it is given its exact denoiser."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.core import chain, grids, process, randomness, samplers
from tests import oracle

LAW = oracle.plane()
ORDERS = {'euler': 1, 'heun': 2, 'ddim': 1}
# Steps after which the discretisation is below the sampling error of 20,000 points.
STEPS = {'heun': 60}
EVALUATIONS = {
    'euler': lambda n: n,
    'ddim': lambda n: n,
    'ancestral': lambda n: n,
    'heun': lambda n: 2 * n - 1,
}


@functools.partial(jax.jit, static_argnames=('name', 'count', 'options'))
def draw(name, sigmas, seed, count=20_000, options=()):
    keys = randomness.examples(jax.random.key(seed), jnp.arange(count))
    sampler = getattr(samplers, name)(**dict(options))
    return chain.generate(LAW.images(), sampler, sigmas, keys, (1, 1, 2)).x.reshape(count, 2)


def check_law(points):
    points = np.asarray(points)
    error = 5 / np.sqrt(len(points))
    np.testing.assert_allclose(points.mean(0), LAW.mean(), atol=error)
    np.testing.assert_allclose(np.cov(points.T), LAW.cov(), atol=2 * error)
    exact = np.asarray(LAW.sample(jax.random.key(99), 20_000))
    for axis in ([1, 0], [0, 1], [0.6, 0.8]):
        quantiles = np.linspace(0.05, 0.95, 10)
        mine, theirs = (np.quantile(p @ np.asarray(axis), quantiles) for p in (points, exact))
        np.testing.assert_allclose(mine, theirs, atol=3 * error)


@pytest.mark.parametrize('forward', [getattr(process, name)() for name in process.__all__], ids=process.__all__)
@pytest.mark.parametrize('name', samplers.__all__)
def test_law_is_recovered(forward, name):
    check_law(draw(name, grids.karras()(forward, STEPS.get(name, 200)), 0))


@pytest.mark.parametrize('name', grids.__all__)
def test_law_is_recovered_on_every_grid(name):
    check_law(draw('heun', getattr(grids, name)()(process.Cosine(), 150), 1))


@pytest.mark.parametrize('options', [(('churn', 30.0), ('churn_noise', 1.0)), (('churn', 10.0), ('churn_max', 1.0))])
def test_churn_keeps_the_law(options):
    check_law(draw('heun', grids.karras()(process.VE(), 100), 2, options=options))


def test_ddim_with_eta_keeps_the_law():
    check_law(draw('ddim', grids.karras()(process.VP(), 200), 3, options=(('eta', 0.5),)))


@pytest.mark.parametrize('name', ORDERS)
def test_order_of_convergence(name):
    """Against the closed solution of the probability-flow ODE of one Gaussian."""
    law = oracle.gaussian()
    x = 10.0 * np.random.default_rng(0).normal(size=(64, 4))
    exact = oracle.flow_map(law, x, 10.0)
    errors, counts = [], np.array([16, 32, 64, 128])
    for steps in counts:
        # Even steps of sigma near 0 too: a grid that is refined everywhere at the same rate.
        sigmas = jnp.asarray(10.0 * (1 - np.arange(steps + 1) / steps) ** 3, jnp.float32)
        sampler = jax.jit(functools.partial(getattr(samplers, name)(), law.images()))
        found = sampler(jnp.asarray(x, jnp.float32).reshape(64, 1, 1, 4), sigmas, None).x
        errors.append(np.abs(found.reshape(64, 4) - exact).mean())
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(slope - ORDERS[name]) < 0.2, (slope, errors)


@pytest.mark.parametrize('name', samplers.__all__)
def test_number_of_evaluations(name):
    calls = []

    def denoise(x, sigma):
        jax.debug.callback(lambda s: calls.append(float(s)), sigma[0])
        return x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)

    sigmas = grids.karras()(process.VE(), 7)
    keys = jax.random.split(jax.random.key(0), 1)
    found = jax.block_until_ready(getattr(samplers, name)()(denoise, jnp.ones((1, 1, 1, 1)), sigmas, keys))
    jax.effects_barrier()
    assert len(calls) == EVALUATIONS[name](7) == found.nfe
    assert min(calls) > 0


@pytest.mark.parametrize('name', samplers.__all__)
def test_an_example_does_not_depend_on_its_batch(name):
    sigmas = grids.karras()(process.VE(), 12)
    sampler = getattr(samplers, name)()
    together, alone = (
        chain.generate(
            LAW.images(),
            sampler,
            sigmas,
            randomness.examples(jax.random.key(0), jnp.asarray(seeds)),
            (1, 1, 2),
        ).x
        for seeds in ([3, 17, 4], [17])
    )
    np.testing.assert_allclose(together[1], alone[0], atol=1e-5)


def test_ancestral_variance_is_ddpms_posterior():
    """Ho et al. 2006.11239, Eq. 7: one step from t to t' of a DDPM with a denoiser that is always 0."""
    forward, t, before = process.VP(), 0.6, 0.5
    level, level_before = forward.alpha(t) ** 2, forward.alpha(before) ** 2
    beta = 1 - level / level_before
    expected = (1 - level_before) / (1 - level) * beta
    sigmas = jnp.asarray([forward.nsr(t), forward.nsr(before)])
    keys = jax.random.split(jax.random.key(0), 100_000)
    zero = jnp.zeros((100_000, 1, 1, 1))
    found = samplers.ancestral()(lambda x, sigma: zero, zero, sigmas, keys).x
    np.testing.assert_allclose(np.var(found) * level_before, expected, rtol=0.02)
