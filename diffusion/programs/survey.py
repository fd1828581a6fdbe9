"""What every example of a set decodes to, found out once and remembered by chunks."""

import dataclasses
import functools

import numpy as np

from diffusion.data import entries, pictures, shards
from diffusion.programs import storing
from diffusion.runtime import status

CHUNK = 1024  # examples between two entries of the journal


@dataclasses.dataclass
class Survey:
    """By index. contents: a hash of each image, '' where it cannot be read; kinds: (dtype, *shape) of each, () there;
    labels; bad: {index: reason}."""

    contents: list[str]
    kinds: list[tuple]
    labels: list[int]
    bad: dict[int, str]

    @property
    def readable(self) -> int:
        return len(self.contents) - len(self.bad)


class Told:
    """Counts what is done for a status line."""

    def __init__(self, line: status.Status):
        self._line, self._done = line, 0

    def __call__(self, count: int) -> None:
        self._done += count
        self._line.update(self._done)


def taken(journal: storing.Journal, source: entries.Entries, fit: pictures.Fit) -> Survey:
    """Decodes every image; what a build that was stopped has found is not looked at again."""
    chunks = storing.blocks(list(range(source.length)), CHUNK)
    names = [f'survey-{number:07}' for number in range(len(chunks))]
    found = Survey([], [], [], {})
    known: dict[tuple, tuple] = {}  # one object a kind, however many images are of it
    missing = [chunk for name, chunk in zip(names, chunks) if not journal.has(name)]
    with status.Status('read', source.length, start=source.length - sum(map(len, missing))) as line:
        told = Told(line)
        for name, chunk in zip(names, chunks):
            rows = journal.recall(name)
            if rows is None:
                rows = []
                for block in storing.in_order(
                    functools.partial(_looked, source, fit), storing.blocks(chunk, storing.BLOCK)
                ):
                    rows += block
                    told(len(block))
                journal.note(name, rows)
            else:
                told(len(rows))
            for content, kind, label, reason in rows:
                if reason:
                    found.bad[len(found.contents)] = reason
                found.contents.append(content)
                found.kinds.append(known.setdefault(tuple(kind), tuple(kind)))
                found.labels.append(label)
    return found


def _looked(source, fit, indices: list[int]) -> list[list]:
    rows = []
    for example in source.read(np.array(indices, np.int64)):
        try:
            image = pictures.decode(example.image, fit)
        except (pictures.Unreadable, pictures.Misfit) as error:
            rows.append(['', [], example.label, str(error)])
        else:
            rows.append([shards.content(image), [str(image.dtype), *image.shape], example.label, ''])
    return rows
