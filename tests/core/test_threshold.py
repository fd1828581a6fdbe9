import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.core import threshold

LIMITS = [name for name in threshold.__all__ if name != 'none']
SIGMA = jnp.linspace(0.1, 5.0, 4)
# Four pictures, the first inside of [-1, 1], the others further and further outside.
IMAGES = jax.random.uniform(jax.random.key(0), (4, 10, 10, 2), minval=-1, maxval=1)
IMAGES = IMAGES * jnp.asarray([1.0, 1.5, 4.0, 1000.0]).reshape(-1, 1, 1, 1)


def limit(name, images=IMAGES, sigma=SIGMA, **options):
    return jax.jit(getattr(threshold, name)(**options)(lambda x, sigma: x))(images, sigma)


@pytest.mark.parametrize('name', LIMITS)
def test_pictures_come_into_range_and_those_inside_stay_as_they_are(name):
    found = limit(name)
    assert np.abs(found).max() <= 1
    np.testing.assert_array_equal(found[0], IMAGES[0])
    np.testing.assert_array_equal(limit('none'), IMAGES)


@pytest.mark.parametrize('name', LIMITS)
def test_a_picture_does_not_depend_on_its_batch(name):
    np.testing.assert_array_equal(limit(name)[2:3], limit(name, IMAGES[2:3], SIGMA[2:3]))


def test_static_clips():
    np.testing.assert_array_equal(limit('static'), np.clip(IMAGES, -1, 1))


@pytest.mark.parametrize('percentile', [90.0, 99.5, 100.0])
def test_dynamic_divides_by_the_percentile_and_clips_what_lies_beyond(percentile):
    found, images = np.asarray(limit('dynamic', percentile=percentile)), np.asarray(IMAGES)
    for k in range(1, 4):
        inside = np.abs(found[k]) < 1 - 1e-6
        ratio = images[k][inside] / found[k][inside]
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)  # one divisor a picture
        assert ratio[0] > 1
        assert abs(np.mean(np.abs(images[k]) <= ratio[0] * (1 + 1e-5)) - percentile / 100) <= 1 / images[k].size
        np.testing.assert_allclose(found[k][~inside], np.sign(images[k][~inside]), rtol=1e-6)


@pytest.mark.parametrize('percentile', [0.0, -1.0, 101.0])
def test_a_percentile_out_of_range_is_refused(percentile):
    with pytest.raises(ValueError, match='percentile'):
        threshold.dynamic(percentile=percentile)
