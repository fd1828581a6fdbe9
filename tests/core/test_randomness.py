"""Random numbers belong to examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.core import randomness


@pytest.mark.parametrize('shape', [(), (5,), (4, 6, 3)])
def test_normal_is_what_jax_draws_of_each_key(shape):
    keys = randomness.examples(jax.random.key(3), jnp.arange(4))
    found = jax.jit(lambda keys: randomness.normal(keys, shape))(jax.random.clone(keys))
    expected = np.stack([np.asarray(jax.random.normal(key, shape)) for key in keys])
    assert np.array_equal(found, expected)
