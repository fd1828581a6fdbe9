import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion.runtime import ema, mesh, meter, state, vitals


def test_changed_counts_what_the_precision_lets_through():
    """Half of 1's spacing in float32 is 2**-24: half a spacing is rounded away, a whole one is not."""
    params = {'a': jnp.ones(6), 'b': jnp.full(2, 2.0**-20)}
    updates = {'a': jnp.array([0, 2.0**-25, 2.0**-25, 2.0**-23, -(2.0**-23), 1]), 'b': jnp.full(2, 2.0**-25)}
    assert vitals.changed(params, optax.apply_updates(params, updates)) == (3 + 2) / 8
    low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    assert vitals.changed(low, optax.apply_updates(low, updates)) == 1 / 8 + 2 / 8


def test_distance_is_relative():
    params = {'a': jnp.array([3.0, 0.0]), 'b': jnp.array([[4.0]])}
    np.testing.assert_allclose(vitals.distance(jax.tree.map(lambda p: 0.9 * p, params), params), 0.1, rtol=1e-6)
    assert vitals.distance(params, params) == 0


@pytest.fixture(scope='module')
def rows():
    """Six steps of a line through the origin, with signs every third."""
    grid = mesh.make(jax.devices())

    def init(key):
        return {'kernel': jnp.ones((2, 1))}

    def loss(params, batch, key, memory):
        value = jnp.mean((batch['x'] @ params['kernel']) ** 2)
        return value, ({'loss': value}, memory)

    def probe(params, batch, key):
        return {'gap': jnp.sum(params['kernel'])}

    built, average = optax.sgd(0.1), ema.EMA(8, 1e9)
    target = state.abstract(grid, init, built, dict, average)
    step = state.jit_step(state.step(loss, built, average, 0, probe=probe, every=3), grid, target)
    current, rows = state.create(target, init, built, 0, dict, average), []
    for _ in range(6):
        current, measured = step(current, mesh.put(grid, {'x': np.eye(2, dtype=np.float32).repeat(4, 0)}))
        rows.append((jax.device_get(measured), jax.device_get((current.params, current.ema))))
    return rows


def test_signs_are_taken_at_their_steps_alone(rows):
    for number, (row, (params, averages)) in enumerate(rows, 1):
        if number % 3:
            np.testing.assert_array_equal(row['gap'], [0, 0])
            np.testing.assert_array_equal(row['ema_distance'], [0, 0])
        else:
            gap = np.sum(params['kernel'])
            away = np.linalg.norm(averages['ema']['kernel'] - params['kernel']) / np.linalg.norm(params['kernel'])
            np.testing.assert_allclose(row['gap'], [gap, 1], rtol=1e-6)
            np.testing.assert_allclose(row['ema_distance'], [away, 1], rtol=1e-5)
        assert row['changed'] == 1
    meters = meter.Meter(8)
    for row, _ in rows[:3]:
        meters.add({name: value for name, value in row.items() if name != 'guard'})
    np.testing.assert_allclose(meters.summary()['gap'], np.sum(rows[2][1][0]['kernel']), rtol=1e-6)
