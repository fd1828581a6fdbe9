"""Random weights of the Inception network, and the independent package torch-fidelity seeing with them."""

import sys
from unittest import mock

import jax
import numpy as np
import pytest

from diffusion.nets import functional, inception

PACKAGE = 'torch_fidelity.feature_extractor_inceptionv3'


def published():
    """Tensors with the names and shapes of PyTorch's, drawn so that no layer dies out."""
    network = functional.functional(lambda rngs: inception.Inception(rngs=rngs))
    shapes = jax.eval_shape(network.init, jax.eval_shape(lambda: jax.random.key(0)))
    rng, tensors = np.random.default_rng(3), {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        *module, last = (key.key for key in path)
        shape = leaf.shape
        if last == 'kernel':
            shape = (shape[-1], shape[-2], *shape[:-2])
            value = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif last == 'running_var':
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = 0.1 * rng.standard_normal(shape) + (last == 'weight')
        tensors['.'.join([*module, 'weight' if last == 'kernel' else last])] = value.astype(np.float32)
    return tensors


def theirs(tensors, folder, monkeypatch):
    """uint8 images [N, H, W, 3] -> features and logits as torch-fidelity finds them; skips where that is not there."""
    torch = pytest.importorskip('torch', reason="needs PyTorch, which this is held against: pip install '.[parity]'")
    for name in ('torchvision', 'torchvision.datasets', 'torchvision.transforms', 'torchvision.transforms.functional'):
        monkeypatch.setitem(sys.modules, name, mock.MagicMock())  # for other networks than this one
    package = pytest.importorskip(PACKAGE, reason="parity needs the extra 'parity': pip install 'diffusion[parity]'")
    path = folder / 'random.pth'
    torch.save({name: torch.from_numpy(value) for name, value in tensors.items()}, path)
    network = package.FeatureExtractorInceptionV3('x', ['2048', 'logits_unbiased'], str(path))

    def seen(images):
        with torch.no_grad():
            return [one.numpy() for one in network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))]

    return seen
