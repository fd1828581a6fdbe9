"""Posterior ensembles: what several draws of one posterior say of each value."""

import math
from typing import NamedTuple

import numpy as np


class Summary(NamedTuple):
    """mean, spread (standard deviation, of n - 1), low and high: [...] each; the last two None where there are too few
    members for the interval, spread None where there is one."""

    mean: np.ndarray
    spread: np.ndarray | None
    low: np.ndarray | None
    high: np.ndarray | None


def least(interval: float) -> int:
    """The fewest members whose lowest and highest value hold so much probability between them."""
    return math.ceil(2 / (1 - interval) - 1 - 1e-9)


def summary(members, interval: float) -> Summary:
    """members: [N, ...]; interval: the probability between low and high, in (0, 1).

    The quantiles are those of rank p (N + 1) (Hyndman & Fan 1996, definition 6): a further draw of the same law falls
    between them with probability `interval` whatever the law, exactly where p (N + 1) is whole.
    """
    members = np.asarray(members)
    spread = members.std(0, ddof=1) if len(members) > 1 else None
    ends = None, None
    if len(members) >= least(interval):
        tail = (1 - interval) / 2
        ends = np.quantile(members, (tail, 1 - tail), axis=0, method='weibull').astype(members.dtype)
    return Summary(members.mean(0), spread, *ends)


def covered(found: Summary, truth) -> np.ndarray:
    """Whether the interval holds the truth: bool [...]."""
    return (found.low <= truth) & (truth <= found.high)
