"""What a window of steps amounts to: mean metrics, images a second, share of the time spent waiting for data."""

import contextlib
import time

import numpy as np


class Meter:
    """Collects the metrics of steps; `summary` starts a new window."""

    def __init__(self, batch: int):
        self._batch = batch
        self.aside = 0.0  # seconds since the beginning that were not steps
        self.pace: float | None = None  # seconds a step took beside the waiting for data, in the last window
        self._reset()

    def _reset(self):
        self._metrics, self._waited, self._aside, self._begin = [], 0.0, 0.0, time.monotonic()

    @contextlib.contextmanager
    def waiting(self):
        """Time inside is waiting for data."""
        begin = time.monotonic()
        yield
        self._waited += time.monotonic() - begin

    @contextlib.contextmanager
    def paused(self):
        """Time inside is not training: samples, checkpoints."""
        begin = time.monotonic()
        yield
        spent = time.monotonic() - begin
        self._aside += spent
        self.aside += spent

    def add(self, metrics: dict) -> None:
        """metrics of a step: scalars, or pairs [sum, weight]; `skipped`, where it is there, is 1 for a step that the
        guard skipped, whose other metrics do not count."""
        self._metrics.append(metrics)

    def summary(self) -> dict[str, float]:
        """Means over the window that ends here; of a pair, the sums over the weights, left out where nothing weighs."""
        rows = self._metrics
        seconds = max(time.monotonic() - self._begin - self._aside, 1e-9)
        counted = [row for row in rows if not row.get('skipped')]
        means = {name: _mean([row[name] for row in counted]) for name in rows[0]} if counted else {}
        if 'skipped' in rows[0]:
            means['skipped'] = _mean([row['skipped'] for row in rows])
        rate = len(rows) * self._batch / seconds
        share = self._waited / seconds
        self.pace = max(seconds - self._waited, 0.0) / len(rows)
        self._reset()
        known = {name: value for name, value in means.items() if value is not None}
        return {**known, 'images_per_s': rate, 'data_wait': share}


def _mean(values) -> float | None:
    if np.ndim(values) == 1:
        return float(np.mean(values))
    total, weight = np.sum(values, 0, dtype=np.float64)
    return float(total / weight) if weight else None
