"""Evidence of steps that were skipped: incidents/STEP/incident.json, from which the step can be computed again."""

import json
import math
from pathlib import Path

from diffusion.runtime import writer

FILE = 'incident.json'


def path(workdir: str, step: int, offset: int) -> Path:
    """Where the evidence of a step goes. offset: of the data, since a step that a run went back over comes twice."""
    return Path(workdir) / 'incidents' / (f'{step:07}' + (f'+{offset}' if offset else ''))


def there(workdir: str) -> dict[Path, int]:
    """The incidents of a run with the checkpoint that each needs to be computed again (0: the beginning)."""
    found = sorted((Path(workdir) / 'incidents').glob(f'*/{FILE}'))
    return {file.parent: read(file.parent)['checkpoint'] for file in found}


def write(folder: Path, evidence: dict) -> None:
    """evidence: JSON values, and numbers that are not finite, which are written as 'nan', 'inf' and '-inf'."""
    writer.write_json(folder / FILE, _spelt(evidence))


def read(folder) -> dict:
    """What `write` was given. Raises ValueError where there is no incident."""
    file = Path(folder) / FILE
    try:
        found = json.loads(file.read_text(encoding='utf-8'))
        found['step'], found['checkpoint'], found['ids'], found['metrics'], found['layers']
    except FileNotFoundError as error:
        raise ValueError(f'{folder} is no incident: there is no {file}') from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f'{file} is damaged ({type(error).__name__}: {error})') from error
    return found


def spelt(value: float) -> float | str:
    """A number as JSON can hold it."""
    return value if math.isfinite(value) else str(value)


def _spelt(value):
    if isinstance(value, dict):
        return {name: _spelt(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_spelt(each) for each in value]
    return spelt(value) if isinstance(value, float) else value
