import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from scipy import ndimage, stats

from diffusion.core import augment, randomness

SHARE = 0.3


def keys(count, seed=0):
    return randomness.examples(jax.random.key(seed), jnp.arange(count))


def pictures(count, height=16, width=16, seed=0):
    """Smooth, without a symmetry: [count, height, width, 3]."""
    noise = np.random.default_rng(seed).standard_normal((count, height, width, 3))
    return ndimage.gaussian_filter(noise, (0, 2, 2, 0), mode='mirror').astype(np.float32) * 3


def place(labels):
    """The affine map that nine labels stand for, in float64: the matrix and the shift over a side, (x, y)."""
    mirrored, upended, scale, cos, sin, along, across, *shift = np.asarray(labels, np.float64)
    stretch = np.hypot(along, across)
    direction = np.array([along, across]) / (stretch or 1)
    projection = np.outer(direction, direction)
    outward = 2 ** (0.2 * stretch) * projection + 2 ** (-0.2 * stretch) * (np.eye(2) - projection)
    turn = np.array([[cos + 1, -sin], [sin, cos + 1]])
    flips = np.diag([1 - 2 * mirrored, 1 - 2 * upended])
    return (outward if stretch else np.eye(2)) @ turn @ flips * 2 ** (0.2 * scale), np.array(shift) / 8


def moved(picture, matrix, shift):
    """The same affine map by scipy, cubic splines over the mirror image: [H, W, C]."""
    centre = (np.array(picture.shape[1::-1]) - 1) / 2
    y, x = np.meshgrid(*map(np.arange, picture.shape[:2]), indexing='ij')
    there = np.stack([x.ravel(), y.ravel()], -1) - centre - shift * picture.shape[1::-1]
    x, y = (there @ np.linalg.inv(matrix).T + centre).T
    channels = [ndimage.map_coordinates(c, [y, x], order=3, mode='mirror') for c in np.moveaxis(picture, -1, 0)]
    return np.stack(channels, -1).reshape(picture.shape)


@pytest.mark.parametrize('height,width', [(16, 16), (12, 20)])
def test_an_augmented_picture_is_the_affine_map_that_its_labels_tell(height, width):
    """Against scipy. The direction of a stretching has two signs, of which the labels name one."""
    x = pictures(200, height, width)
    out, labels = jax.jit(augment.edm(0.5).apply)(keys(200), x)
    shrunk = 0
    for before, after, told in zip(x, np.asarray(out), np.asarray(labels)):
        matrix, shift = place(told)
        opposite = np.linalg.inv(place([0, 0, 0, 0, 0, *told[5:7], 0, 0])[0])
        either = matrix, opposite @ opposite @ matrix
        if min(np.linalg.svd(one)[1].min() for one in either) < 0.8:
            shrunk += 1  # there an antialiased picture is smoother than the one that scipy reads off
            continue
        errors = [np.sqrt(np.mean((moved(before, one, shift) - after) ** 2)) for one in either]
        assert min(errors) < 0.06 * before.std()
    assert shrunk < 100


@pytest.fixture(scope='module')
def drawn():
    """20,000 small pictures before and after, and what is told of them, at the probability SHARE."""
    x = pictures(200, 4, 6)[..., :1].repeat(100, 0)
    return x, *map(np.asarray, jax.jit(augment.edm(SHARE).apply)(keys(len(x)), x))


def test_label_zero_is_the_picture_itself_bit_for_bit_and_has_its_share(drawn):
    before, after, labels = drawn
    still = ~np.any(labels, 1)
    np.testing.assert_array_equal(after[still], before[still])
    assert not np.any(np.all(after[~still] == before[~still], (1, 2, 3)))
    share = 0.5 * (1 - SHARE / 2) * (1 - SHARE) ** 4
    assert stats.binomtest(int(still.sum()), len(labels), share).pvalue > 1e-3


def test_flips_alone_are_permutations_bit_for_bit(drawn):
    before, after, labels = drawn
    for mirrored, upended in ((0, 0), (1, 0), (0, 1), (1, 1)):
        rows = np.all(labels == [mirrored, upended, 0, 0, 0, 0, 0, 0, 0], 1)
        assert rows.sum() > 100
        wanted = before[:, :: 1 - 2 * upended, :: 1 - 2 * mirrored]
        np.testing.assert_array_equal(after[rows], wanted[rows])
    after, labels = jax.jit(augment.flip(SHARE).apply)(keys(len(before)), before)
    mirrored = np.all(np.asarray(after) == before[:, :, ::-1], (1, 2, 3))
    assert labels.shape == (len(before), 0) and np.all(np.asarray(after)[~mirrored] == before[~mirrored])
    assert stats.binomtest(int(mirrored.sum()), len(before), SHARE).pvalue > 1e-3


