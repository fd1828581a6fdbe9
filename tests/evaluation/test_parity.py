"""FID, KID, IS, precision and recall of the same pictures here and in the independent package torch-fidelity.

Minutes, with the extra `parity`: pytest -m slow -s tests/evaluation/test_parity.py
"""

import sys

import jax
import numpy as np
import pytest

from diffusion.evaluation import frechet, kernels, moments, neighbours, scores
from diffusion.nets import functional, inception
from tests import parity

NUM = 1000  # of each set: 2,000 pictures
SUBSET = 500  # of KID
CALL = 50
SIDE = 107  # that pictures are resized to: a sixth of the work at 299, where tests/nets compares the features


def pictures(seed, contrast):
    """Coloured fields of 16 patches with noise, each picture of its own brightness: uint8 [NUM, 32, 32, 3]."""
    rng = np.random.default_rng(seed)
    patches = rng.uniform(-1, 1, (NUM, 4, 4, 3)) * rng.uniform(0, contrast, (NUM, 1, 1, 1))
    fields = np.kron(patches, np.ones((1, 8, 8, 1))) + 0.1 * rng.standard_normal((NUM, 32, 32, 3))
    return np.clip(128 + 100 * (fields + rng.uniform(-0.5, 0.5, (NUM, 1, 1, 3))), 0, 255).astype(np.uint8)


def in_calls(see, images):
    found = [see(images[start : start + CALL]) for start in range(0, len(images), CALL)]
    return [np.concatenate([np.asarray(one) for one in some]) for some in zip(*found)]


@pytest.mark.slow
def test_metrics_are_torch_fidelitys(tmp_path, monkeypatch):
    """Each package extracts features of its own: 1e-4 relative for these, 1e-3 for the metrics."""
    tensors = parity.published()
    theirs = parity.theirs(tensors, tmp_path, monkeypatch)
    monkeypatch.setattr(inception, 'SIZE', SIDE)
    monkeypatch.setattr(sys.modules[parity.PACKAGE].FeatureExtractorInceptionV3, 'INPUT_IMAGE_SIZE', SIDE)
    from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc

    torch = pytest.importorskip('torch', reason="needs PyTorch, which this is held against: pip install '.[parity]'")
    network = functional.functional(lambda rngs: inception.Inception(rngs=rngs))
    params = inception.parameters(tensors)
    apply = jax.jit(network.apply)
    samples, reference = pictures(0, 1.0), pictures(1, 0.8)
    (x, logits), (y, _) = (in_calls(lambda part: apply(params, part), images) for images in (samples, reference))
    (a, their_logits), (b, _) = (in_calls(theirs, images) for images in (samples, reference))
    for ours, other in ((x, a), (y, b), (logits, their_logits)):
        worst = np.abs(ours - other).max() / np.abs(other).max()
        print(f'features: largest difference {worst:.2e} of the largest')
        assert worst < 1e-4

    parts = np.random.default_rng(0).permutation(NUM)
    stored = [metric_fid.fid_features_to_statistics(torch.from_numpy(one)) for one in (a, b)]
    asked = {'kid_subsets': 100, 'kid_subset_size': SUBSET, 'rng_seed': 2020, 'verbose': False}
    ta, tb = torch.from_numpy(a), torch.from_numpy(b)
    prc = metric_prc.prc_features_to_metric(ta, tb, verbose=False)
    expected = {
        'FID': metric_fid.fid_statistics_to_metric(*stored, False)[metric_fid.KEY_METRIC_FID],
        # The same parts: theirs are cut from the samples in the order that ours are drawn in.
        'IS': metric_isc.isc_features_to_metric(torch.from_numpy(their_logits[parts]), 10, False, 0)[
            metric_isc.KEY_METRIC_ISC_MEAN
        ],
        'KID': metric_kid.kid_features_to_metric(ta, tb, **asked)[metric_kid.KEY_METRIC_KID_MEAN],
        'precision': prc[metric_prc.KEY_METRIC_PRECISION],
        'recall': prc[metric_prc.KEY_METRIC_RECALL],
    }
    # Their subsets, which overlap; ours are disjoint, and differ from these by what chance does.
    rng = np.random.RandomState(asked['rng_seed'])
    subsets = [[rng.choice(NUM, SUBSET, replace=False) for _ in range(2)] for _ in range(asked['kid_subsets'])]
    near = neighbours.measures(x, y)
    found = {
        'FID': frechet.fid(x, moments.of(y), repeats=0).value,
        'IS': scores.inception_score(logits, seed=0).value,
        'KID': np.mean([kernels.discrepancy(x[one], y[other], kernels.cubic) for one, other in subsets]),
        'precision': near['precision'].value,
        'recall': near['recall'].value,
    }
    disjoint = kernels.over_blocks(x, y, kernels.cubic)
    print(f'KID over disjoint blocks: {disjoint.value:.6g} +- {disjoint.standard_error:.2g}')
    for name, value in found.items():
        print(f'{name}: {value:.8g} here, {expected[name]:.8g} theirs, relative {abs(value / expected[name] - 1):.2e}')
    for name, value in found.items():
        assert value == pytest.approx(expected[name], rel=1e-3), name
    assert abs(disjoint.value - expected['KID']) < 4 * disjoint.standard_error
