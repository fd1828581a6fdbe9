"""The adaptive solvers against closed forms, scipy and diffrax, on the exact mixture's ODE."""

import functools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy import integrate

from diffusion.core import chain, ode, randomness
from tests import oracle

LAW = oracle.plane()
LOW, HIGH = 0.01, 50.0
POINTS = HIGH * np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)


@functools.partial(jax.jit, static_argnames='method')
def flow(x, start, end, method):
    return ode.flow(LAW.denoise, x, start, end, method)


def slope(counts, errors):
    return -np.polyfit(np.log(counts), np.log(errors), 1)[0]


@pytest.mark.parametrize('name', ode.TABLEAUS)
def test_order_of_the_solution_and_of_its_error_estimate(name):
    """y' = y cos(t) from y(0) = 1 is exp(sin(t))."""
    tableau = ode.TABLEAUS[name]
    field = lambda y, t: y * jnp.cos(t)  # noqa: E731

    @functools.partial(jax.jit, static_argnames='steps')
    def fixed(y, steps):
        time, size = jnp.linspace(0, 6, steps + 1, dtype=y.dtype), jnp.full(1, 6 / steps, y.dtype)

        def step(carry, t):
            y, k = carry
            y, k, error = ode.tried(tableau, field, y, k, t[None], size)
            return (y, k), (y, error)

        _, (path, estimates) = jax.lax.scan(step, (y, field(y, 0.0)), time[:-1])
        return jnp.abs(path[:, 0] - jnp.exp(jnp.sin(time[1:]))).max(), jnp.abs(estimates).max()

    counts = np.array([64, 128, 256])
    with jax.enable_x64(True):
        found = np.array([fixed(jnp.ones(1, jnp.float64), int(steps)) for steps in counts])
    errors, estimates = found.T
    assert abs(slope(counts, errors) - tableau.order) < 0.2, errors
    # The embedded solution is one order lower, so that one step's estimate has the order of the solution.
    assert abs(slope(counts, estimates) - tableau.order) < 0.2, estimates


@pytest.fixture(scope='module')
def exact():
    """scipy's Runge-Kutta in float64, in the untransformed variables."""
    with jax.enable_x64(True):
        denoise = jax.jit(LAW.denoise)

        def field(sigma, flat):
            x = flat.reshape(-1, 2)
            return ((x - np.asarray(denoise(x, np.full(len(x), sigma)))) / sigma).ravel()

        solved = integrate.solve_ivp(field, (HIGH, LOW), POINTS.astype(np.float64).ravel(), rtol=1e-9, atol=1e-9)
    return solved.y[:, -1].reshape(-1, 2)


@pytest.mark.parametrize('name', ode.TABLEAUS)
def test_it_agrees_with_scipy_as_closely_as_it_is_told(name, exact):
    for tolerance in {'dopri5': (1e-3, 1e-6), 'bosh3': (1e-2, 1e-5)}[name]:
        found = flow(POINTS, HIGH, LOW, ode.Method(name, tolerance, tolerance))
        assert found.finished.all()
        # The ODE itself stretches an error of the first steps several times.
        np.testing.assert_allclose(found.state, exact, atol=30 * tolerance)


def test_it_agrees_with_diffrax(exact):
    def field(time, x, _):
        sigma = jnp.exp(time)
        return x - LAW.denoise(x[None], sigma[None])[0]

    @jax.jit
    def theirs(x):
        return diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            diffrax.Dopri5(),
            np.log(HIGH),
            np.log(LOW),
            None,
            x,
            stepsize_controller=diffrax.PIDController(rtol=1e-7, atol=1e-7),
        ).ys[0]

    found = flow(POINTS, HIGH, LOW, ode.Method('dopri5', 1e-6, 1e-6)).state
    np.testing.assert_allclose(found[:4], jnp.stack([theirs(x) for x in POINTS[:4]]), atol=1e-5)
    np.testing.assert_allclose(found, exact, atol=1e-5)


def test_there_and_back_by_the_closed_solution_of_a_gaussian():
    law = oracle.gaussian()
    values, vectors = np.linalg.eigh(law.covs[0])
    x = np.asarray(law.sample(jax.random.key(1), 8))
    stretched = (x - law.means[0]) @ vectors * np.sqrt((values + HIGH**2) / (values + LOW**2))
    method = ode.Method('dopri5', 1e-6, 1e-6)
    solve = jax.jit(lambda x, start, end: ode.flow(law.denoise, x, start, end, method).state)
    there = solve(x, LOW, HIGH)
    np.testing.assert_allclose(there / HIGH, (stretched @ vectors.T + law.means[0]) / HIGH, atol=1e-5)
    np.testing.assert_allclose(solve(there, HIGH, LOW), x, atol=3e-5)


