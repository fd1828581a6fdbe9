"""Nearest training images against every distance written out; memorisation against its closed form."""

import numpy as np
import pytest
from scipy import spatial

from diffusion.evaluation import retrieval

RNG = np.random.default_rng(11)


def parts(images, size, left_out=()):
    kept = np.setdiff1d(np.arange(len(images)), left_out)
    return [(kept[start : start + size], images[kept[start : start + size]]) for start in range(0, len(kept), size)]


def test_nearest_is_the_least_of_all_distances_in_whatever_parts():
    training = RNG.integers(0, 256, (70, 5, 4, 3), dtype=np.uint8)
    training[40] = training[3]
    samples = np.concatenate([training[[3, 9]], RNG.integers(0, 256, (30, 5, 4, 3), dtype=np.uint8)])
    flat = [images.reshape(len(images), -1).astype(float) for images in (samples, training)]
    distance = spatial.distance.cdist(*flat, 'sqeuclidean')
    for size in (1, 16, 100):
        found = retrieval.nearest(samples, parts(training, size))
        np.testing.assert_array_equal(found.index, distance.argmin(1))
        np.testing.assert_array_equal(found.squared, distance.min(1))
    assert found.squared[0] == found.squared[1] == 0 and found.index[0] == 3
    # A training image's neighbour is neither itself nor its copy.
    neighbour = retrieval.nearest(training[[3, 40, 9]], parts(training, 16), others=True)
    among = spatial.distance.cdist(flat[1][[3, 40, 9]], flat[1], 'sqeuclidean')
    among[among == 0] = np.inf
    np.testing.assert_array_equal(neighbour.squared, among.min(1))
    # What could not be read keeps its index and is nobody's neighbour.
    without = retrieval.nearest(samples, parts(training, 16, left_out=[3, 40]))
    distance[:, [3, 40]] = np.inf
    np.testing.assert_array_equal(without.index, distance.argmin(1))


def test_captions_are_those_of_the_nearest():
    found = retrieval.caption_match(np.array([2, 0, 1, -1]), ['c', 'b', 'b', 'a'], ['a', 'b', 'c'])
    assert found.value == 0.5 and found.repeats == 4 and 0 < found.ends[0] < 0.5 < found.ends[1] < 1


@pytest.mark.parametrize('dimensions,bound', [(1, 0.5), (2, 0.5), (2, 0.3), (3, 0.5)])
def test_fresh_examples_of_the_law_pass_as_often_as_a_poisson_process_says(dimensions, bound):
    """bound^d: no other training point lies within bound^-1 of the distance, which holds the sample's ball too."""
    training, fresh = RNG.random((4000, dimensions)), RNG.uniform(0.1, 0.9, (3000, dimensions))
    tree = spatial.cKDTree(training)
    distance, index = tree.query(fresh)
    own = tree.query(training[index], 2)[0][:, 1]
    found = retrieval.memorisation(distance**2, own**2, bound)
    low, high = found.share.ends
    assert low - 0.01 < bound**dimensions < high + 0.01 and high - low < 0.05


def test_copies_are_found_and_come_first():
    training = RNG.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    samples = RNG.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    samples[4] = training[30]
    samples[7] = np.clip(training[12].astype(int) + RNG.integers(-9, 10, (8, 8, 3)), 0, 255)
    found = retrieval.nearest(samples, parts(training, 13))
    own = retrieval.nearest(training[found.index], parts(training, 13), others=True)
    repeats = retrieval.memorisation(found.squared, own.squared)
    assert repeats.share.value == 2 / 20 and list(repeats.order[:2]) == [4, 7]
    assert repeats.ratio[4] == 0 and found.index[4] == 30 and found.index[7] == 12
