"""What a run has measured of itself, by step: the lines of metrics.jsonl and the results of `diffusion evaluate`."""

import json
import math
from collections.abc import Callable
from pathlib import Path


def values(workdir: str, metric: str, highest: bool) -> Callable[[list[int]], dict[int, float]]:
    """steps -> {step: number, the lower the better} of those that were measured.

    Of metrics.jsonl it is the value last written at or before the step; of `diffusion evaluate`, which goes first, the
    one of exactly that step. highest: the metric is the better the higher it is.
    """

    def found(steps: list[int]) -> dict[int, float]:
        lines = logged(Path(workdir) / 'metrics.jsonl', metric)
        known = {}
        for step in steps:
            before = [when for when in lines if when <= step]
            value = _evaluated(Path(workdir) / 'eval' / f'{metric}_step_{step}.json')
            if value is None and before:
                value = lines[max(before)]
            if value is not None and math.isfinite(value):
                known[step] = -value if highest else value
        return known

    return found


def logged(path: Path, metric: str) -> dict[int, float]:
    """{step: value} of a metrics.jsonl; half a line, of a process that is writing it, is left out."""
    found = {}
    for line in path.read_text(encoding='utf-8').splitlines() if path.exists() else ():
        try:
            read = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(read.get(metric), int | float):
            found[read['step']] = read[metric]
    return found


def _evaluated(path):
    try:
        return float(json.loads(path.read_text(encoding='utf-8'))['value'])
    except (OSError, ValueError, KeyError, TypeError):
        return None