def test_every_example_has_levels_steps_and_costs_of_its_own():
    method = ode.Method('dopri5', 1e-4, 1e-4)
    start = np.geomspace(0.02, HIGH, 16, dtype=np.float32)
    x = POINTS / HIGH * start[:, None]
    together = flow(x, start, np.full(16, LOW), method)
    assert len(np.unique(together.nfe)) > 3
    assert (together.nfe == 1 + 6 * (together.accepted + together.rejected)).all()
    for i in (0, 15):
        # The same shape, so that only the neighbours differ.
        alone = flow(np.repeat(x[i : i + 1], 16, 0), np.full(16, start[i]), np.full(16, LOW), method)
        np.testing.assert_allclose(alone.state[0], together.state[i], atol=1e-6)
        assert (alone.nfe == together.nfe[i]).all() and (alone.accepted == together.accepted[i]).all()


def test_eight_devices_find_what_one_finds():
    mesh = Mesh(np.asarray(jax.devices()), ('data',))
    split, whole = NamedSharding(mesh, PartitionSpec('data')), NamedSharding(mesh, PartitionSpec())
    method = ode.Method('dopri5', 1e-6, 1e-6)
    solve = jax.jit(
        lambda x, start, end: ode.flow(LAW.denoise, x, start, end, method),
        in_shardings=(split, whole, whole),
        out_shardings=split,
    )
    many, one = solve(POINTS, HIGH, LOW), flow(POINTS, HIGH, LOW, method)
    np.testing.assert_allclose(many.state, one.state, atol=1e-5)
    np.testing.assert_allclose(many.nfe, one.nfe, atol=12)
    assert len(many.state.sharding.device_set) == 8


@pytest.mark.parametrize('name', ode.__all__)
def test_a_sampler_counts_its_evaluations_and_ends_at_zero(name):
    law, calls = oracle.gaussian(), []

    def denoise(x, sigma):
        jax.debug.callback(lambda s: calls.append(float(s)), sigma.min())
        return law.images()(x, sigma)

    tolerance = 1e-5
    sampler = getattr(ode, name)(rtol=tolerance, atol=tolerance)
    keys = randomness.examples(jax.random.key(0), jnp.arange(6))
    sigmas = jnp.asarray([HIGH, 1.0, 0.002, 0.0])
    noise = chain.initial_noise(keys, (1, 1, 4), HIGH)
    found = jax.block_until_ready(jax.jit(functools.partial(sampler, denoise))(noise, sigmas, keys))
    jax.effects_barrier()
    assert found.finished.all() and len(calls) == found.nfe.max() and min(calls) > 0.0019
    stages = {'dopri5': 6, 'bosh3': 3}[name]
    assert (found.nfe == 2 + stages * (found.accepted + found.rejected)).all()
    # The last step, from 0.002 to 0 at once, leaves an error of the order of its square.
    exact = oracle.flow_map(law, np.asarray(noise).reshape(6, 4), HIGH)
    np.testing.assert_allclose(found.x.reshape(6, 4), exact, atol=10 * tolerance)


def test_running_out_of_steps_or_of_numbers_is_said():
    few = flow(POINTS, HIGH, LOW, ode.Method('dopri5', 1e-6, 1e-6, max_steps=5))
    assert not few.finished.any() and np.isfinite(few.state).all()
    assert (few.accepted + few.rejected == 5).all() and (np.exp(few.time) > LOW).all()

    def broken(x, sigma):
        return jnp.where(sigma[:, None] < 1, jnp.nan, LAW.denoise(x, sigma)).reshape(x.shape)

    x, start = POINTS[:2], jnp.asarray([HIGH, HIGH])
    found = jax.jit(lambda x: ode.flow(broken, x, start, jnp.asarray([LOW, 2.0]), ode.Method()))(x)
    assert found.finished.tolist() == [False, True] and np.isfinite(found.state).all()
    assert np.exp(found.time[0]) >= 1 and found.nfe.max() < 1000  # given up, not tried to max_steps
    for wrong in (dict(rtol=0.0), dict(atol=-1.0), dict(max_steps=0)):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ode.dopri5(**wrong)
