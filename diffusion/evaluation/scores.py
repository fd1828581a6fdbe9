"""The Inception Score (Salimans et al. 1606.03498) of class logits."""

import numpy as np

from diffusion.evaluation import interval

SPLITS = 10


def inception_score(logits: np.ndarray, seed: int = 0) -> interval.Interval:
    """exp(mean KL(p(y|x) || p(y))), the mean over ten disjoint parts; logits: [N, K]. Between 1 and K.

    It is biased by the size of a part, N / 10. Raises ValueError for fewer than 20 samples.
    """
    if len(logits) < 2 * SPLITS:
        raise ValueError(f'the Inception Score needs at least {2 * SPLITS} samples, here {len(logits)}')
    if not np.isfinite(logits).all():
        raise ValueError('logits are not finite')
    order = np.random.default_rng(seed).permutation(len(logits))
    values = [_score(np.asarray(logits[part], np.float64)) for part in np.array_split(order, SPLITS)]
    return interval.blocks(values, 'disjoint blocks', seed)


def _score(logits):
    logs = logits - logits.max(1, keepdims=True)
    logs -= np.log(np.exp(logs).sum(1, keepdims=True))
    chances = np.exp(logs)
    mean = chances.mean(0)
    # 0 log 0 is 0: a class that no sample of the part can be.
    whole = np.log(np.where(mean > 0, mean, 1.0))
    return float(np.exp((chances * (logs - whole)).sum(1).mean()))
