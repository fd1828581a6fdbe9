"""Mean and covariance of features in float64, taken a part at a time: the parts of one set merge in any order."""

from typing import NamedTuple

import numpy as np

CHUNK = 4096


class Moments(NamedTuple):
    """count: sum of weights; mean: [D]; scatter: [D, D], sum of w (x - mean)(x - mean)^T; all float64."""

    count: float
    mean: np.ndarray
    scatter: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased, [D, D]. Raises ValueError for fewer than two examples."""
        if self.count < 2:
            raise ValueError(f'a covariance needs at least 2 examples, here {self.count:g}')
        return self.scatter / (self.count - 1)


def empty(features: int) -> Moments:
    return Moments(0.0, np.zeros(features), np.zeros((features, features)))


def of(features: np.ndarray, weights: np.ndarray | None = None) -> Moments:
    """features: [N, D], finite; weights: [N] >= 0, how often each example counts. Raises ValueError."""
    found = empty(features.shape[1])
    for start in range(0, len(features), CHUNK):
        part = slice(start, start + CHUNK)
        found = merge(found, _part(features[part], None if weights is None else weights[part]))
    return found


def _part(features, weights):
    x = np.asarray(features, np.float64)
    if not np.isfinite(x).all():
        raise ValueError('features are not finite')
    w = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    count = float(w.sum())
    mean = w @ x / count if count else np.zeros(x.shape[1])
    centred = (x - mean) * np.sqrt(w)[:, None]
    return Moments(count, mean, centred.T @ centred)


def merge(a: Moments, b: Moments) -> Moments:
    """The moments of both sets together (Chan, Golub & LeVeque 1979): nothing large is subtracted."""
    count = a.count + b.count
    if not count:
        return a
    gap = b.mean - a.mean
    mean = a.mean + gap * (b.count / count)
    return Moments(count, mean, a.scatter + b.scatter + np.outer(gap, gap) * (a.count * b.count / count))
