"""The Fréchet distance of Gaussians fitted to features (FID: Heusel et al. 1706.08500), and its limit of many samples
(Chong & Forsyth 1911.07023)."""

import numpy as np

from diffusion.evaluation import interval, moments

ENOUGH = 2048  # samples under which the number depends on how many there are more than on what they show
PARTS = 5  # sizes n, n / 2 ... n / PARTS of which the limit is extrapolated
GROUPS = 10  # of the jackknife


def name(samples: int, features: str, limit: bool = False) -> str:
    """What a result may be called. features: '' for the published Inception network alone."""
    size = '∞' if limit else ('' if samples >= ENOUGH else f'-{samples}')
    return f'FID{size}' + (f'[{features}]' if features else '')


def root(covariance: np.ndarray) -> np.ndarray:
    """A with A A^T = covariance, [D, D], symmetric and of any rank. Eigenvalues that rounding made are zero."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    least = max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
    return vectors * np.sqrt(np.where(values > least, values, 0.0))


def distance(mean_a, covariance_a, mean_b, covariance_b) -> float:
    """|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)): float64, never complex or below 0, finite for finite input.

    The last trace is the sum of the singular values of a root of A times one of B. They are the roots of the
    eigenvalues of A B, but those would have to be known to the square of the precision: features have covariances
    whose eigenvalues fall over many orders, and hundreds of small ones count together.
    """
    cross = np.linalg.svd(root(covariance_a).T @ root(covariance_b), compute_uv=False).sum()
    return _assembled(mean_a, covariance_a, mean_b, covariance_b, cross)


def _assembled(mean_a, covariance_a, mean_b, covariance_b, cross):
    gap = np.asarray(mean_a, np.float64) - mean_b
    # Of equal laws it is 0 but for rounding.
    return max(float(gap @ gap + np.trace(covariance_a) + np.trace(covariance_b) - 2 * cross), 0.0)


def _repeated(reference):
    """Moments -> their distance from the reference's in a seventh of the time, for many draws of which the spread is
    asked: by eigenvalues of the symmetric R^T A R with B = R R^T, off by some 1e-8 of the largest variance."""
    rooted = root(reference.covariance)

    def against(found):
        product = rooted.T @ found.covariance @ rooted
        values = np.linalg.eigvalsh((product + product.T) / 2)
        cross = np.sqrt(np.maximum(values, 0.0)).sum()
        return _assembled(found.mean, found.covariance, reference.mean, reference.covariance, cross)

    return against


def fid(features: np.ndarray, reference: moments.Moments, repeats: int = 20, seed: int = 0) -> interval.Interval:
    """features: [N, D] of samples. The error is of `repeats` bootstrap draws of the samples, the interval that of a
    log-normal law with it; the reference is taken as known. Raises ValueError for fewer than two samples or features
    that are not finite."""
    whole, against = moments.of(features), _repeated(reference)
    value = distance(whole.mean, whole.covariance, reference.mean, reference.covariance)
    rng = np.random.default_rng(seed)
    count = len(features)
    drawn = [against(moments.of(features, rng.multinomial(count, np.full(count, 1 / count)))) for _ in range(repeats)]
    return interval.positive(value, drawn, 'bootstrap of the samples', seed)


def fid_infinity(features: np.ndarray, reference: moments.Moments, seed: int = 0) -> interval.Interval:
    """The distance at 1/n = 0 of a line through those of n, n/2 ... n/5 samples (means over disjoint parts), by least
    squares; a line only where n/5 is well above D. The reference is taken as known. The error is the jackknife over
    ten groups of samples."""
    least = 2 * PARTS * GROUPS
    if len(features) < least:
        raise ValueError(f'FID∞ needs at least {least} samples, here {len(features)}')
    against = _repeated(reference)
    order = np.random.default_rng(seed).permutation(len(features))

    def limit(chosen):
        inverse, found = [], []
        for parts in range(1, PARTS + 1):
            split = np.array_split(chosen, parts)
            found.append(np.mean([against(moments.of(features[part])) for part in split]))
            inverse.append(np.mean([1 / len(part) for part in split]))
        return float(np.polynomial.polynomial.polyfit(inverse, found, 1)[0])

    groups = np.array_split(order, GROUPS)
    without = [limit(np.concatenate(groups[:g] + groups[g + 1 :])) for g in range(GROUPS)]
    error = np.sqrt((GROUPS - 1) * np.var(without))
    return interval.around(limit(order), float(error), 'jackknife over groups of samples', GROUPS, seed)
