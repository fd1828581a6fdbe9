import jax
import jax.numpy as jnp
import numpy as np

from diffusion.core import guidance, latents, ode
from tests import oracle

LAW = oracle.plane()
LOW, HIGH = 0.005, 80.0
METHOD = ode.Method('dopri5', 1e-6, 1e-6)


def conditional(x, sigma, cond):
    """The exact denoiser of N(label, I / 4) in every direction: label 0 is the null condition."""
    spread, sigma2 = 0.25, sigma[:, None] ** 2
    return (spread * x + sigma2 * cond['label'][:, None]) / (spread + sigma2)


def test_codes_are_unit_normal_and_lead_back():
    x = LAW.sample(jax.random.key(0), 2000)
    # The law that the model ends with is smoothed by its smallest level.
    x = x + LOW * jax.random.normal(jax.random.key(1), x.shape)
    codes = jax.jit(lambda x: latents.encode(LAW.denoise, x, LOW, HIGH, METHOD))(x)
    assert codes.finished.all()
    np.testing.assert_allclose(codes.state.mean(0), 0, atol=0.1)
    np.testing.assert_allclose(np.cov(codes.state.T), np.eye(2), atol=0.15)
    back = jax.jit(lambda code: latents.decode(LAW.denoise, code, LOW, HIGH, METHOD))(codes.state)
    # Between two modes the ODE parts its ways, and there alone is the error more than the tolerance.
    error = np.abs(back.state - x)
    assert np.quantile(error, 0.99) < 1e-4 and error.max() < 1e-2


def test_a_guided_model_has_codes_too():
    """Guidance by 2 leads this model to N(2 label, I / 4), whose flow is known."""
    x = np.asarray(LAW.sample(jax.random.key(2), 6))
    cond, null = {'label': jnp.asarray([0.0, 1.0, 2.0, 0.0, 1.0, 2.0])}, {'label': jnp.zeros(6)}
    denoise = guidance.classifier_free(2.0)(conditional, cond, guidance.Beside(null))
    code = jax.jit(lambda x: latents.encode(denoise, x, LOW, HIGH, METHOD).state)(x)
    mean = 2 * np.asarray(cond['label'])[:, None]
    exact = mean + (x - mean) * np.sqrt((0.25 + HIGH**2) / (0.25 + LOW**2))
    np.testing.assert_allclose(code, exact / HIGH, atol=1e-4)
    back = jax.jit(lambda code: latents.decode(denoise, code, LOW, HIGH, METHOD).state)(code)
    np.testing.assert_allclose(back, x, atol=1e-4)


def test_another_condition_moves_the_picture_as_the_exact_flows_do():
    """From N(a, I / 4) to N(b, I / 4): the two flows up to a level and down again, each in closed form."""
    x, level = np.asarray(LAW.sample(jax.random.key(3), 4)), 0.7
    a, b = (lambda x, sigma, value=value: conditional(x, sigma, {'label': jnp.full(4, value)}) for value in (0.0, 2.0))
    code = jax.jit(lambda x: latents.encode(a, x, LOW, level, METHOD).state)(x)
    moved = jax.jit(lambda code: latents.decode(b, code, LOW, level, METHOD))(code)
    grown = np.sqrt((0.25 + level**2) / (0.25 + LOW**2))
    np.testing.assert_allclose(moved.state, 2 + (x * grown - 2) / grown, atol=1e-4)
    assert moved.finished.all()


def test_slerp_goes_along_the_great_circle():
    a, b = np.zeros((2, 3, 1), np.float32), np.zeros((2, 3, 1), np.float32)
    a[0, 0], b[1, 2] = 2.0, 2.0
    path = np.asarray(latents.slerp(a, b, np.linspace(0, 1, 5, dtype=np.float32)))
    np.testing.assert_allclose(path[[0, -1]], [a, b], atol=1e-6)
    np.testing.assert_allclose(np.sqrt((path**2).sum((1, 2, 3))), 2, rtol=1e-6)
    np.testing.assert_allclose(np.arctan2(path[:, 1, 2, 0], path[:, 0, 0, 0]), np.linspace(0, np.pi / 2, 5), atol=1e-6)
    # Along one direction there is no circle, and the way is straight.
    np.testing.assert_allclose(latents.slerp(a, 2 * a, np.float32([0, 0.5, 1])), [a, 1.5 * a, 2 * a], rtol=1e-6)
