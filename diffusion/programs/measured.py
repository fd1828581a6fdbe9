"""What a run has measured of itself, by step: the lines of metrics.jsonl and the results of `diffusion evaluate`."""

import json
import math
from collections.abc import Callable, Iterator
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


def missing(workdir: str, options) -> str:
    """A warning where checkpoints are to be kept by a metric that nobody has measured, else ''. options: `Train`."""
    metric = options.best_metric
    if not options.keep_best or any((Path(workdir) / 'eval').glob(f'{metric}_step_*.json')):
        return ''
    names = names_logged(Path(workdir) / 'metrics.jsonl')
    if metric in names:
        return ''
    there = f'metrics.jsonl holds {", ".join(sorted(names))}' if names else 'nothing is logged yet'
    return (
        f'train.best_metric {metric!r} was not measured so far, so none is kept as the best; {there}, '
        'others come from `diffusion evaluate` beside the run'
    )


def logged(path: Path, metric: str) -> dict[int, float]:
    """{step: value} of a metrics.jsonl."""
    return {row['step']: row[metric] for row in rows(path) if isinstance(row.get(metric), int | float)}


def names_logged(path: Path) -> set[str]:
    """What a metrics.jsonl has numbers of."""
    return {name for row in rows(path) for name, value in row.items() if isinstance(value, int | float)} - {'step'}


def rows(path: Path) -> Iterator[dict]:
    """The lines of a metrics.jsonl; half a line, of a process that is writing it, is left out."""
    for line in path.read_text(encoding='utf-8', errors='replace').splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and isinstance(row.get('step'), int):
            yield row


def _evaluated(path):
    try:
        return float(json.loads(path.read_text(encoding='utf-8'))['value'])
    except (OSError, ValueError, KeyError, TypeError):
        return None
