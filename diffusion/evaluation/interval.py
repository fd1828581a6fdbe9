"""A measured value with how far it may be off by chance, and how that was found."""

import dataclasses
import math

import numpy as np

LEVEL = 0.95
NORMAL = 1.959964  # deviations of a normal that hold so much


@dataclasses.dataclass(frozen=True)
class Interval:
    """A value with its standard error and the ends of its 95 % interval, None where they are unknown.

    method: how both were found; repeats: replicates, blocks or examples; seed: of the random choice among them; bounds:
    between which the value lies by what it is.
    """

    value: float
    standard_error: float | None
    method: str
    repeats: int
    seed: int | None = None
    ends: tuple[float, float] | None = None
    bounds: tuple[float, float] = (-math.inf, math.inf)

    def to_json(self) -> dict:
        found = {'method': self.method, 'repeats': self.repeats, 'seed': self.seed, 'level': LEVEL}
        ends = list(self.ends or (None, None))
        return {'value': self.value, 'standard_error': self.standard_error, 'interval': ends, 'error': found}


def student(freedom: int) -> float:
    """t such that a Student variable of so many degrees of freedom lies in [-t, t] with 95 %: from its distribution
    function, a finite sum (Abramowitz & Stegun 26.7.3, 26.7.4); above 200 degrees the normal's, 1 % less at most."""
    if freedom > 200:
        return NORMAL

    def within(t):
        angle = math.atan(t / math.sqrt(freedom))
        term = math.cos(angle) if freedom % 2 else 1.0
        total = 0.0
        for k in range(2 + freedom % 2, freedom + 1, 2):
            total += term
            term *= math.cos(angle) ** 2 * (k - 1) / k
        total *= math.sin(angle)
        return (angle + total) * 2 / math.pi if freedom % 2 else total

    low, high = 0.0, 20.0  # 12.7 at one degree
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) < LEVEL else (low, middle)
    return high


def around(value: float, error: float | None, method: str, repeats: int, seed: int | None) -> Interval:
    """The interval of Student's law, the error being of so many independent repeats."""
    ends = None
    if error is not None:
        reach = student(repeats - 1) * error
        ends = value - reach, value + reach
    return Interval(float(value), error, method, repeats, seed, ends)


def positive(value: float, drawn: list[float], method: str, seed: int) -> Interval:
    """Of a number that is never below 0: the error is the spread of replicates around their own mean, and the interval
    is the normal one of its logarithm, value * exp(-+1.96 error / value), which ends above 0.

    Not the percentiles of the replicates: a bootstrap's distances are biased upwards by more than their spread, and
    their percentiles then do not hold the value at all.
    """
    error = _spread(drawn)
    if error is None or not value > 0:
        ends = None if error is None else (0.0, NORMAL * error)
        return Interval(float(value), error, method, len(drawn), seed, ends, (0.0, math.inf))
    reach = math.exp(min(NORMAL * error / value, 700.0))
    ends = value / reach, value * reach
    return Interval(float(value), error, f'{method}, log-normal', len(drawn), seed, ends, (0.0, math.inf))


def blocks(values: list[float], method: str, seed: int) -> Interval:
    """The mean over disjoint blocks, and its standard error."""
    spread = _spread(values)
    error = None if spread is None else spread / math.sqrt(len(values))
    return around(float(np.mean(values)), error, method, len(values), seed)


def examples(values: np.ndarray, method: str) -> Interval:
    """The mean over independent examples, [N], and its standard error."""
    return blocks(values, method, None)


def share(hits: np.ndarray, method: str) -> Interval:
    """The share of independent examples that are true, [N] bool, in [0, 1], with Wilson's interval (1927), which stays
    in there and does not shrink to nothing where all or none are true."""
    count, found = len(hits), examples(np.asarray(hits, float), method)
    squared = NORMAL**2 / count
    middle = (found.value + squared / 2) / (1 + squared)
    reach = math.sqrt(squared * found.value * (1 - found.value) + squared**2 / 4) / (1 + squared)
    ends = max(middle - reach, 0.0), min(middle + reach, 1.0)
    return dataclasses.replace(found, method=f'{method}, Wilson', ends=ends, bounds=(0.0, 1.0))


def repeated(found: list[Interval], method: str) -> Interval:
    """Of one number measured several times over: the mean, and Student's interval of the spread, cut to the bounds of
    the number; that of the first measurement where they do not differ at all."""
    several = blocks([one.value for one in found], method, None)
    low, high = found[0].bounds
    ends = several.ends and (max(several.ends[0], low), min(several.ends[1], high))
    return dataclasses.replace(several, ends=ends if several.standard_error else found[0].ends, bounds=(low, high))


def _spread(values):
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
