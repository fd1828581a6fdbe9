import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion.runtime import ema, guard, mesh, optimizer, state

EMA = ema.EMA(1000, 0.1)


def init(key):
    return {'first': {'kernel': jax.random.normal(key, (8, 4))}, 'second': {'bias': jnp.ones(4)}}


def loss(params, batch, key, memory):
    """Gradients that are not finite where `poison` is not: 0 of value, not of slope."""
    value = jnp.mean((batch['x'] @ params['first']['kernel'] + params['second']['bias']) ** 2)
    value += jnp.sum(jnp.sqrt(jnp.mean(batch['poison']) * params['second']['bias'] ** 2))
    return value, ({'loss': value}, {'adaptive': {'weight': memory['adaptive']['weight'] + value}})


def memory():
    return {'adaptive': {'weight': jnp.zeros(3)}}


@pytest.fixture(scope='module')
def made():
    grid = mesh.make(jax.devices(), fsdp=4)
    optimizer = optax.adam(0.1)
    target = state.abstract(grid, init, optimizer, memory, EMA)
    step = state.jit_step(state.step(loss, optimizer, EMA, 0), grid, target)
    fresh = functools.partial(state.create, target, init, optimizer, 0, memory, EMA)

    def batch(poison):
        return mesh.put(grid, {'x': np.ones((8, 8), np.float32), 'poison': np.full(8, poison, np.float32)})

    return step, fresh, batch


@pytest.mark.parametrize('poison', [np.nan, np.inf, -np.inf])
def test_a_step_that_is_not_finite_changes_the_counter_alone(made, poison):
    step, fresh, batch = made
    once, _ = step(fresh(), batch(1.0))
    before = jax.device_get(once)
    after, metrics = step(once, batch(poison))
    assert not metrics['guard']['ok']
    assert after.step == 2
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(after)._replace(step=1), before)


def test_a_gradient_that_is_not_finite_is_enough(made):
    """A loss of 0 whose slope is infinite: sqrt at 0."""
    step, fresh, batch = made
    after, metrics = step(fresh(), batch(0.0))
    assert np.isfinite(metrics['loss']) and not metrics['guard']['ok']
    norms = jax.device_get(metrics['guard']['norms'])
    (worst, norm), *_ = guard.largest(guard.layer_names(after.params), norms)
    assert worst == 'second/bias' and not np.isfinite(norm)


def test_a_step_that_is_finite_is_the_step_without_a_guard(made):
    step, fresh, batch = made
    found, metrics = step(fresh(), batch(1.0))
    assert metrics['guard']['ok']
    params, built = init(jax.random.key(0)), optax.adam(0.1)
    grads = jax.grad(lambda p: loss(p, {'x': jnp.ones((8, 8)), 'poison': jnp.ones(8)}, None, memory())[0])(params)
    updates, _ = built.update(grads, built.init(params), params)
    for mine, theirs in zip(jax.tree.leaves(found.params), jax.tree.leaves(optax.apply_updates(params, updates))):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)
    np.testing.assert_allclose(metrics['grad_norm'], optax.tree.norm(grads), rtol=1e-6)


@pytest.mark.parametrize('clip', [0.0, 1.0])
@pytest.mark.parametrize('name', optimizer.__all__)
def test_gradients_that_the_guard_lets_pass_make_updates_that_are_finite(name, clip):
    """The largest that have a finite norm, none, and the smallest: so the updates need not be judged themselves."""
    stack = {'kernel': jnp.ones((2, 4, 8)), 'bias': jnp.ones((2, 8))}
    params = {'first': {'kernel': jnp.ones((4, 4))}, 'blocks': stack}
    even = {'first': {'kernel': 1 / 4}, 'blocks': {'kernel': 32**-0.5, 'bias': 8**-0.5}}  # each layer of norm 1
    built = getattr(optimizer, name)(lr=0.1, clip=clip)(8)
    advance = jax.jit(lambda grads, standing: built.update(grads, standing, params))
    standing = built.init(params)
    for norm in (1.7e19, 0.0, 1e-19, 1.7e19, 1.7e19):
        grads = jax.tree.map(lambda leaf, part, norm=norm: jnp.full(leaf.shape, norm * part), params, even)
        assert guard.healthy(1.0, guard.layer_norms(grads))
        updates, standing = advance(grads, standing)
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((updates, standing)))


def test_the_standing_counts_in_a_row_and_passes_over_the_data_of_the_row():
    standing = guard.Standing()
    for step, ok in enumerate((True, False, True, False, False, False), 1):
        standing = standing.after(step, ok, limit=3)
    assert standing == guard.Standing(0, 3, 6, 0) and standing.over(3) and not standing.over(0)
    assert standing.after(7, True, limit=3) == standing
    back = standing.back(2, batch=10)
    # Step 3, the next one, begins where step 7 would have begun.
    assert 2 * 10 + back.offset == 6 * 10 and back.rollbacks == 1 and not back.bad
    again = back.after(3, False, 1).back(0, batch=10)
    assert 0 * 10 + again.offset == 3 * 10 + back.offset


def test_layers_that_are_not_finite_come_first():
    found = guard.largest(list('abcde'), np.array([1, np.nan, 7, np.inf, 3]), 4)
    assert {found[0][0], found[1][0]} == {'b', 'd'} and found[2:] == [['c', 7.0], ['e', 3.0]]


def test_layers_of_a_stack_are_told_apart():
    tree = {
        'blocks': {'up': {'kernel': jnp.arange(24.0).reshape(2, 3, 4), 'bias': jnp.ones((2, 4))}},
        'conv': {'kernel': jnp.ones((3, 3, 1, 4)), 'bias': jnp.ones(4)},
        'embedding': jnp.ones((5, 4)),
    }
    found = dict(zip(guard.layer_names(tree), guard.layer_norms(tree).tolist(), strict=True))
    kernel = np.arange(24.0)
    assert found == pytest.approx(
        {
            'blocks/up/bias[0]': 2,
            'blocks/up/bias[1]': 2,
            'blocks/up/kernel[0]': np.linalg.norm(kernel[:12]),
            'blocks/up/kernel[1]': np.linalg.norm(kernel[12:]),
            'conv/bias': 2,
            'conv/kernel': 6,
            'embedding': 20**0.5,
        }
    )
