"""The operators' algebra, each against its own matrix in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.core import operators

SHAPE = (8, 6, 3)
KEPT = (np.random.default_rng(0).random((1, *SHAPE[:2], 1)) < 0.6).astype(float)
ALL = {
    'mask': lambda: operators.mask(jnp.asarray(KEPT)),
    'downsample': lambda: operators.downsample(2),
    'grey': lambda: operators.grey(),
    'blur': lambda: operators.blur(0.8),
    'wide blur': lambda: operators.blur(1.5),  # loses frequencies
}


def matrix(function, shape):
    basis = jnp.eye(np.prod(shape)).reshape(-1, *shape)
    return np.asarray(function(basis)).reshape(len(basis), -1).T


@pytest.fixture(scope='module', params=ALL)
def system(request):
    """The operator, and A, A^T, A^+ as matrices."""
    with jax.enable_x64(True):
        operator = ALL[request.param]()
        seen = operator.apply(jnp.zeros((1, *SHAPE))).shape[1:]
        yield (
            operator,
            seen,
            matrix(operator.apply, SHAPE),
            matrix(operator.adjoint, seen),
            matrix(operator.pinv, seen),
        )


def test_the_adjoint_is_the_transpose(system):
    _, _, forward, adjoint, _ = system
    np.testing.assert_allclose(adjoint, forward.T, atol=1e-12)


def test_the_pseudo_inverse_meets_the_four_conditions_of_penrose(system):
    _, _, forward, _, inverse = system
    np.testing.assert_allclose(forward @ inverse @ forward, forward, atol=1e-10)
    np.testing.assert_allclose(inverse @ forward @ inverse, inverse, atol=1e-8)
    np.testing.assert_allclose(forward @ inverse, (forward @ inverse).T, atol=1e-10)
    np.testing.assert_allclose(inverse @ forward, (inverse @ forward).T, atol=1e-10)
    np.testing.assert_allclose(inverse, np.linalg.pinv(forward, rcond=1e-6), atol=1e-8)


def test_functions_of_the_gram_matrix(system):
    operator, seen, forward, _, _ = system
    found = matrix(lambda y: operator.function(lambda value: 1 / (value + 0.3), y), seen)
    np.testing.assert_allclose(found, np.linalg.inv(forward @ forward.T + 0.3 * np.eye(len(forward))), atol=1e-10)


def test_what_is_measured_is_met(system):
    operator, _, forward, _, _ = system
    truth, other = np.random.default_rng(1).normal(size=(2, 1, *SHAPE))
    found = operators.Measurement(operator, operator.apply(truth)).met(jnp.asarray(other))
    np.testing.assert_allclose(forward @ np.asarray(found).ravel(), forward @ truth.ravel(), atol=1e-10)
    hidden = np.eye(len(truth.ravel())) - np.linalg.pinv(forward, rcond=1e-6) @ forward
    np.testing.assert_allclose(hidden @ np.asarray(found).ravel(), hidden @ other.ravel(), atol=1e-8)


def test_the_blur_is_a_gaussian_and_keeps_the_mean():
    point = jnp.zeros((1, 16, 16, 1)).at[0, 8, 8, 0].set(1.0)
    found = np.asarray(operators.blur(1.0).apply(point))[0, :, :, 0]
    place = np.arange(16) - 8
    wanted = np.exp(-(place[:, None] ** 2 + place**2) / 2)
    np.testing.assert_allclose(found, wanted / wanted.sum(), atol=2e-3)  # the frequencies below PASSED are missing
    np.testing.assert_allclose(found.sum(), 1, atol=1e-5)
    with pytest.raises(ValueError, match='above 0'):
        operators.blur(0.0)


def test_grey_is_the_luminance_of_pillow():
    image = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
    from PIL import Image

    grey = np.asarray(Image.fromarray(image).convert('L')).astype(float)
    np.testing.assert_allclose(operators.grey().apply(image[None].astype(np.float32))[0, :, :, 0], grey, atol=0.51)


def test_pixels_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match='7 x 8 pixels do not divide by 2'):
        operators.downsample(2).apply(jnp.zeros((1, 7, 8, 3)))
