import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.core import density, dependence, process

NULL = {'label': np.int32(4)}
MEANS = jnp.array([-3.0, -1.0, 1.0, 3.0, 0.0])


@pytest.mark.parametrize('heed', [0.0, 0.5, 0.9])
def test_the_gap_of_a_model_that_answers_with_a_share_of_the_mean_of_a_class(heed):
    """D = heed x mean of the class, 0 without a class: heed / (1 - heed) in closed form."""
    labels = jnp.arange(64) % 4
    x0 = MEANS[labels][:, None, None, None] * jnp.ones((1, 2, 2, 3))

    def denoiser(params, x, sigma, cond, keys=None):
        return params * jnp.broadcast_to(MEANS[cond['label']][:, None, None, None], x.shape)

    gap = dependence.condition_gap(denoiser, process.VE(), density.log_normal(), NULL)
    found = jax.jit(gap)(heed, x0, {'label': labels}, jax.random.key(0))
    np.testing.assert_allclose(found, heed / (1 - heed), rtol=1e-5)
