"""Results of `diffusion evaluate` in a workdir, one file a metric, protocol and step; what a call prints of them."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from diffusion.evaluation import protocol
from diffusion.runtime import ema, pictures, writer

FOLDER = 'eval'
SHOWN = 3  # other protocols that are told of


@dataclasses.dataclass(frozen=True)
class Result:
    """slug: of the file; shown: the name with what qualifies it; value: JSON values, 'value' and 'standard_error' among
    them; asked: the protocol, JSON values; lines: what is printed of it; picture: uint8 [H, W, 3] that goes with it."""

    slug: str
    shown: str
    value: dict
    asked: dict
    note: str
    lines: tuple[str, ...]
    picture: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the results of one way of measuring lie. weights: which; own: whether it is measured as the run was
    configured; requests: {slug: what is known of the protocol before anything is computed}."""

    workdir: str
    weights: str
    own: bool
    requests: dict[str, dict]

    def path(self, slug: str, step: int) -> Path:
        """Plain names are those that curves and rotation look for: the run's own way, of the first protocol there."""
        # The results of the main average have the plain name.
        of = '' if self.weights == ema.MAIN else f'_{Path(self.weights).name}'
        plain = Path(self.workdir) / FOLDER / f'{slug}{of}_step_{step}.json'
        request = protocol.digest(self.requests[slug])
        if self.own and (not plain.exists() or (stored(plain) or {}).get('request') == request):
            return plain
        return plain.with_name(f'{slug}{of}_{request[:8]}_step_{step}.json')

    def read(self, slug: str, step: int) -> dict | None:
        """The result that is there of a checkpoint, None for none."""
        found = stored(self.path(slug, step))
        return found if found and found.get('request') == protocol.digest(self.requests[slug]) else None

    def missing(self, step: int, mark: str, again: bool) -> list[str]:
        """The results that are to be measured of a checkpoint. mark: see `opening.Taken`; again: all of them. Raises
        ValueError where one that is there is of another checkpoint of this step."""
        there = {} if again else {slug: self.read(slug, step) for slug in self.requests}
        for slug, found in there.items():
            if found and found.get('checkpoint') != mark:
                path = self.path(slug, step)
                raise ValueError(f'{path} is of another checkpoint of step {step}: add --overwrite, or move it')
        return [slug for slug in self.requests if not there.get(slug)]

    def write(self, found: list[Result], step: int, context: dict) -> list[dict]:
        """Prints and writes each result, and what of its protocol differs from results that are there. context: JSON
        values for the files. Returns what was written."""
        folder, reports = Path(self.workdir) / FOLDER, []
        for result in found:
            others = _others(folder, result)
            report = {
                'metric': result.slug,
                'name': result.shown,
                **result.value,
                'note': result.note or None,
                'protocol': result.asked,
                'protocol_hash': protocol.digest(result.asked),
                'request': protocol.digest(self.requests[result.slug]),
                'weights': self.weights,
                'step': step,
                **context,
            }
            path = self.path(result.slug, step)
            if result.picture is not None:
                pictures.save(path.with_suffix('.png'), result.picture)
            writer.write_json(path, report)
            print('\n'.join(result.lines))
            for name, old in others:
                changed = protocol.differences(old, result.asked)
                fields = '; '.join(f'{key}: {_short(a)} -> {_short(b)}' for key, (a, b) in changed.items())
                print(f'not to be compared with {name}, whose protocol is another: {fields}')
            beside = '' if result.picture is None else f' and {path.with_suffix(".png").name}'
            # At once: a watch is read as it goes.
            print(f'written to {path}{beside}, protocol {report["protocol_hash"]}', flush=True)
            reports.append(report)
        # Names without the step are curves.
        curves = {f'eval/{self.path(one.slug, step).name.rpartition("_step_")[0]}': one.value['value'] for one in found}
        writer.scalars(folder, step, curves)
        return reports


def stored(path: Path) -> dict | None:
    """A result as it was written, None where there is none or it is not one of ours."""
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
        return found if isinstance(found, dict) and 'metric' in found else None
    except (OSError, ValueError):
        return None


def _others(folder, result):
    """(file, protocol) of results of this metric with other protocols, the newest of each."""
    known, own = {}, protocol.digest(result.asked)
    for path in sorted(folder.glob(f'{result.slug}_*.json'), key=lambda path: path.stat().st_mtime, reverse=True):
        found = stored(path) or {}
        mark = found.get('protocol_hash')
        if mark and found['metric'] == result.slug and mark != own and isinstance(found.get('protocol'), dict):
            known.setdefault(mark, (path.name, found['protocol']))
    return list(known.values())[:SHOWN]


def _short(value) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f'{text[:57]}...'


def conclude(rows: list[dict], path: str | None) -> None:
    """Prints a table of several rows, a result being a dict of JSON values in one; path: writes them all as JSON."""
    if len(rows) > 1:
        print('\n'.join(table([{name: _cell(value) for name, value in row.items()} for row in rows])))
    if path and rows:
        writer.write_json(path, rows)
        print(f'all results of this call are in {path}')


def _cell(value) -> str:
    if not isinstance(value, dict):
        return str(value)
    error = value.get('standard_error')
    return f'{value["value"]:.4g}' + ('' if error is None else f' ± {error:.2g}')


def table(rows: list[dict]) -> list[str]:
    """Lines of a table with a row for each dict of strings, and a column for each of their keys."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, *([row.get(name, '') for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    return ['  '.join(f'{text:>{width}}' for text, width in zip(line, widths)) for line in lines]
