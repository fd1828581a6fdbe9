import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from diffusion.core import density, loss, precond, process
from tests import oracle


@pytest.mark.parametrize('name', precond.__all__)
def test_the_exact_denoiser_reaches_the_least_loss_there_is(name):
    """The posterior variance of N(m, V) is trace(V sigma**2 (V + sigma**2)**-1), here integrated."""
    law, row = oracle.gaussian(dim=4), getattr(precond, name)()
    values = np.linalg.eigvalsh(law.covs[0])

    def integrand(z):
        sigma = np.exp(-0.8 + 0.7 * z)
        out = float(row(jnp.asarray([sigma])).out[0])
        return stats.norm.pdf(z) * np.mean(values * sigma**2 / (values + sigma**2)) / out**2

    least = integrate.quad(integrand, -5, 5)[0]
    value = loss.denoising(
        lambda params, x, sigma, cond, keys: law.images()(x, sigma),
        row,
        process.VE(),
        density.log_normal(-0.8, 0.7),
        {},
    )
    x0 = law.sample(jax.random.key(0), 40_000).reshape(-1, 1, 1, 4)
    found = jax.jit(value)(None, x0, {}, jax.random.key(1))[0]
    np.testing.assert_allclose(found, least, rtol=0.03)


def test_noise_belongs_to_examples_of_a_step():
    seen = []

    def spy(params, x, sigma, cond, keys):
        seen.append((x, sigma))
        return x

    value = loss.denoising(spy, precond.edm(), process.VE(), density.log_normal(), {})
    zeros = jnp.zeros((8, 2, 2, 1))
    for key in (0, 0, 1):
        value(None, zeros, {}, jax.random.key(key))
    np.testing.assert_array_equal(seen[0][0], seen[1][0])
    assert not np.allclose(seen[0][0], seen[2][0])
    assert len(np.unique(np.asarray(seen[0][0]))) == zeros.size


def test_conditions_are_dropped_at_their_rate_and_whole():
    cond = {'label': jnp.arange(20_000), 'tokens': jnp.ones((20_000, 5), jnp.int32)}
    null = {'label': jnp.asarray(-1), 'tokens': jnp.zeros(5, jnp.int32)}
    dropped = loss.drop(jax.random.split(jax.random.key(0), 20_000), cond, null, 0.1)
    gone = np.asarray(dropped['label']) == -1
    assert abs(gone.mean() - 0.1) < 0.01
    np.testing.assert_array_equal(np.asarray(dropped['tokens']) == 0, np.repeat(gone[:, None], 5, 1))


def test_pixels_survive_the_round_trip():
    image = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    np.testing.assert_array_equal(loss.to_uint8(loss.to_unit(jnp.asarray(image))), image)
    assert loss.to_unit(jnp.asarray(image)).min() == -1 and loss.to_unit(jnp.asarray(image)).max() == 1
