"""The images of a run that could not be read: counted, named in bad_files.jsonl, and too many of them end it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffusion import usage
from diffusion.data import records

FILE = 'bad_files.jsonl'


class BadFiles:
    """What this process has found; process i > 0, which reads other examples, names its own in bad_files.I.jsonl."""

    def __init__(self, setup: Any):
        """setup: `train.Setup`; what a stopped run found already is not named again."""
        self._data = setup.data
        self._records = setup.data.open()
        number = jax.process_index()
        self._path = Path(setup.folder) / (FILE if not number else f'bad_files.{number}.jsonl')
        # Where all images are decoded at the start every process knows the same, and one says it.
        self._silent = self._records.resident and number
        self._known = {one.index: one for one in read(self._path)}
        if self._records.resident:
            self._note(self._records.bad(np.arange(self._records.length)))

    @property
    def count(self) -> int:
        return len(self._known)

    def see(self, batch: dict) -> dict:
        """The batch without its mark of substitutes, once what they stand for is named. Raises `usage.Fault` where
        there are more than `Source.max_bad`."""
        if 'bad' not in batch:
            return batch
        new = [i for i in batch['index'][batch['bad']].tolist() if i not in self._known]
        if new:
            self._note(self._records.bad(np.array(new)))
        return {name: value for name, value in batch.items() if name != 'bad'}

    def _note(self, found):
        found = [one for one in found if one.index not in self._known]
        self._known |= {one.index: one for one in found}
        if found and not self._silent:
            cut = self._path.exists() and not self._path.read_bytes().endswith(b'\n')
            lines = ''.join(json.dumps(dataclasses.asdict(one), ensure_ascii=False) + '\n' for one in found)
            with self._path.open('a', encoding='utf-8', errors='surrogateescape') as file:
                file.write('\n' * cut + lines)  # the line that a killed run left half is ended first
        if self.count > self._data.max_bad * self._records.length:
            raise usage.Fault(
                'stopped: ' + records.too_many(list(self._known.values()), self._records.length, self._data.max_bad)
            )


def read(path: Path) -> list[records.Bad]:
    """What a run has named; half a line is left out."""
    found = []
    for line in path.read_text(encoding='utf-8', errors='surrogateescape').splitlines() if path.exists() else ():
        try:
            found.append(records.Bad(**json.loads(line)))
        except (json.JSONDecodeError, TypeError):
            continue
    return found
