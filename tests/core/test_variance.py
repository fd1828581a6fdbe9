import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.core import chain, density, loss, precond, process, randomness, samplers, variance
from tests import oracle

VARIANCES = np.asarray([0.05, 0.4, 2.0])
LAW = oracle.Mixture(np.ones(1), np.asarray([[0.5, -0.3, 0.0]]), np.diag(VARIANCES)[None])


def optimal_fraction(v, s, s_next):
    """Where between the bounds the variance of p(x_s' | x_s) lies for data N(m, v), whose precision adds up:
    1 / (v + s'**2) + 1 / (s**2 - s'**2)."""
    step = s**2 - s_next**2
    wanted = 1 / (1 / (v + s_next**2) + 1 / step)
    low, high = (1 / (1 / (bound + s_next**2) + 1 / step) for bound in (0.0, 1.0))
    return np.log(wanted / low) / np.log(high / low)


def test_the_bounds_are_ddpms():
    """Ho et al. 2006.11239, Eq. 7 and beta_t, divided by alpha_{t-1}."""
    forward, t, before = process.VP(), 0.6, 0.5
    level, level_before = forward.alpha(t) ** 2, forward.alpha(before) ** 2
    beta = 1 - level / level_before
    posterior = (1 - level_before) / (1 - level) * beta
    found = variance.std(jnp.asarray([0.0, 0.5, 1.0]), forward.nsr(t), forward.nsr(before)) ** 2 * level_before
    np.testing.assert_allclose(found, [posterior, np.sqrt(posterior * beta), beta], rtol=1e-4)
    assert variance.std(jnp.asarray(0.3), forward.nsr(t), jnp.asarray(0.0)) == 0


def test_the_gaussian_has_the_variance_of_its_reverse_step():
    s, s_next = 1.7, 0.9
    fraction = optimal_fraction(VARIANCES, s, s_next)
    wanted = (VARIANCES + s_next**2) * (s**2 - s_next**2) / (VARIANCES + s**2)
    np.testing.assert_allclose(variance.std(jnp.asarray(fraction), s, s_next) ** 2, wanted, rtol=1e-5)


def test_the_bound_is_least_at_the_closed_form_and_teaches_no_mean():
    s, s_next = 1.7, 0.9
    x0 = LAW.sample(jax.random.key(0), 40_000)
    x = x0 + s * jax.random.normal(jax.random.key(1), x0.shape)
    estimate = LAW.denoise(x, jnp.full(len(x), s))

    def mean_divergence(fraction, shift):
        return jnp.sum(jnp.mean(variance.divergence(x0, estimate + shift, fraction, s, s_next), 0))

    slope, mean_slope = jax.grad(mean_divergence, (0, 1))(jnp.asarray(optimal_fraction(VARIANCES, s, s_next)), 0.0)
    steep = jax.grad(mean_divergence)(jnp.zeros(3), 0.0)
    assert np.all(np.abs(slope) < 0.04 * np.abs(steep)) and mean_slope == 0


@functools.partial(jax.jit, static_argnames='learned')
def draw(sigmas, learned, count=20_000):
    def moments(x, sigma):
        index = jnp.argmin(jnp.abs(sigmas - sigma[0]))
        fraction = jnp.asarray(FRACTIONS)[index]
        denoised = LAW.images()(x, sigma)
        return (denoised, jnp.broadcast_to(fraction, x.shape)) if learned else denoised

    keys = randomness.examples(jax.random.key(3), jnp.arange(count))
    return chain.generate(moments, samplers.ancestral(learned=learned), sigmas, keys, (1, 1, 3))


SIGMAS = np.asarray([60.0, 8.0, 2.0, 0.7, 0.2, 0.01, 0.0], np.float32)
FRACTIONS = np.asarray([*(optimal_fraction(VARIANCES, s, n) for s, n in itertools.pairwise(SIGMAS[:-1])), [0.5] * 3])


