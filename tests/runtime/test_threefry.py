import jax
import jax.extend.random
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.runtime import threefry

# Of Random123 (Salmon et al. 2011): key, counter, result.
KNOWN = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize('key, counter, expected', KNOWN)
def test_one_key_gives_the_known_answers(key, counter, expected):
    """By the function itself and by the primitive that JAX makes its bits of; tests/conftest.py has quickened it."""
    told = [jnp.uint32(word) for word in (*key, *counter)]
    for function in (threefry.words, jax.extend.random.threefry2x32_p.bind):
        np.testing.assert_array_equal(jax.jit(function)(*told), np.uint32(expected))


def test_a_key_an_example_gives_the_known_answers():
    keys, counters, expected = (np.uint32(column) for column in zip(*KNOWN))
    for function in (threefry.words, jax.extend.random.threefry2x32_p.bind):
        found = jax.jit(function)(*keys.T, *counters.T)
        np.testing.assert_array_equal(np.stack(found, 1), expected)


def test_only_keys_of_examples_are_made_in_loops():
    def loops(draw, key):
        return jax.jit(draw).lower(key).as_text().count('while')

    key = jax.random.key(0)
    assert loops(lambda key: jax.random.normal(key, (3,)), key) == 0
    assert loops(jax.vmap(lambda key: jax.random.normal(key, (3,))), jax.random.split(key, 2)) == 1
