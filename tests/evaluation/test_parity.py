"""The metrics against the independent package torch-fidelity, where that is installed, on the same features."""

import sys
from unittest import mock

import numpy as np
import pytest

from diffusion.evaluation import frechet, kernels, moments, neighbours, scores

COUNT, WIDE = 2000, 96


@pytest.fixture
def torch(monkeypatch):
    """PyTorch, with stand-ins for what torch-fidelity imports for other networks."""
    found = pytest.importorskip('torch', reason='parity needs torch and torch-fidelity, which nothing else does')
    for name in ('torchvision', 'torchvision.datasets', 'torchvision.transforms', 'torchvision.transforms.functional'):
        monkeypatch.setitem(sys.modules, name, mock.MagicMock())
    pytest.importorskip('torch_fidelity', reason='parity needs torch-fidelity: pip install torch-fidelity')
    return found


def test_metrics_are_torch_fidelitys(torch):
    from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc

    rng = np.random.default_rng(0)
    mix = rng.standard_normal((WIDE, WIDE)) / np.sqrt(WIDE)
    samples = (rng.standard_normal((COUNT, WIDE)) @ mix + 0.1).astype(np.float32)
    reference = np.maximum(rng.standard_normal((COUNT, WIDE)) @ mix, -1).astype(np.float32)
    a, b = torch.from_numpy(samples), torch.from_numpy(reference)
    known = {'verbose': False}

    stats = [metric_fid.fid_features_to_statistics(one.double()) for one in (a, b)]
    expected = metric_fid.fid_statistics_to_metric(*stats, False)['frechet_inception_distance']
    assert frechet.fid(samples, moments.of(reference), 0).value == pytest.approx(expected, rel=1e-6)

    kid = metric_kid.kid_features_to_metric(a.double(), b.double(), kid_subsets=1, kid_subset_size=COUNT, **known)
    found = kernels.discrepancy(samples, reference, kernels.cubic)
    assert found == pytest.approx(kid['kernel_inception_distance_mean'], rel=1e-6)

    order = np.random.default_rng(5).permutation(COUNT)
    logits = 3 * samples
    score = metric_isc.isc_features_to_metric(torch.from_numpy(logits[order]), scores.SPLITS, shuffle=False)
    assert scores.inception_score(logits, 5).value == pytest.approx(score['inception_score_mean'], rel=1e-6)

    near = metric_prc.prc_features_to_metric(a, b, prc_neighborhood=3, prc_batch_size=500, save_cpu_ram=True, **known)
    ours = neighbours.measures(samples, reference)
    for name in ('precision', 'recall'):
        assert ours[name].value == pytest.approx(near[name], rel=1e-3)
    assert 0.05 < ours['precision'].value < 0.999
