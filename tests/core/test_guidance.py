import jax
import jax.numpy as jnp
import numpy as np

from diffusion.core import guidance
from tests import oracle

LAW = oracle.plane()


def conditional(x, sigma, cond):
    """The exact denoiser of a mixture's component, or of all of it where the label is -1."""
    flat = x.reshape(len(x), -1)
    every = jnp.stack([LAW.denoise(flat, sigma), *(LAW.component(k).denoise(flat, sigma) for k in range(3))])
    return every[cond['label'] + 1, jnp.arange(len(x))].reshape(x.shape)


X = jax.random.normal(jax.random.key(0), (6, 1, 1, 2))
SIGMA = jnp.linspace(0.2, 2.0, 6)
COND = {'label': jnp.asarray([0, 1, 2, 0, 1, 2])}
NULL = {'label': jnp.full(6, -1)}


def test_scale_one_is_exactly_the_conditional_model_and_zero_the_other():
    guide = jax.jit(lambda scale: guidance.classifier_free(scale)(conditional, COND, NULL)(X, SIGMA))
    np.testing.assert_array_equal(guide(1.0), jax.jit(conditional)(X, SIGMA, COND))
    np.testing.assert_allclose(guide(0.0), conditional(X, SIGMA, NULL), atol=1e-6)


def test_scale_moves_along_the_scores_of_the_tilted_law():
    """p(x) (p(x | c) / p(x))**w has the score s(x) + w (s(x | c) - s(x)): the gradient of the tilted law itself."""
    scale = 2.5

    def log_tilted(x, sigma, k):
        x, sigma = x[None], sigma[None]
        base, part = LAW.log_density(x, sigma), LAW.component(k).log_density(x, sigma)
        return (base + scale * (part - base))[0]

    guided = guidance.classifier_free(scale)(conditional, COND, NULL)(X, SIGMA)
    for i in range(6):
        score = jax.grad(log_tilted)(X[i].reshape(2), SIGMA[i], int(COND['label'][i]))
        np.testing.assert_allclose(guided[i].reshape(2), X[i].reshape(2) + SIGMA[i] ** 2 * score, atol=2e-4)


def test_one_call_of_twice_the_batch():
    sizes = []

    def counting(x, sigma, cond):
        sizes.append(len(x))
        return x

    guidance.classifier_free(3.0)(counting, COND, NULL)(X, SIGMA)
    assert sizes == [12]
