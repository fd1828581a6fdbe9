import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.core import precond

SIGMA = jnp.asarray([1e-2, 0.3, 1.0, 7.0, 80.0])


def definition(name, x0, eps, s):
    """What each prediction type is said to predict, from its paper, in terms of x_0 and eps."""
    alpha, noise = 1 / np.sqrt(1 + s**2), s / np.sqrt(1 + s**2)
    return {'eps': eps, 'x0': x0, 'v': alpha * eps - noise * x0, 'flow': eps - x0}[name]


@pytest.mark.parametrize('name', ['eps', 'x0', 'v', 'flow'])
def test_a_network_that_predicts_its_target_denoises_exactly(name):
    rng = np.random.default_rng(0)
    x0, eps = rng.normal(size=(2, len(SIGMA), 4, 4, 1)).astype('float32')
    s = np.asarray(SIGMA)[:, None, None, None]
    target = definition(name, x0, eps, s)
    denoise = precond.denoiser(getattr(precond, name)(), lambda params, x, noise, cond, keys: jnp.asarray(target))
    found = denoise(None, jnp.asarray(x0 + s * eps), SIGMA, {})
    np.testing.assert_allclose(found, x0, atol=2e-5 * max(1, s.max()))


def test_flow_input_is_the_straight_path():
    coeffs, s = precond.flow()(SIGMA), np.asarray(SIGMA)
    t = s / (1 + s)
    x0, eps = 0.7, -1.3
    np.testing.assert_allclose(coeffs.inp * (x0 + s * eps), (1 - t) * x0 + t * eps, rtol=1e-5)


def test_edm_keeps_unit_variance():
    """Karras et al. 2206.00364, App. B.6: inputs and targets of F have unit variance at every sigma."""
    rng = np.random.default_rng(0)
    x0 = 0.6 * rng.normal(size=(200_000, 1))
    x = x0 + np.asarray(SIGMA) * rng.normal(size=(200_000, len(SIGMA)))
    coeffs = jax.tree.map(np.asarray, precond.edm(0.6)(SIGMA))
    np.testing.assert_allclose((coeffs.inp * x).std(0), 1, rtol=0.01)
    np.testing.assert_allclose(((x0 - coeffs.skip * x) / coeffs.out).std(0), 1, rtol=0.01)


@pytest.mark.parametrize('name', precond.__all__)
def test_the_denoiser_is_float32_whatever_the_network_computes_in(name):
    denoise = precond.denoiser(getattr(precond, name)(), lambda params, x, *_: x.astype(jnp.bfloat16))
    assert denoise(None, jnp.ones((5, 2, 2, 1)), SIGMA, {}).dtype == jnp.float32
