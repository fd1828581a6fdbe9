"""What is computed of many examples, kept in blocks: a computation that was killed goes on, parts of several machines
add up to one.

A block is a run of whole calls, so what it holds does not depend on which other blocks were computed, when or where.
"""

import dataclasses
import io
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from diffusion.evaluation import protocol
from diffusion.programs import workdir
from diffusion.runtime import status, writer

FOLDER = 'cache'
ABOUT = 'about.json'
FORMAT = 1
CODE = ('diffusion', 'jax', 'jaxlib')  # of which another version may round otherwise
LEAST = 256  # examples of a block, or a call where that is more


@dataclasses.dataclass(frozen=True)
class Blocks:
    """The arrays [n, ...] of `count` examples in files of `size`, the last one perhaps shorter. about: all that they
    depend on, JSON values, of which the name of the folder holds the hash."""

    folder: Path
    count: int
    size: int
    about: dict

    def spans(self, chosen: tuple[int, int] | None = None) -> list[tuple[int, int]]:
        """First example and end of each block, of those alone that begin in the range chosen."""
        begin, end = chosen or (0, self.count)
        starts = range(-(-begin // self.size) * self.size, min(end, self.count), self.size)
        return [(start, min(start + self.size, self.count)) for start in starts]

    def read(self, span: tuple[int, int]) -> dict[str, np.ndarray] | None:
        """A block that is there and whole; None, and the reason on stderr, for one that is damaged."""
        path = self._path(span)
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
                found = {name: archive[name] for name in archive.files}
            if any(len(array) != span[1] - span[0] for array in found.values()):
                raise ValueError('another number of examples')
            return found
        except FileNotFoundError:
            return None
        except (ValueError, EOFError, OSError, KeyError, TypeError, zipfile.BadZipFile) as error:
            print(f'{path} is damaged ({" ".join(str(error).split())}): computed again', file=sys.stderr)
            return None

    def write(self, span: tuple[int, int], arrays: dict[str, np.ndarray]) -> None:
        if not (self.folder / ABOUT).exists():
            writer.write_json(self.folder / ABOUT, self.about)
        with writer.atomic(self._path(span)) as file:
            np.savez(file, **arrays)

    def _path(self, span):
        return self.folder / f'{span[0]:07}-{span[1]:07}.npz'

    def remove(self) -> None:
        shutil.rmtree(self.folder)

    def fill(
        self, name: str, chosen: tuple[int, int] | None, at: tuple[int, int], compute: Callable
    ) -> dict[str, np.ndarray] | None:
        """The arrays of all examples, after computing the blocks that are not there; None where others than the chosen
        ones are not.

        name: of the progress shown; chosen: `asked`; at: which of how many computations like this one of a call;
        compute: (span, report) -> the arrays of a block, report to be told how many of its examples are done.
        """
        found = {span: self.read(span) for span in self.spans()}
        todo = [span for span in self.spans(chosen) if found[span] is None]
        there = sum(stop - start for (start, stop), arrays in found.items() if arrays is not None)
        if there:
            print(f'{there:,} of {self.count:,} are in {self.folder}')
        left = sum(stop - start for start, stop in todo)
        done = at[0] * self.count + self.count - left
        with status.Status(name, at[1] * self.count, done) as line:
            if at[1] > 1:
                line.items['cell'] = f'{at[0] + 1}/{at[1]}'
            for span in todo:
                found[span] = compute(span, lambda more, done=done: line.update(done + more))
                self.write(span, found[span])
                done += span[1] - span[0]
        if any(arrays is None for arrays in found.values()):
            return None
        parts = list(found.values())
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def size(batch: int) -> int:
    return -(-LEAST // batch) * batch


def plan(folder: Path, name: str, about: dict, count: int, batch: int) -> Blocks:
    """The blocks of a computation, below `folder`. batch: examples a call."""
    versions = {name: version for name, version in workdir.versions().items() if name in CODE}
    about = {**about, 'batch': batch, 'format': FORMAT, **versions}
    return Blocks(folder / FOLDER / f'{name}_{protocol.digest(about)}', count, size(batch), about)


def asked(text: str | None, count: int, batch: int) -> tuple[int, int] | None:
    """--range=FIRST:END, None for all. Raises ValueError."""
    if text is None:
        return None
    first, colon, end = text.partition(':')
    if not (colon and first.isdecimal() and end.isdecimal() and int(first) < int(end) <= count):
        raise ValueError(f'--range={text}: FIRST:END is wanted, 0 <= FIRST < END <= {count} (--num)')
    if -(-int(first) // size(batch)) * size(batch) >= int(end):
        raise ValueError(f'--range={text} is empty: it holds the beginning of no block of {size(batch)}')
    return int(first), int(end)
