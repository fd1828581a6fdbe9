"""Averages against their closed forms, and averages made afterwards against those that were kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.runtime import combining, ema, mesh, profiles

LENGTHS = (0.05, 0.1)


def weights_of(length, steps):
    """Of the parameters of steps 1, 2, ... in the average after `steps`: tau**gamma integrated over each step."""
    power = profiles.exponent(length) + 1
    edges = (np.arange(steps + 1) / steps) ** power
    return np.diff(edges)


def density(length, end, tau):
    gamma = profiles.exponent(length)
    return np.where(tau <= end, (gamma + 1) * (tau / end) ** gamma / end, 0.0)


@pytest.mark.parametrize('length', [0.01, 0.05, 0.1, 0.2, 0.288])
def test_the_length_is_the_standard_deviation_of_the_profile(length):
    tau = (np.arange(400_000) + 0.5) / 400_000
    weight = density(length, 1.0, tau)
    weight /= weight.sum()
    mean = weight @ tau
    np.testing.assert_allclose(np.sqrt(weight @ (tau - mean) ** 2), length, rtol=1e-4)


@pytest.mark.parametrize('length', [0.0, -0.1, 0.289, 0.5])
def test_a_length_that_no_profile_has_is_refused(length):
    with pytest.raises(ValueError, match='length'):
        profiles.exponent(length)


@pytest.mark.parametrize('batch', [16, 64])
def test_every_average_is_its_closed_form_at_any_batch(batch):
    averages = ema.EMA(halflife=1000, ramp=0.2, others=(3000,), profiles=LENGTHS)
    steps = 300
    values = np.random.default_rng(0).normal(size=steps)
    found = averages.begin(jnp.float32(7.0))
    for step, value in enumerate(values):
        found = averages.advance(found, jnp.asarray(value, jnp.float32), step, batch)
    seen = (np.arange(steps) + 1) * batch
    for name, halflife in (('ema', 1000), ('ema_3000', 3000)):
        decays = 0.5 ** (batch / np.minimum(halflife, 0.2 * seen))
        weights = (1 - decays) * np.append(np.cumprod(decays[::-1])[::-1][1:], 1)
        np.testing.assert_allclose(found[name], weights @ values + 7 * np.prod(decays), atol=1e-5)
    for length in LENGTHS:
        np.testing.assert_allclose(found[profiles.name(length)], weights_of(length, steps) @ values, atol=1e-5)


def test_far_into_a_training_the_share_keeps_its_digits():
    """Of 1 - decay in float32 one digit would be left here: 65536 of 2**41 images."""
    step, batch = 2**25, 2**16
    rates = ema.EMA(halflife=2**41, ramp=1.0, profiles=(0.1,)).rates(step, batch)
    np.testing.assert_allclose(rates['ema'], -np.expm1(np.log(0.5) * batch / 2**41), rtol=1e-5)
    exact = -np.expm1((profiles.exponent(0.1) + 1) * np.log1p(-1 / (step + 1.0)))
    np.testing.assert_allclose(rates['power_0.1'], exact, rtol=1e-5)


def test_a_stored_average_is_combined_of_itself_alone():
    stored = [(step, length) for step in (100, 200, 300) for length in LENGTHS]
    for at, (step, length) in enumerate(stored):
        earlier = [term for term in stored if term[0] <= step]
        weights = profiles.combination(earlier, step, length)
        np.testing.assert_allclose(weights, np.arange(len(earlier)) == at, atol=1e-6)
        assert profiles.mismatch(earlier, weights, step, length) < 1e-6


@pytest.mark.parametrize('length', [0.03, 0.07, 0.15, 0.25])
def test_the_combination_is_the_least_squares_of_the_profiles(length):
    stored = [(step, kept) for step in (40, 70, 100) for kept in LENGTHS]
    tau = (np.arange(200_000) + 0.5) / 2000
    columns = np.stack([density(kept, step, tau) for step, kept in stored], axis=1)
    wanted = density(length, 100, tau)
    best = np.linalg.lstsq(columns, wanted, rcond=None)[0]
    weights = profiles.combination(stored, 100, length)
    distances = [np.linalg.norm(columns @ w - wanted) / np.linalg.norm(wanted) for w in (weights, best)]
    np.testing.assert_allclose(distances[0], distances[1], rtol=1e-3)
    np.testing.assert_allclose(profiles.mismatch(stored, weights, 100, length), distances[0], rtol=1e-3)


@pytest.mark.parametrize('length,off', [(0.04, 0.05), (0.07, 0.01), (0.12, 0.01), (0.2, 0.02)])
def test_an_average_made_afterwards_is_near_the_one_that_was_not_kept(length, off):
    """Steps 1 to 1600 with a snapshot every 50: within the Cauchy-Schwarz bound of any values, and close in profile."""
    steps, every = 1600, 50
    values = np.random.default_rng(1).normal(size=steps) + np.cos(np.arange(steps) / 100)
    stored = [(step, kept) for step in range(every, steps + 1, every) for kept in LENGTHS]
    kept = np.array([weights_of(kept, step) @ values[:step] for step, kept in stored])
    weights = profiles.combination(stored, steps, length)
    away = profiles.mismatch(stored, weights, steps, length)
    assert away < off
    gamma = profiles.exponent(length)
    norm = (gamma + 1) / np.sqrt((2 * gamma + 1) * steps)
    bound = away * norm * np.linalg.norm(values)
    assert abs(weights @ kept - weights_of(length, steps) @ values) <= bound * 1.0001 + 1e-9


def test_a_weighted_sum_is_sharded_and_exact():
    place = jax.sharding.NamedSharding(mesh.make(jax.devices(), 8), jax.sharding.PartitionSpec('fsdp'))
    draw = np.random.default_rng(2)
    arrays = draw.normal(size=(30, 16, 3)).astype(np.float32)
    weights = draw.normal(size=30) * 1e4
    weights[-1] = 1 - weights[:-1].sum()
    terms = ((weight, {'a': jax.device_put(array, place)}) for weight, array in zip(weights, arrays))
    found = combining.weighted_sum(terms)['a']
    assert found.dtype == jnp.float32 and found.sharding.is_equivalent_to(place, 2)
    np.testing.assert_allclose(found, np.einsum('i,ijk->jk', weights, arrays.astype(np.float64)), rtol=1e-6)


@pytest.mark.parametrize(
    'options,say',
    [
        (dict(halflife=0), 'above 0'),
        (dict(others=(500_000,)), 'twice'),
        (dict(profiles=(0.1, 0.1)), 'twice'),
        (dict(profiles=(0.3,)), 'length 0.3'),
        (dict(snapshot_every=100), 'only'),
    ],
)
def test_averages_that_cannot_be_are_refused(options, say):
    with pytest.raises(ValueError, match=say):
        ema.EMA(**options)
