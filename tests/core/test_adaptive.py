import jax
import jax.numpy as jnp
import numpy as np

from diffusion.core import adaptive, density

BINS = 16


def loss(u):
    """Large in the middle, small at the ends."""
    return 0.1 + jnp.exp(-((u - 0.5) ** 2) / 0.02)


@jax.jit
def remembered(steps=200):
    """The memory after batches of 64, and the u that were drawn last."""

    def step(memory, key):
        u, _ = adaptive.draw(memory, density.stratified(key, 64))
        return adaptive.remember(memory, adaptive.seen(BINS, u, loss(u))), u

    return jax.lax.scan(step, adaptive.initial(BINS), jax.random.split(jax.random.key(0), 200))


MEMORY, DRAWN = remembered()
V = (jnp.arange(200_000) + 0.5) / 200_000


def test_bins_are_drawn_by_the_root_mean_square_of_their_loss():
    """Nichol & Dhariwal 2102.09672, Eq. 18, beside 1 % of uniform draws."""
    inside = (np.arange(BINS)[:, None] + np.linspace(0, 1, 1001)) / BINS
    root = np.sqrt(np.mean(np.asarray(loss(inside)) ** 2, 1))
    wanted = 0.99 * root / root.sum() + 0.01 / BINS
    np.testing.assert_allclose(adaptive.probabilities(MEMORY), wanted, rtol=0.1)
    u, _ = adaptive.draw(MEMORY, V)
    np.testing.assert_allclose(np.histogram(u, BINS, (0, 1))[0] / len(V), adaptive.probabilities(MEMORY), atol=1e-4)


def test_the_expected_loss_is_unchanged_and_its_variance_smaller():
    u, weight = adaptive.draw(MEMORY, V)
    plain, adapted = np.asarray(loss(V), np.float64), np.asarray(weight * loss(u), np.float64)
    np.testing.assert_allclose(adapted.mean(), plain.mean(), rtol=1e-4)
    assert adapted.var() < 0.3 * plain.var()


def test_nothing_is_preferred_before_every_bin_is_known():
    memory = adaptive.initial(BINS)
    low = jnp.linspace(0.0, 0.9, 500)
    u, weight = adaptive.draw(adaptive.remember(memory, adaptive.seen(BINS, low, loss(low))), V)
    np.testing.assert_allclose(u, V, atol=1e-6)
    np.testing.assert_allclose(weight, 1, rtol=1e-5)


def test_draws_rise_and_stay_inside_and_stratified():
    u, weight = (np.asarray(a) for a in adaptive.draw(MEMORY, jnp.asarray([0.0, 1e-7, 0.3, 0.6, 1 - 2.0**-24])))
    assert np.all(np.diff(u) >= 0) and u[0] >= 0 and u[-1] < 1 and np.all(weight > 0)
    counts = np.histogram(DRAWN[-1], BINS, (0, 1))[0]
    assert np.all(np.abs(counts - 64 * np.asarray(adaptive.probabilities(MEMORY))) < 2)
