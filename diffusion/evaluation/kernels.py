"""Maximum mean discrepancies of features: KID's cubic kernel (Bińkowski et al. 1801.01401), and a Gaussian one as in
CMMD (Jayasumana et al. 2401.09603)."""

import numpy as np

from diffusion.evaluation import interval

SIZE = 1000  # samples of a block, where there are many
BLOCKS = 10  # at least


def cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(x . y / D + 1)^3: [N, D], [M, D] -> [N, M]."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def gaussian(bandwidth: float):
    """(x, y) -> exp(-|x - y|^2 / (2 bandwidth^2))."""

    def kernel(x, y):
        return np.exp(-squares(x, y) / (2 * bandwidth**2))

    return kernel


def squares(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared distances: float64 [N, D], [M, D] -> [N, M]."""
    return np.maximum((x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T, 0.0)


def median_distance(features: np.ndarray, seed: int = 0) -> float:
    """The median distance of two examples among at most 1,000, a bandwidth that suits the scale of the features."""
    order = np.random.default_rng(seed).permutation(len(features))[:1000]
    x = np.asarray(features[np.sort(order)], np.float64)
    found = float(np.sqrt(np.median(squares(x, x)[np.triu_indices(len(x), 1)])))
    if not found > 0:
        raise ValueError('more than half of the reference is one and the same picture: no bandwidth follows from it')
    return found


def discrepancy(x: np.ndarray, y: np.ndarray, kernel) -> float:
    """The unbiased estimate of MMD^2 from x: [N, D] and y: [M, D], N, M >= 2; it may be negative."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return float(_within(kernel(x, x)) + _within(kernel(y, y)) - 2 * kernel(x, y).mean())


def _within(values):
    return (values.sum() - np.trace(values)) / (len(values) * (len(values) - 1))


def over_blocks(samples: np.ndarray, reference: np.ndarray, kernel, seed: int = 0) -> interval.Interval:
    """The mean of `discrepancy` over disjoint blocks of both sets in random order, of about 1,000 samples each, at
    least ten blocks. Raises ValueError where there are too few for them, or features are not finite."""
    least = min(len(samples), len(reference))
    if least < 2 * BLOCKS:
        raise ValueError(f'needs at least {2 * BLOCKS} samples and as many of the reference, here {least}')
    if not (np.isfinite(samples).all() and np.isfinite(reference).all()):
        raise ValueError('features are not finite')
    count = max(BLOCKS, least // SIZE)
    rng = np.random.default_rng(seed)
    parts = [np.array_split(rng.permutation(len(one)), count) for one in (samples, reference)]
    values = [discrepancy(samples[a], reference[b], kernel) for a, b in zip(*parts)]
    return interval.blocks(values, 'disjoint blocks', seed)
