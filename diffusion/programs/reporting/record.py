"""What a run has left in its workdir, read without needing any of it but config.json: no device, no weights."""

import dataclasses
import json
import math
import statistics
from pathlib import Path

from diffusion.programs import measured, starts, workdir
from diffusion.runtime import checkpoint, incidents, manifest, store


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A result of `diffusion evaluate`. file: its name; told: all that it says, JSON values; interval: (low, high)."""

    file: str
    metric: str
    name: str
    step: int
    value: float
    interval: tuple[float, float] | None
    told: dict


@dataclasses.dataclass(frozen=True)
class Run:
    """name: what the report calls it; about: config.json; rows: of metrics.jsonl, by step; starts: of `starts`;
    incidents: (folder, evidence or what is wrong with it); sheets: step to the file of its samples; checkpoints: step
    to its manifest's content, None where that cannot be read; odd: files that could not be read, and why."""

    folder: Path
    name: str
    about: dict
    rows: list[dict]
    starts: list[dict]
    evaluations: list[Evaluation]
    incidents: list[tuple[Path, dict | str]]
    sheets: dict[int, Path]
    checkpoints: dict[int, dict | None]
    odd: list[str]

    @property
    def config(self) -> dict:
        return self.about['config']

    def option(self, section: str, key: str, otherwise=None):
        """A value of the config, which may be of another version that had no such key."""
        return self.config.get(section, {}).get(key, otherwise)

    def series(self, name: str) -> tuple[list[float], list[float]]:
        """(steps, values) of one name in metrics.jsonl; NaN where a line says null, which is what is not finite."""
        pairs = [(row['step'], row[name]) for row in self.rows if name in row]
        return [step for step, _ in pairs], [math.nan if value is None else value for _, value in pairs]

    def names(self) -> list[str]:
        """What metrics.jsonl has numbers of, in the order of its lines."""
        return list(dict.fromkeys(name for row in self.rows for name in row if name not in ('step', 'time')))

    def last_step(self) -> int:
        return max([row['step'] for row in self.rows] + list(self.checkpoints) + [0])


def read(folder: str) -> Run:
    """Raises ValueError for what is no run. A damaged file beside config.json is named in `odd` and left out."""
    path, odd = Path(folder), []
    if not path.is_dir():
        raise ValueError(f'there is no workdir {folder!r}: diffusion train --workdir={folder} makes one')
    about = _about(path)
    evaluations = []
    for file in sorted((path / 'eval').glob('*.json')):
        try:
            told = json.loads(file.read_text(encoding='utf-8'))
            if 'metric' in told:  # beside the results may lie what they were made of
                evaluations.append(_evaluation(file.name, told))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            odd.append(f'eval/{file.name} is no result of diffusion evaluate ({type(error).__name__}: {error})')
    return Run(
        path,
        path.resolve().name,
        about,
        _rows(path / 'metrics.jsonl'),
        starts.read(folder),
        sorted(evaluations, key=lambda one: (one.metric, one.step, one.file)),
        [(file.parent, _incident(file.parent)) for file in sorted(path.glob(f'incidents/*/{incidents.FILE}'))],
        dict(
            sorted((int(file.stem[5:]), file) for file in path.glob('samples/step_*.png') if file.stem[5:].isdecimal())
        ),
        {step: _manifest(path / checkpoint.FOLDER / str(step)) for step in store.numbered(path / checkpoint.FOLDER)},
        odd,
    )


def _about(path):
    file = path / workdir.FILE
    try:
        about = json.loads(file.read_text(encoding='utf-8'))
        if not all(isinstance(section, dict) for section in about['config'].values()):
            raise TypeError('a section that is no dict')
        return about
    except FileNotFoundError as error:
        raise ValueError(f'{str(path)!r} is not a run: it holds no {workdir.FILE}') from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{file} is damaged ({type(error).__name__}: {error}): name another --workdir') from error


def _rows(path):
    """What each step has numbers of, ascending."""
    found = {}
    for row in measured.rows(path):
        numbers = {name: value for name, value in row.items() if value is None or _is_number(value)}
        found[row['step']] = found.get(row['step'], {}) | numbers
    return [found[step] for step in sorted(found)]


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def _evaluation(name, told):
    value = told['value']
    interval = told.get('interval')
    if interval is None and told.get('standard_error') is not None:
        half = 1.959964 * told['standard_error']  # of a normal law, 95 %
        interval = (value - half, value + half)
    whole = interval and all(_is_number(end) for end in interval)
    return Evaluation(
        name,
        str(told['metric']),
        str(told.get('name') or told['metric']),
        int(told['step']),
        math.nan if value is None else float(value),
        (float(interval[0]), float(interval[1])) if whole else None,
        told,
    )


def _incident(folder):
    try:
        return incidents.read(folder)
    except (ValueError, OSError) as error:
        return str(error)


def _manifest(folder):
    try:
        return manifest.read(folder)
    except manifest.Damaged:
        return None


def hours(run: Run) -> float | None:
    """Hours of training: from each start to the last line before the next, of what is kept; None: unknown.

    Of a run that wrote down no starts, it is from its first line to its last.
    """
    times = [row['time'] for row in run.rows if _is_number(row.get('time'))]
    if not times:
        return None
    begins = [start['time'] for start in run.starts] or [min(times)]
    total = 0.0
    for begin, end in zip(begins, [*begins[1:], math.inf]):
        total += max([time for time in times if begin <= time < end], default=begin) - begin
    return total / 3600


def speed(run: Run) -> float | None:
    """The median of images a second over the lines."""
    values = [v for v in run.series('images_per_s')[1] if math.isfinite(v)]
    return statistics.median(values) if values else None
