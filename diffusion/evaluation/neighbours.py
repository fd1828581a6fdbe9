"""Precision and recall (Kynkäänniemi et al. 1904.06991), density and coverage (Naeem et al. 2002.09797)."""

import numpy as np

from diffusion.evaluation import interval, kernels

CHUNK = 1024  # rows of a matrix of distances that are in memory at once
PRECISION_NEIGHBOURS, DENSITY_NEIGHBOURS = 3, 5  # those of the papers


def radii(features: np.ndarray, k: int) -> np.ndarray:
    """The squared distance of each example to its k-th nearest other one: [N, D] -> [N]."""
    return np.concatenate([np.partition(rows, k, 1)[:, k] for rows in _rows(features, features)])


def _rows(x, y):
    y = np.asarray(y, np.float64)
    for start in range(0, len(x), CHUNK):
        yield kernels.squares(np.asarray(x[start : start + CHUNK], np.float64), y)


def measures(samples: np.ndarray, reference: np.ndarray) -> dict[str, interval.Interval]:
    """precision: share of the samples within the reference's k-neighbourhoods (k = 3); recall: the reverse; density:
    neighbourhoods that a sample lies in, over k (k = 5, may exceed 1); coverage: share of the reference whose
    neighbourhood holds a sample (k = 5).

    Each error is that of a share of the examples counted, or of a mean, the neighbourhoods taken as known. Raises
    ValueError for too few examples or features that are not finite.
    """
    least = min(len(samples), len(reference))
    if least <= DENSITY_NEIGHBOURS:
        raise ValueError(f'needs at least {DENSITY_NEIGHBOURS + 1} samples and as many of the reference, here {least}')
    if not (np.isfinite(samples).all() and np.isfinite(reference).all()):
        raise ValueError('features are not finite')
    near, wide = radii(reference, PRECISION_NEIGHBOURS), radii(reference, DENSITY_NEIGHBOURS)
    inside, counted, covered = [], [], np.zeros(len(reference), bool)
    for rows in _rows(samples, reference):
        inside.append((rows <= near).any(1))
        counted.append((rows <= wide).sum(1) / DENSITY_NEIGHBOURS)
        covered |= (rows <= wide).any(0)
    around = radii(samples, PRECISION_NEIGHBOURS)
    reached = np.concatenate([(rows <= around).any(1) for rows in _rows(reference, samples)])
    return {
        'precision': interval.share(np.concatenate(inside), 'mean over the samples'),
        'recall': interval.share(reached, 'mean over the reference'),
        'density': interval.examples(np.concatenate(counted), 'mean over the samples'),
        'coverage': interval.share(covered, 'mean over the reference'),
    }