def test_the_parameters_follow_the_laws_of_the_paper(drawn):
    """Karras et al. 2206.00364, Table 6. What is told of a stretching is normal times a direction."""
    labels = drawn[2]
    mirrored, upended, scale, cos, sin, along, across, right, down = labels.T
    assert stats.binomtest(int(mirrored.sum()), len(labels), 0.5).pvalue > 1e-3
    assert stats.binomtest(int(upended.sum()), len(labels), SHARE / 2).pvalue > 1e-3
    gates = [scale != 0, (cos != 0) | (sin != 0), along != 0, right != 0]
    for gate in gates:
        assert stats.binomtest(int(gate.sum()), len(labels), SHARE).pvalue > 1e-3
    together = np.sum([a & b for i, a in enumerate(gates) for b in gates[:i]], 0)
    assert abs(together.mean() / (6 * SHARE**2) - 1) < 0.05
    np.testing.assert_array_equal(right != 0, down != 0)
    for value in (scale, right, down):
        assert stats.kstest(value[value != 0], 'norm').pvalue > 1e-3
    turn = np.arctan2(sin, cos + 1)[gates[1]]
    assert stats.kstest(turn, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-3
    assert stats.kstest(np.hypot(along, across)[gates[2]], 'halfnorm').pvalue > 1e-3
    direction = np.arctan2(across, along)[gates[2]]
    assert stats.kstest(direction, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-3


def test_quarter_turns_mirrorings_and_whole_shifts_change_no_pixel():
    """Of noise, which no interpolation would leave alone."""
    x = np.random.default_rng(0).standard_normal((8, 8, 2)).astype(np.float32)
    warp = jax.jit(augment.warp)
    for turns in range(4):
        angle = np.pi / 2 * turns
        back = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        # From x towards y is clockwise on the screen, where y points down; numpy turns the other way.
        np.testing.assert_allclose(warp(x, back, np.zeros(2)), np.rot90(x, -turns), atol=1e-4)
    np.testing.assert_allclose(warp(x, np.diag([-1.0, 1]), np.zeros(2)), x[:, ::-1], atol=1e-4)
    shifted = np.pad(x, ((3, 0), (0, 2), (0, 0)), mode='reflect')[:8, 2:]
    np.testing.assert_allclose(warp(x, np.eye(2), np.array([-2.0, 3])), shifted, atol=1e-4)


def test_a_picture_that_shrinks_has_no_aliases():
    """Stripes of 2.5 pixels that become 1.25 wide, finer than any picture shows: read off point by point they would
    come out as coarse ones of the same contrast."""
    stripes = np.cos(2 * np.pi * np.arange(64) / 2.5)[None, :, None] * np.ones((64, 1, 1))
    small = jax.jit(augment.warp)(stripes.astype(np.float32), 2 * np.eye(2), np.zeros(2))
    read_off = moved(stripes, np.eye(2) / 2, np.zeros(2))
    assert np.std(read_off[:, 18:46]) > 0.4
    assert np.std(small[:, 18:46]) < 0.1
    smooth = np.cos(2 * np.pi * np.arange(64) / 16)[None, :, None] * np.ones((64, 1, 1))
    small = jax.jit(augment.warp)(smooth.astype(np.float32), 2 * np.eye(2), np.zeros(2))
    np.testing.assert_allclose(small[:, 18:46], moved(smooth, np.eye(2) / 2, np.zeros(2))[:, 18:46], atol=0.08)


@pytest.mark.long
def test_it_belongs_to_examples_and_needs_no_communication():
    x, apply = pictures(16), augment.edm(0.5).apply
    whole = jax.jit(apply)(keys(16), x)
    for rows in (slice(0, 8), slice(None, None, 2)):
        for part, everything in zip(jax.jit(apply)(keys(16)[rows], x[rows]), whole):
            np.testing.assert_allclose(part, everything[rows], atol=1e-5)
    split = NamedSharding(jax.make_mesh((8,), ('data',)), PartitionSpec('data'))
    compiled = jax.jit(apply, in_shardings=split, out_shardings=split).lower(keys(16), x).compile()
    assert not [word for word in ('all-gather', 'all-reduce', 'all-to-all', 'permute') if word in compiled.as_text()]


@pytest.mark.parametrize('name', augment.__all__)
def test_a_probability_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match=r'p=1.1: a probability'):
        getattr(augment, name)(p=1.1)