@pytest.mark.long
def test_with_the_right_variance_few_steps_are_exact():
    """The reverse step of a Gaussian is a Gaussian: six steps are enough, and with DDPM's variance they are not."""
    points = np.asarray(draw(jnp.asarray(SIGMAS), True).x).reshape(-1, 3)
    np.testing.assert_allclose(points.mean(0), LAW.means[0], atol=0.05)
    np.testing.assert_allclose(points.var(0), VARIANCES, rtol=0.04)
    other = np.asarray(draw(jnp.asarray(SIGMAS), False).x).reshape(-1, 3)
    assert np.all(other.var(0) < 0.9 * VARIANCES)


def test_the_learned_variance_is_that_of_eta_one():
    with pytest.raises(ValueError, match='contradict'):
        samplers.ancestral(eta=0.5, learned=True)
    found = draw(jnp.asarray(SIGMAS), True)
    assert found.nfe[0] == 6


def test_a_network_of_twice_the_channels_is_a_denoiser_and_a_fraction():
    output = np.random.default_rng(0).normal(size=(2, 4, 4, 6)).astype('float32')
    x, sigma = jnp.ones((2, 4, 4, 3)), jnp.asarray([0.3, 2.0])
    found, fraction = variance.moments(precond.eps(), lambda *_: jnp.asarray(output))(None, x, sigma, {})
    alone = precond.denoiser(precond.eps(), lambda *_: jnp.asarray(output[..., :3]))(None, x, sigma, {})
    np.testing.assert_array_equal(found, alone)
    np.testing.assert_allclose(fraction, (output[..., 3:] + 1) / 2, rtol=1e-6)


@pytest.mark.parametrize('rule', [density.uniform_t(), density.logit_normal()], ids=['uniform_t', 'logit_normal'])
def test_the_bound_is_the_sum_over_the_chain_whatever_the_density(rule):
    """With the exact moments of N(m, v) each term is log((v + s'**2) s**2 / ((v + s**2) s'**2)) / 2."""
    forward, steps = process.Flow(t_min=0.02, t_max=0.98), 50

    def exact(params, x, sigma, cond, keys):
        sigma_next = forward.nsr(jnp.maximum(forward.nsr_inverse(sigma) - 1 / steps, forward.t_min))
        s, n = sigma[:, None, None, None], jnp.minimum(sigma_next, 0.999 * sigma)[:, None, None, None]
        v = jnp.asarray(VARIANCES, jnp.float32)
        excess = jnp.log((v + n**2) * s**2 / ((v + s**2) * n**2))
        return LAW.images()(x, sigma), excess / jnp.log((1 + n**2) * s**2 / ((1 + s**2) * n**2))

    value = loss.denoising(exact, precond.eps(), forward, rule, {}, variance_steps=steps)
    x0 = LAW.sample(jax.random.key(0), 60_000).reshape(-1, 1, 1, 3)
    found = jax.jit(value)(None, x0, {}, jax.random.key(1))[1][0]['vlb']
    t = np.linspace(forward.t_min + 1e-6, forward.t_max, 20_001)
    before = np.maximum(t - 1 / steps, forward.t_min)
    s, n = (t / (1 - t))[:, None], (before / (1 - before))[:, None]
    terms = np.mean(np.log((VARIANCES + n**2) * s**2 / ((VARIANCES + s**2) * n**2)) / 2, 1)
    np.testing.assert_allclose(found, steps * np.trapezoid(terms, t), rtol=0.03)


def test_a_fraction_far_outside_keeps_the_chain_within_what_any_data_want():
    s, s_next = jnp.asarray(2.0), jnp.asarray(0.5)
    low, high = variance.std(jnp.asarray([-1e3, 1e3]), s, s_next)
    np.testing.assert_allclose([low, high], [0.25 * np.sqrt(3.75), np.sqrt(3.75)], rtol=1e-6)
    assert variance.std(jnp.asarray(1e3), s, jnp.asarray(0.0)) == 0
