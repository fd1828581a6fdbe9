"""Log-densities, their dequantisation and their bound, against the exact law, closed forms and scipy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from diffusion.core import bound, dequantisation, divergence, likelihood, loss, ode, randomness
from tests import oracle

LOW, HIGH = 0.01, 80.0
BIN = 2 / 255


def keys_of(count, seed=0):
    return randomness.examples(jax.random.key(seed), jnp.arange(count))


@functools.partial(jax.jit, static_argnames=('law', 'probe', 'count'))
def log_density(x, high, law, probe='exact', count=0):
    trace = getattr(divergence, probe)(keys_of(len(x)), x.shape[1:], count)
    return likelihood.log_density(law().denoise, trace, x, LOW, high, ode.Method())


@functools.partial(jax.jit, static_argnames=('name', 'shape', 'count'))
def dequantised(name, shape, sigma, count):
    return getattr(dequantisation, name)(keys_of(count), shape, sigma)


def gaussian16():
    return oracle.gaussian(16)


def gaussian64():
    return oracle.gaussian(64)


@pytest.mark.parametrize('law', [oracle.plane, gaussian16, gaussian64])
def test_bits_per_dim_are_those_of_the_exact_law(law):
    """Of every single picture where the noise drowns the data, which it does at sigma 3000; on average at 80."""
    x = law().sample(jax.random.key(2), 128)
    exact = likelihood.bits_per_dim(law().log_density(x, jnp.full(128, LOW)), x.shape[1])
    for high, average in ((3000.0, lambda bits: bits), (HIGH, np.mean)):
        found = log_density(x, high, law)
        assert found.finished.all() and found.value.shape == (128, 1)
        bits = likelihood.bits_per_dim(found.value[:, 0], x.shape[1])
        np.testing.assert_allclose(average(bits), average(exact), atol=1e-3)


def test_bits_per_dim_of_a_gaussian_model_with_its_normal_prior():
    """The flow of a Gaussian stretches by sqrt((v + s1**2) / (v + s0**2)), so that its model has a closed density."""
    law = gaussian16()
    values, vectors = np.linalg.eigh(law.covs[0])
    x = np.asarray(law.sample(jax.random.key(2), 128), np.float64)
    scales = np.sqrt((values + HIGH**2) / (values + LOW**2))
    end = ((x - law.means[0]) @ vectors * scales) @ vectors.T + law.means[0]
    exact = stats.norm.logpdf(end, scale=HIGH).sum(1) + np.log(scales).sum()
    found = log_density(x.astype(np.float32), HIGH, gaussian16)
    np.testing.assert_allclose(found.value[:, 0] / (16 * np.log(2)), exact / (16 * np.log(2)), atol=3e-4)
    np.testing.assert_allclose(found.code, end / HIGH, atol=1e-3)


@pytest.mark.long
@pytest.mark.parametrize('probe', divergence.__all__)
def test_probes_agree_with_the_trace_within_their_error_bar(probe):
    x = oracle.plane().sample(jax.random.key(3), 8)
    found = log_density(x, 1000.0, oracle.plane, probe, 32).value
    spread = found.std(1, ddof=1) / np.sqrt(32) if found.shape[1] > 1 else 0.0
    exact = oracle.plane().log_density(x, jnp.full(8, LOW))
    assert (abs(found.mean(1) - exact) < 4 * spread + 2e-3).all()


def test_variance_of_the_probes():
    """For a symmetric matrix: 2 |A|**2 with normal probes, less its diagonal with signs; mean tr A."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(5, 5))
    matrix = (matrix + matrix.T) / 2
    whole, diagonal = (matrix**2).sum(), (np.diag(matrix) ** 2).sum()
    variances = {'gaussian': 2 * whole, 'rademacher': 2 * (whole - diagonal), 'exact': 0}
    x = rng.normal(size=(500, 5)).astype(np.float32)
    for name in divergence.__all__:
        trace = getattr(divergence, name)(keys_of(500), (5,), 8)
        value, found = jax.jit(functools.partial(trace, lambda x: x @ jnp.asarray(matrix, jnp.float32)))(x)
        np.testing.assert_allclose(value, x @ matrix, rtol=1e-4, atol=1e-5)
        error = np.sqrt(variances[name] / found.size)
        assert abs(found.mean() - np.trace(matrix)) < 4 * error + 1e-5
        np.testing.assert_allclose(np.var(found), variances[name], rtol=0.2, atol=1e-8)
    with pytest.raises(ValueError, match='use rademacher probes'):
        divergence.exact(keys_of(1), (32, 32, 3), 1)


