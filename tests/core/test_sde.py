import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from diffusion.core import process, sde
from tests import oracle
from tests.core import test_process

MEAN, VARIANCE = 0.7, 0.4
NORMAL = oracle.Mixture(np.ones(1), np.full((1, 1), MEAN), np.full((1, 1, 1), VARIANCE))
LAW = oracle.plane()


@pytest.mark.parametrize('name', process.__all__)
def test_the_marginals_of_a_gaussian_solve_its_equations(name):
    """Moments of p_t: m' = f m and P' = 2 f P + g**2, which for a Gaussian is the Fokker-Planck equation; and the
    velocity that carries p_t along is m' + P' / (2 P) (x - m)."""
    forward = getattr(process, name)()
    t, step = np.linspace(0.05, 0.95, 12), 1e-5

    def moments(t):
        alpha, sigma = test_process.exact(forward, t)
        return np.stack([alpha * MEAN, alpha**2 * VARIANCE + sigma**2])

    mean, var = moments(t)
    mean_rate, var_rate = (moments(t + step) - moments(t - step)) / (2 * step)
    drift, diffusion2 = forward.drift(t), forward.diffusion2(t)
    np.testing.assert_allclose(drift * mean, mean_rate, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(2 * drift * var + diffusion2, var_rate, rtol=1e-3, atol=1e-4)

    x = mean + np.sqrt(var) * np.linspace(-2, 2, len(t))
    arguments = NORMAL.denoise, forward, jnp.asarray(x[:, None], jnp.float32), jnp.asarray(t, jnp.float32)
    velocity = mean_rate + var_rate / (2 * var) * (x - mean)
    scale = np.abs(velocity).max()
    # The difference of D and x is that of rounded numbers.
    error = np.abs(sde.score(*arguments)[:, 0] - (mean - x) / var)
    assert np.all(error < 1e-3 * np.abs((mean - x) / var) + 3e-7 / np.asarray(forward.sigma(t)) ** 2)
    np.testing.assert_allclose(sde.flow_drift(*arguments)[:, 0], velocity, rtol=2e-3, atol=1e-4 * scale)
    backwards = velocity + diffusion2 / 2 * (x - mean) / var
    np.testing.assert_allclose(sde.reverse_drift(*arguments)[:, 0], backwards, rtol=2e-3, atol=1e-4 * scale)


@functools.partial(jax.jit, static_argnames='name')
def reverse(name, times, key, count=4000):
    """Euler-Maruyama of the reverse SDE in the coordinates of x_t, down to x_0 = x_t / alpha."""
    forward = getattr(process, name)()

    def step(x, now):
        t, t_next, key = now
        level = jnp.full(count, t)
        noise = jnp.sqrt((t - t_next) * forward.diffusion2(t)) * jax.random.normal(key, x.shape)
        return x - (t - t_next) * sde.reverse_drift(LAW.denoise, forward, x, level) + noise, None

    first, rest = jax.random.split(key)
    x = forward.sigma(times[0]) * jax.random.normal(first, (count, 2))
    x, _ = lax.scan(step, x, (times[:-1], times[1:], jax.random.split(rest, len(times) - 1)))
    return x / forward.alpha(times[-1])


@pytest.mark.parametrize('name', ['VP', 'SubVP', 'Flow'])
def test_the_reverse_sde_recovers_the_law(name):
    forward = getattr(process, name)()
    times = forward.nsr_inverse(jnp.exp(jnp.linspace(jnp.log(60.0), jnp.log(0.02), 300)))
    points = np.asarray(reverse(name, times, jax.random.key(0)))
    np.testing.assert_allclose(points.mean(0), LAW.mean(), atol=0.08)
    np.testing.assert_allclose(np.cov(points.T), LAW.cov(), atol=0.08)
