"""Conditions that are pictures: what is hidden, what is told, and how well samples keep to it."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from diffusion.core import augment, conditioning, density, loss, masks, precond, process, randomness

MAKERS = {name: getattr(conditioning, name) for name in conditioning.__all__}
KINDS = [masks.boxes, masks.strokes, masks.half, masks.full]


def keys(indices):
    return randomness.examples(jax.random.key(3), jnp.asarray(indices))


# Makers are hashable, and op by op they would be compiled many times over.
masked = jax.jit(lambda maker, keys, height, width: maker.masks(keys, height, width), static_argnums=(0, 2, 3))
told_of = jax.jit(lambda maker, keys, x0: maker.pictures(keys, x0), static_argnums=0)


def pictures(count, height=16, width=12):
    return np.random.default_rng(0).uniform(-1, 1, (count, height, width, 3)).astype(np.float32)


@pytest.mark.parametrize('kind', KINDS, ids=lambda kind: kind.__name__)
def test_a_mask_hides_something_and_follows_from_its_own_key(kind):
    drawn = jax.jit(kind, static_argnums=(1, 2))
    found = np.asarray(drawn(keys(range(64)), 16, 12))
    assert found.shape == (64, 16, 12) and set(np.unique(found)) <= {0.0, 1.0}
    assert found.any((1, 2)).all()
    np.testing.assert_array_equal(found[[40, 7]], drawn(keys([40, 7]), 16, 12))
    if kind is masks.full:
        return
    assert not found.all((1, 2)).any() and len(np.unique(found.reshape(64, -1), axis=0)) > 12
    # Every pixel is hidden at times and shown at times.
    share = np.asarray(drawn(keys(range(2000)), 16, 12)).mean(0)
    assert share.min() > 0.01 and share.max() < 0.9


def test_half_hides_one_side_up_to_a_line():
    for mask in np.asarray(jax.jit(masks.half, static_argnums=(1, 2))(keys(range(32)), 10, 14)):
        rows, columns = mask.any(1), mask.any(0)
        assert mask.sum() == rows.sum() * columns.sum() and (rows.all() or columns.all())
        assert 0.2 < mask.mean() < 0.8


def test_inpaint_draws_masks_in_the_shares_asked_for():
    maker = conditioning.Inpaint(boxes=0, strokes=0, half=3, full=0.25)
    found = np.asarray(masked(maker, keys(range(4000)), 8, 8))[..., 0]
    assert abs(found.all((1, 2)).mean() - 0.25) < 0.03
    only = conditioning.Inpaint(boxes=1, strokes=0, half=0, full=0.0)
    assert not np.asarray(masked(only, keys(range(200)), 16, 16)).all((1, 2, 3)).any()


def test_inpaint_tells_what_is_not_hidden_and_nothing_of_what_is():
    maker, x0 = conditioning.Inpaint(), pictures(32)
    told = np.asarray(told_of(maker, keys(range(32)), x0))
    mask = told[..., -1:]
    np.testing.assert_array_equal(told[..., :3], np.where(mask == 1, 0, x0))
    other = np.where(mask == 1, -x0, x0)
    np.testing.assert_array_equal(told, told_of(maker, keys(range(32)), other))
    everything = maker.adherence(told, x0, x0)
    assert everything['agreement'] == 1 and everything['colour'] == 0
    hidden_only = maker.adherence(told, x0, other)
    assert hidden_only['agreement'] == 1 and hidden_only['colour'] == 0
    off = maker.adherence(told, x0, x0 + 0.5)
    np.testing.assert_allclose([off['agreement'], off['colour']], [0, 0.5], atol=1e-6)


def test_super_resolution_tells_the_means_of_squares_and_their_noise():
    quiet = conditioning.SuperResolution(factor=4, noise=0.0, dropout=0.0)
    x0 = pictures(2)
    told = np.asarray(told_of(quiet, keys(range(2)), x0))
    means = x0.reshape(2, 4, 4, 3, 4, 3).mean((2, 4))
    np.testing.assert_allclose(told[..., :3], means.repeat(4, 1).repeat(4, 2), atol=1e-6)
    assert not told[..., 3].any()
    loud = conditioning.SuperResolution(factor=4, noise=0.5, dropout=0.0)
    told = np.asarray(told_of(loud, keys(range(400)), np.repeat(x0[:1], 400, 0)))[:, ::4, ::4]
    level = 0.5 * told[..., 3].mean((1, 2))
    noise = (told[..., :3] - means[0]).std((1, 2, 3))
    assert abs(np.mean(noise / level) - 1) < 0.05 and abs(level.mean() - 0.25) < 0.03
    given = np.asarray(loud.given(means[:1], None, 0.25))
    np.testing.assert_allclose(given[..., :3], means[:1].repeat(4, 1).repeat(4, 2), atol=1e-6)
    assert np.all(given[..., 3] == 0.5)
    with pytest.raises(ValueError, match='knows noise up to'):
        loud.given(means[:1], None, 0.6)
    with pytest.raises(ValueError, match='do not divide by factor=4'):
        loud.check((18, 16, 3))


def test_edges_are_those_of_sobel():
    x = pictures(3)
    grey = x.mean(-1)
    length = [np.hypot(ndimage.sobel(g, 0, mode='nearest'), ndimage.sobel(g, 1, mode='nearest')) / 8 for g in grey]
    found = np.asarray(conditioning.edges(jnp.asarray(x), 0.2))[..., 0]
    np.testing.assert_array_equal(found, np.stack(length) > 0.2)
    maker = conditioning.Edges(dropout=0.0)
    told = told_of(maker, keys(range(3)), x)
    np.testing.assert_array_equal(told[..., 0], 2 * found - 1)
    assert float(maker.adherence(told, x, x)['edge_f1']) == pytest.approx(1)
    assert float(maker.adherence(told, x, np.zeros_like(x))['edge_f1']) == 0
    # A line that lies two pixels off is found in a picture of 128 pixels, not in one of 16.
    for size, found in ((16, 0.0), (128, 1.0)):
        line, moved = (np.zeros((1, size, size, 3), np.float32) for _ in range(2))
        line[:, size // 2 :], moved[:, size // 2 + 2 :] = 1, 1
        given = maker.given(jnp.asarray(line), None, 0.0)
        assert float(maker.adherence(given, jnp.asarray(line), jnp.asarray(moved))['edge_f1']) == pytest.approx(found)


@pytest.mark.parametrize('name', MAKERS)
def test_a_condition_belongs_to_its_example_and_is_dropped_in_its_share(name):
    share = {'full' if name == 'Inpaint' else 'dropout': 0.3}
    maker, x0 = MAKERS[name](**share), np.repeat(pictures(1), 2000, 0)
    assert 'channels' in inspect.signature(MAKERS[name]).parameters
    told = np.asarray(told_of(maker, keys(range(2000)), x0))
    assert told.shape == (2000, 16, 12, maker.width) and maker.null.shape == (1, 1, maker.width)
    nothing = (told == maker.null).all((1, 2, 3)).mean()
    assert maker.dropped == 0.3 and abs(nothing - 0.3) < 0.04
    np.testing.assert_allclose(told[[5, 90]], told_of(maker, keys([5, 90]), x0[:2]), atol=1e-6)
    assert maker.shown(told[:2]).shape == (2, 16, 12, 3)


def test_the_loss_of_parts_is_that_of_the_whole_and_changes_with_the_step():
    """The denoiser sees nothing but the condition, so that the loss is what that leaves out of the picture."""
    maker, x0 = conditioning.Inpaint(full=0.0), pictures(6)
    built = loss.denoising(
        lambda params, x, sigma, cond, key: cond['picture'][..., :3],
        precond.x0(),
        process.VE(),
        density.log_normal(),
        {},
        augmentation=augment.flip(),
        pictures=maker.pictures,
    )
    key = jax.random.key(1)
    part = jax.jit(lambda x0, key, places: built.part({}, x0, {}, key, {}, (places, 6))[0])
    whole = part(x0, key, np.arange(6))
    parts = [part(x0[i : i + 2], key, np.arange(i, i + 2)) for i in (0, 2, 4)]
    np.testing.assert_allclose(np.mean(parts), whole, rtol=1e-5)
    assert part(x0, jax.random.key(2), np.arange(6)) != whole
    # Of a mirrored picture the mirrored one is told: what is seen of it is no loss.
    assert 0 < whole < np.mean(x0**2)


@pytest.mark.parametrize(
    'name,values',
    [
        ('Inpaint', dict(full=1.5)),
        ('Inpaint', dict(boxes=0, strokes=0, half=0)),
        ('SuperResolution', dict(factor=1)),
        ('Edges', dict(threshold=0)),
        ('Edges', dict(dropout=1)),
    ],
)
def test_what_cannot_be_is_refused(name, values):
    with pytest.raises(ValueError):
        MAKERS[name](**values)