@pytest.mark.parametrize('name', dequantisation.__all__)
def test_dequantised_density_integrates_to_the_probability_of_the_bin(name):
    """E_q[p / q] is the integral exactly, E_q[log p / q] below its logarithm by the divergence of q from p."""
    centre, sigma = 0.2, 0.003
    for spread in (0.3, 0.01):
        u, log_q = dequantised(name, (1,), sigma, 20_000)
        u = np.asarray(u, np.float64)[:, 0]
        assert np.abs(u).max() <= BIN / 2 and np.abs(u).max() > 0.95 * BIN / 2
        log_ratio = stats.norm.logpdf(centre + u, 0.19, spread) - log_q
        exact = np.diff(stats.norm.cdf([centre - BIN / 2, centre + BIN / 2], 0.19, spread))[0]
        error = np.exp(log_ratio).std() / np.sqrt(len(u))
        assert abs(np.exp(log_ratio).mean() - exact) < 4 * error + 1e-5 * exact
        assert log_ratio.mean() < np.log(exact) + 4 * log_ratio.std() / np.sqrt(len(u))
    density = {
        'uniform': lambda u: 1 / BIN,
        'truncated_normal': lambda u: stats.truncnorm.pdf(u / sigma, -BIN / 2 / sigma, BIN / 2 / sigma) / sigma,
    }[name]
    np.testing.assert_allclose(np.exp(log_q[:50]), [density(value) for value in u[:50]], rtol=1e-4)
    assert abs(integrate.quad(density, -BIN / 2, BIN / 2)[0] - 1) < 1e-6


def test_noise_of_a_picture_has_the_sum_of_its_pixels_densities():
    for name in dequantisation.__all__:
        one, several = (dequantised(name, shape, 0.003, 20_000)[1] for shape in ((1,), (2, 3, 1)))
        np.testing.assert_allclose(several.mean(), 6 * one.mean(), rtol=0.01)


@functools.partial(jax.jit, static_argnames='steps')
def bounded(x, steps):
    levels = bound.levels(LOW, HIGH, steps)
    return bound.variational(oracle.gaussian().denoise, x, levels, keys_of(len(x), 5), bound.gaussian)


@pytest.mark.long
def test_the_bound_is_the_one_of_a_gaussian_and_closes_in_on_its_likelihood():
    """E |x_0 - D|**2 is v s**2 / (v + s**2) in each direction, so that every term has a closed form."""
    law = oracle.gaussian()
    values = np.linalg.eigvalsh(law.covs[0])
    x = law.sample(jax.random.key(4), 2000)
    exact = -np.asarray(law.log_density(x, jnp.zeros(2000)))
    gaps = []
    for steps in (10, 100):
        found = bounded(x, steps)
        sigma = np.geomspace(HIGH, LOW, steps + 1)
        square = (values * sigma[:, None] ** 2 / (values + sigma[:, None] ** 2)).sum(1)
        terms = {
            'prior': 0.5 * (values.sum() + (law.means[0] ** 2).sum()) / HIGH**2,
            'diffusion': 0.5 * ((1 / sigma[1:] ** 2 - 1 / sigma[:-1] ** 2) * square[:-1]).sum(),
            'reconstruction': 0.5 * square[-1] / LOW**2 + 2 * np.log(2 * np.pi * LOW**2),
        }
        for name, term in terms.items():
            part = np.asarray(getattr(found, name))
            assert abs(part.mean() - term) < 4 * part.std() / np.sqrt(2000) + 1e-3, (name, steps)
        entropy = 0.5 * np.log(2 * np.pi * np.e * values).sum()
        gaps.append((sum(terms.values()) - entropy) / 4)
        total = np.asarray(sum(found))
        assert total.mean() > exact.mean() - 4 * (total - exact).std() / np.sqrt(2000)
    # Above the likelihood, by nats a dimension that shrink like the inverse of the steps.
    assert gaps[0] > 10 * gaps[1] and 0 < gaps[1] < 0.5


def test_eight_bit_probabilities():
    """Against scipy far into both tails; the 256 values of a pixel sum to one."""
    values = np.arange(256, dtype=np.uint8)
    x0 = loss.to_unit(jnp.asarray(values)).reshape(256, 1)
    for mean, sigma in ((-0.3, 0.01), (0.997, 0.004), (-1.3, 0.5), (0.0, 0.002)):
        found = bound.eight_bit(x0, jnp.full((256, 1), mean), sigma)
        np.testing.assert_allclose(special.logsumexp(np.asarray(found, np.float64)), 0, atol=1e-4)
        edges = np.concatenate([[-np.inf], (np.arange(255) + 0.5) / 127.5 - 1, [np.inf]])
        low, high = stats.norm.logcdf(edges[:-1], mean, sigma), stats.norm.logcdf(edges[1:], mean, sigma)
        above, below = stats.norm.logsf(edges[:-1], mean, sigma), stats.norm.logsf(edges[1:], mean, sigma)
        with np.errstate(divide='ignore', invalid='ignore'):
            left, right = high + np.log1p(-np.exp(low - high)), above + np.log1p(-np.exp(below - above))
        exact = np.where(values / 127.5 - 1 < mean, left, right)
        np.testing.assert_allclose(found, exact, rtol=2e-3, atol=2e-3)
