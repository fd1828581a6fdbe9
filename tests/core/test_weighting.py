import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.core import density, precond, process, weighting

SIGMA = np.asarray([1e-3, 0.03, 0.5, 1.0, 6.0, 1e3])
SNR = SIGMA**-2.0
SPREAD = np.asarray([1.0, 3.0, 2.0, 0.5, 7.0, 4.0])
# The weight on the squared error of eps, as each paper has it; that of x_0 is SNR times it.
ON_EPS = {
    'edm': (weighting.edm(0.6), (SIGMA**2 + 0.36) / (SIGMA * 0.6) ** 2 / SNR),
    'min_snr': (weighting.min_snr(5.0), np.minimum(SNR, 5) / SNR),
    'soft_min_snr': (weighting.soft_min_snr(4.0), 4 / (SNR + 4)),
    'p2': (weighting.p2(2.0, 0.5), 1 / (2 + SNR) ** 0.5),
    'sigmoid': (weighting.sigmoid(-2.0), SPREAD / (1 + np.exp(2.0 + np.log(SNR)))),
    'likelihood': (weighting.likelihood(), SPREAD),
}


@pytest.mark.parametrize('weigh,on_eps', ON_EPS.values(), ids=ON_EPS)
def test_the_formulas_of_the_papers(weigh, on_eps):
    assert set(ON_EPS) | {'uniform'} == set(weighting.__all__)
    level = weighting.Level(*(jnp.asarray(a, jnp.float32) for a in (SIGMA, SIGMA, SPREAD)))
    np.testing.assert_allclose(weigh(level), SNR * on_eps, rtol=1e-5)


@pytest.mark.parametrize('name', precond.__all__)
def test_uniform_is_the_plain_squared_error_of_the_network(name):
    row = getattr(precond, name)()
    sigma, target, output = jnp.asarray([0.3, 2.0]), jnp.asarray([0.4, -1.0]), jnp.asarray([0.1, 0.5])
    coeffs = row(sigma)
    denoised = coeffs.skip * 0.7 + coeffs.out * jnp.stack([target, output])
    weight = weighting.uniform()(weighting.Level(sigma, coeffs.out, sigma))
    np.testing.assert_allclose(weight * (denoised[1] - denoised[0]) ** 2, (output - target) ** 2, rtol=1e-5)


def test_edms_weight_is_uniform_on_edms_network():
    sigma = jnp.asarray(SIGMA, jnp.float32)
    level = weighting.Level(sigma, precond.edm(0.6)(sigma).out, sigma)
    np.testing.assert_allclose(weighting.edm(0.6)(level), weighting.uniform()(level), rtol=1e-5)


@pytest.mark.parametrize('name', ['uniform_t', 'logit_normal', 'mode', 'cosmap'])
@pytest.mark.parametrize('bias', [None, 1.0], ids=['likelihood', 'sigmoid'])
def test_the_elbo_does_not_depend_on_the_density(name, bias):
    """Data N(0, v): the least loss at sigma is v sigma**2 / (v + sigma**2), and the integral of that over sigma**3 is
    log(sigma**2 / (v + sigma**2)) / 2 between the ends; the sigmoid's is summed over log sigma."""
    v, forward = 0.3, process.Flow(t_min=0.03, t_max=0.97)
    u = (jnp.arange(400_000) + 0.5) / 400_000
    rule = getattr(density, name)()
    sigma, slope = jax.jvp(lambda u: rule(forward, u), (u,), (jnp.ones_like(u),))
    weigh = weighting.likelihood() if bias is None else weighting.sigmoid(bias)
    weight = weigh(weighting.Level(sigma, jnp.ones_like(sigma), slope / sigma))
    found = np.mean(np.asarray(weight * v * sigma**2 / (v + sigma**2), np.float64))
    low, high = np.asarray(forward.nsr_range(), np.float64)
    wanted = 0.5 * (np.log(high**2 / (v + high**2)) - np.log(low**2 / (v + low**2)))
    if bias is not None:
        z = np.linspace(np.log(low), np.log(high), 20_001)
        wanted = np.trapezoid(v / (v + np.exp(2 * z)) / (1 + np.exp(-bias - 2 * z)), z)
    np.testing.assert_allclose(found, wanted, rtol=0.01)
