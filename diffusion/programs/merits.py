"""Figures of merit of an edited picture, in units of its values: 8-bit levels for pictures."""

import numpy as np


def outside(before: np.ndarray, after: np.ndarray, change: np.ndarray) -> float:
    """max |after - before| where nothing may change; before, after: [H, W, C], change: [H, W] in [0, 1]."""
    kept = change == 0
    return float(np.abs(after[kept].astype(float) - before[kept]).max())


def jump(after: np.ndarray, change: np.ndarray) -> tuple[float, float] | None:
    """The mean |difference| of neighbouring pixels, one of which was changed, and that of neighbours that were both
    kept: a seam shows as much more of the first than of the second. None where one of these does not occur."""
    kept = change == 0
    across, along = [], []
    for axis in (0, 1):
        step = np.abs(np.diff(after.astype(float), axis=axis)).mean(-1)
        ends = np.delete(kept, -1, axis), np.delete(kept, 0, axis)
        across.append(step[ends[0] != ends[1]])
        along.append(step[ends[0] & ends[1]])
    across, along = np.concatenate(across), np.concatenate(along)
    return (float(across.mean()), float(along.mean())) if len(across) and len(along) else None


def consistency(residual: np.ndarray) -> float:
    """The root mean square of y - A x."""
    return float(np.sqrt(np.mean(np.square(residual, dtype=float))))
