"""The Inception network of FID against its definition, and against torch-fidelity where that is installed."""

import jax
import numpy as np
import pytest

from diffusion.nets import functional, inception, resizing
from tests import parity


def test_resize_is_tensorflow_1s():
    """Pixel (i, j) of the result is the bilinear value at (i h / n, j w / n), held at the border."""
    x = np.random.default_rng(0).uniform(0, 255, (1, 5, 13, 2)).astype(np.float32)
    found = np.asarray(resizing.tensorflow(x, 9))
    for i in range(9):
        for j in range(9):
            row, column = i * 5 / 9, j * 13 / 9
            a, b = int(row), int(column)
            p, q = row - a, column - b
            c, d = min(a + 1, 4), min(b + 1, 12)
            expected = (1 - p) * ((1 - q) * x[0, a, b] + q * x[0, a, d]) + p * ((1 - q) * x[0, c, b] + q * x[0, c, d])
            np.testing.assert_allclose(found[0, i, j], expected, rtol=1e-4)


def test_means_leave_out_what_lies_beyond_the_border():
    x = np.random.default_rng(1).standard_normal((1, 4, 5, 1)).astype(np.float32)
    found = np.asarray(inception.mean_around(x))
    for i in range(4):
        for j in range(5):
            around = x[0, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
            np.testing.assert_allclose(found[0, i, j, 0], around.mean(), rtol=1e-5, atol=1e-6)


def test_weights_of_another_network_are_refused():
    tensors = parity.published()
    # As many as torchvision's network without its second output (23,834,568), but for the number of classes.
    learned = [v.size for k, v in tensors.items() if 'running' not in k]
    assert sum(learned) == 23_834_568 + 8 * (2048 + 1)
    found = inception.parameters({**tensors, 'Mixed_5b.branch1x1.bn.num_batches_tracked': np.zeros(())})
    kernel = found['Mixed_6b']['branch7x7_2']['conv']['kernel']
    np.testing.assert_array_equal(kernel[0, 5, 7, 11], tensors['Mixed_6b.branch7x7_2.conv.weight'][11, 7, 0, 5])
    for change, say in (
        ({'AuxLogits.fc.weight': np.zeros((1000, 768))}, 'it has no AuxLogits.fc.weight'),
        ({'fc.weight': np.zeros((1000, 2048))}, 'fc.weight has shape'),
    ):
        with pytest.raises(ValueError, match=say):
            inception.parameters({**tensors, **change})
    del tensors['Mixed_7c.branch_pool.bn.bias']
    with pytest.raises(ValueError, match='branch_pool.bn.bias is missing'):
        inception.parameters(tensors)


def test_features_are_torch_fidelitys(tmp_path, monkeypatch):
    """The same random weights in the independent package: features and logits within 1e-4."""
    tensors = parity.published()
    network = parity.theirs(tensors, tmp_path, monkeypatch)
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 31, 3), dtype=np.uint8)
    expected = network(images)
    ours = functional.functional(lambda rngs: inception.Inception(rngs=rngs))
    found = jax.jit(ours.apply)(inception.parameters(tensors), images)
    for one, other in zip(found, expected):
        assert np.abs(np.asarray(one) - other).max() < 1e-4 * np.abs(other).max()
        assert other.std(0).max() > 1e-3 * np.abs(other).max()  # pictures are told apart at all
