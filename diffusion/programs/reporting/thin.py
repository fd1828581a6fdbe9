"""Thousands of points as the few hundred that a plot can show, without losing an extreme."""

import math

BUCKETS = 120  # along x: each keeps at most five of its points


def points(y: list[float], buckets: int = BUCKETS) -> list[int]:
    """Which points stay, ascending: of each bucket the first, last, least, greatest and one that is not finite."""
    count = len(y)
    if count <= 4 * buckets:
        return list(range(count))
    kept = set()
    for bucket in range(buckets):
        inside = range(bucket * count // buckets, (bucket + 1) * count // buckets)
        finite = [i for i in inside if math.isfinite(y[i])]
        kept |= {inside[0], inside[-1]}
        if finite:
            kept |= {min(finite, key=y.__getitem__), max(finite, key=y.__getitem__)}
        if len(finite) < len(inside):
            kept.add(next(i for i in inside if not math.isfinite(y[i])))
    return sorted(kept)
