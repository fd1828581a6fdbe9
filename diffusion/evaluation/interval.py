"""A measured value with how far it may be off by chance, and how that was found."""

import dataclasses

import numpy as np

NORMAL = 1.959964  # deviations of a normal that hold 95 %


@dataclasses.dataclass(frozen=True)
class Interval:
    """A value with its standard error (None: unknown) and the 95 % interval that a normal law makes of it.

    method: how the error was found; repeats: replicates or blocks; seed: of the random choice among them.
    """

    value: float
    standard_error: float | None
    method: str
    repeats: int
    seed: int | None = None

    def to_json(self) -> dict:
        error = self.standard_error
        ends = [None, None] if error is None else [self.value - NORMAL * error, self.value + NORMAL * error]
        found = {'method': self.method, 'repeats': self.repeats, 'seed': self.seed, 'level': 0.95}
        return {'value': self.value, 'standard_error': error, 'interval': ends, 'error': found}


def replicates(value: float, drawn: list[float], method: str, seed: int) -> Interval:
    """The spread of replicates around their own mean; their bias, as of a bootstrap, does not enter."""
    error = float(np.std(drawn, ddof=1)) if len(drawn) > 1 else None
    return Interval(float(value), error, method, len(drawn), seed)


def blocks(values: list[float], method: str, seed: int) -> Interval:
    """The mean over disjoint blocks, and its standard error."""
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return Interval(float(np.mean(values)), error, method, len(values), seed)


def examples(values: np.ndarray, method: str) -> Interval:
    """The mean over independent examples, [N], and its standard error."""
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return Interval(float(np.mean(values)), error, method, len(values))
