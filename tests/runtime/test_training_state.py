import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion.runtime import checkpoint, ema, mesh, optimizer, state


def test_ema_against_its_closed_form():
    """Weights w_i of a sequence: product of the later decays times (1 - own decay)."""
    average, batch = ema.EMA(halflife=1000, ramp=0.1), 64
    values = np.random.default_rng(0).normal(size=200)
    found = jnp.zeros(())
    for step, value in enumerate(values):
        found = average.advance({'ema': found}, jnp.asarray(value, jnp.float32), step, batch)['ema']
    seen = (np.arange(200) + 1) * batch
    decays = 0.5 ** (batch / np.minimum(1000, 0.1 * seen))
    weights = (1 - decays) * np.append(np.cumprod(decays[::-1])[::-1][1:], 1)
    np.testing.assert_allclose(found, weights @ values, rtol=1e-4)


def test_ema_half_life_is_counted_in_images():
    for batch in (10, 100):
        decay = 1 - ema.EMA(halflife=5000, ramp=1e9).rates(10_000, batch)['ema']
        np.testing.assert_allclose(decay ** (5000 / batch), 0.5, rtol=1e-4)


def test_schedule_counts_images():
    rate = optimizer.schedule(2.0, warmup_images=1000, decay_images=4000, batch=10)
    np.testing.assert_allclose(rate(49), 1.0)
    np.testing.assert_allclose(rate(99), 2.0)
    np.testing.assert_allclose(rate(399), 2.0)
    np.testing.assert_allclose(rate(1599), 1.0)


def test_adam_is_optax_adam():
    params = {'layer': {'kernel': jnp.ones((2, 3)), 'bias': jnp.zeros(3)}}
    grads = jax.tree.map(lambda p: p + 0.3, params)
    mine, theirs = optimizer.adam(lr=0.1, b2=0.99)(8), optax.adam(0.1, b2=0.99)
    a, _ = mine.update(grads, mine.init(params), params)
    b, _ = theirs.update(grads, theirs.init(params), params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), a, b)


def test_weight_decay_spares_vectors():
    params = {'layer': {'kernel': jnp.ones((2, 3)), 'bias': jnp.ones(3)}}
    built = optimizer.adamw(lr=0.1, weight_decay=0.5)(8)
    update, _ = built.update(jax.tree.map(jnp.zeros_like, params), built.init(params), params)
    np.testing.assert_allclose(update['layer']['kernel'], -0.05, rtol=1e-5)
    np.testing.assert_allclose(update['layer']['bias'], 0)


def test_muon_makes_kernels_orthogonal_and_leaves_the_rest_to_adam():
    """The first update: the singular vectors of the gradient, all singular values near 0.2 sqrt(larger side)."""
    shapes = {'blocks': (3, 8, 16), 'conv': (3, 3, 4, 8), 'last': (8, 4)}
    keys = jax.random.split(jax.random.key(0), 3)
    grads = {name: {'kernel': jax.random.normal(key, shape)} for key, (name, shape) in zip(keys, shapes.items())}
    built = optimizer.muon(lr=0.1, weight_decay=0.0)(8)
    updates, _ = built.update(grads, built.init(grads), grads)
    matrices = [*zip(updates['blocks']['kernel'], grads['blocks']['kernel'])]
    matrices.append([tree['conv']['kernel'].reshape(36, 8) for tree in (updates, grads)])
    for update, gradient in matrices:
        u, _, v = np.linalg.svd(np.asarray(gradient, np.float64), full_matrices=False)
        found = -u.T @ np.asarray(update, np.float64) @ v.T / (0.1 * 0.2 * np.sqrt(max(update.shape)))
        np.testing.assert_allclose(found - np.diag(np.diag(found)), 0, atol=1e-3)
        assert np.all((np.diag(found) > 0.5) & (np.diag(found) < 1.5))
    # Dozat 2016: b1 (1 - b1) / (1 - b1**2) of the momentum, corrected for its beginning, and all of the gradient.
    nesterov = 0.9 * 0.1 / (1 - 0.81) + 1
    wanted = -0.1 * nesterov * np.sign(grads['last']['kernel'])
    np.testing.assert_allclose(updates['last']['kernel'], wanted, rtol=1e-4)


def test_adafactor_against_its_formula():
    """The first update of Shazeer & Stern 1804.04235, Algorithm 4: no memory, rows times columns over their sum."""
    gradient = np.asarray(jax.random.normal(jax.random.key(0), (128, 160)), np.float64)
    params = {'layer': {'kernel': jnp.ones((128, 160))}}
    built = optimizer.adafactor(lr=0.1, weight_decay=0.5)(8)
    made = built.init(params)
    assert sum(leaf.size for leaf in jax.tree.leaves(made)) < 300
    update, _ = built.update({'layer': {'kernel': jnp.asarray(gradient, jnp.float32)}}, made, params)
    square = gradient**2
    scaled = gradient / np.sqrt(square.sum(1, keepdims=True) * square.sum(0) / square.sum())
    scaled /= max(1, np.sqrt(np.mean(scaled**2)))
    np.testing.assert_allclose(update['layer']['kernel'], -0.1 * (scaled + 0.5), rtol=1e-4, atol=1e-7)


def init(key):
    return {'layer': {'kernel': jax.random.normal(key, (8, 4)), 'bias': jnp.zeros(4)}}


def test_a_checkpoint_comes_back_bit_for_bit_on_another_mesh(tmp_path):
    built = optimizer.adam(clip=1.0)(8)
    targets = [state.abstract(mesh.make(jax.devices()[:n], fsdp), init, built) for n, fsdp in ((8, 4), (2, 1))]
    made = state.create(targets[0], init, built, 3)
    saved = checkpoint.Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3):
        saved.save(step, made._replace(step=jnp.asarray(step, jnp.int32)), {'words': ['ä', 'b'], 'step': step})
        saved.wait()
    assert saved.steps() == [2, 3] and saved.latest() == 3
    assert saved.meta(3) == {'words': ['ä', 'b'], 'step': 3}
    back = saved.restore(3, targets[1])
    assert back.step == 3
    jax.tree.map(np.testing.assert_array_equal, back._replace(step=0), made._replace(step=0))
    assert jax.tree.structure(back) == jax.tree.structure(made)
    weights = saved.weights(3, 'ema', targets[1].params)
    jax.tree.map(np.testing.assert_array_equal, weights, made.ema['ema'])
    saved.close()


def test_no_checkpoint_is_an_error_that_names_the_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match='no complete checkpoint'):
        checkpoint.open_existing(tmp_path)
    with pytest.raises(FileNotFoundError, match='no workdir'):
        checkpoint.open_existing(tmp_path / 'nowhere')
    assert not list(tmp_path.iterdir())
