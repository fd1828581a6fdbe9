"""Storing a set as shards so that a build that was killed goes on and ends with the bytes of one that was not.

DEST holds finished shards under their final names from the first on. What else a build must remember lies in
DEST/.building: its plan, what was found in each chunk of the source, the hash of each finished shard. The folder is
taken away last; the files that make DEST a set that can be read are written just before, the manifest as their last.
"""

import concurrent.futures
import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from diffusion.data import shards
from diffusion.runtime import writer

MANIFEST, BAD, WORK = 'manifest.json', 'bad_files.jsonl', '.building'
BLOCK = 32  # examples encoded by one thread at a time
THREADS = min(os.cpu_count() or 1, 32)


class Journal:
    """What a build remembers in DEST/.building. One process at a time."""

    def __init__(self, folder: Path, plan: dict):
        """Begins a build or goes on with one. Raises ValueError for a folder that holds anything else."""
        self.folder, self._work = folder, folder / WORK
        check(folder, plan)
        self._work.mkdir(parents=True, exist_ok=True)
        self._lock = open(self._work / 'lock', 'w')  # noqa: SIM115
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise ValueError(f'{folder} is being built by another process') from error
        writer.write_json(self._work / 'plan.json', plan)
        for path in folder.glob('.*'):
            if path != self._work:
                path.unlink()  # what a build that was killed was writing

    def has(self, name: str) -> bool:
        return (self._work / f'{name}.json').exists()

    def recall(self, name: str):
        """What was noted under a name, None for nothing."""
        path = self._work / f'{name}.json'
        return json.loads(path.read_text(encoding='utf-8')) if path.exists() else None

    def note(self, name: str, value) -> None:
        writer.write_json(self._work / f'{name}.json', value)

    def shard(self, file: str) -> shards.Shard | None:
        """A shard that was finished and is what it was then."""
        noted, path = self.recall(file), self.folder / file
        if noted is None or not path.exists():
            return None
        found = shards.Shard(**noted)
        same = path.stat().st_size == found.size and shards.sha256(path) == found.sha256
        return found if same else None

    def finish(self, manifest: dict, described: Callable[[Path], None]) -> None:
        """Makes the folder a set. described: writes TFDS's files into a folder."""
        aside = self._work / 'described'
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        described(aside)
        # A set is there for TFDS once dataset_info.json is.
        files = sorted(aside.iterdir(), key=lambda path: (path.name == 'dataset_info.json', path.name))
        hashes = {path.name: shards.sha256(path) for path in files}
        for path in files:
            with writer.atomic(self.folder / path.name) as file:
                file.write(path.read_bytes())
        writer.write_json(self.folder / MANIFEST, {**manifest, 'described': hashes})
        shards.sync(self.folder)
        self.forget()

    def forget(self) -> None:
        """Takes the journal away: the build is over."""
        self.close()
        shutil.rmtree(self._work)

    def close(self) -> None:
        self._lock.close()


def check(folder: Path, plan: dict) -> None:
    """Raises ValueError unless a build of this plan may write into the folder."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f'{folder} is a file')
    begun = folder / WORK / 'plan.json'
    held = sorted(path.name for path in folder.iterdir() if path.name not in (BAD, WORK))
    if begun.exists():
        _same(json.loads(begun.read_text(encoding='utf-8')), plan, f'{folder} holds a build that was begun')
    elif held:
        raise ValueError(f'{folder} holds {held[0]!r}, which no build of this set has written: name an empty folder')


def finished(folder: Path, plan: dict) -> dict | None:
    """The manifest of a set of this plan, None where there is none. Raises ValueError for one of another plan."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    manifest = json.loads(path.read_text(encoding='utf-8'))
    if not isinstance(manifest, dict) or 'plan' not in manifest:
        raise ValueError(f'{path} is not the manifest of a set: name an empty folder')
    _same(manifest['plan'], plan, f'{folder} holds a set that was built')
    shutil.rmtree(folder / WORK, ignore_errors=True)  # of a build that was killed as it took it away
    return manifest


def _same(before: dict, plan: dict, what: str) -> None:
    wanted = json.loads(json.dumps(plan))
    changed = [key for key in {**before, **wanted} if before.get(key) != wanted.get(key)]
    if changed:
        said = '; '.join(f'{key}: {before.get(key)} -> {wanted.get(key)}' for key in changed)
        raise ValueError(f'{what} otherwise ({said}): name another folder')


def problems(folder: Path, manifest: dict) -> list[str]:
    """What of a set is not what its manifest says, [] for nothing."""
    files = {part['file']: part['sha256'] for split in manifest['splits'].values() for part in split['shards']}
    found = []
    for name, sha256 in {**files, **manifest['described']}.items():
        path = folder / name
        if not path.exists():
            found.append(f'{name} is missing')
        elif shards.sha256(path) != sha256:
            found.append(f'{name} has other contents than were built')
    return found


def in_order(function: Callable, items: Iterable, ahead: int = 2 * THREADS) -> Iterator:
    """function of each item by several threads, the results in the order of the items, a few ahead of their use."""
    waiting: deque = deque()
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(THREADS))
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def blocks(indices: list[int], size: int) -> list[list[int]]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def store(
    journal: Journal, layout: shards.Layout, split: str, parts: list[list[int]], encode: Callable, done: Callable
) -> list[shards.Shard]:
    """Writes the shards of a split that are not there yet.

    parts: the examples of each shard; encode: indices -> the bytes of their records; done: told of examples stored.
    """
    written = []
    for number, indices in enumerate(parts):
        file = shards.file_name(layout, split, number, len(parts))
        found = journal.shard(file)
        if found is None:
            records = _told(in_order(encode, blocks(indices, BLOCK)), done)
            found = shards.write(journal.folder / file, records)
            journal.note(file, dataclasses.asdict(found))
        else:
            done(len(indices))
        written.append(found)
    return written


def _told(batches, done):
    for batch in batches:
        yield from batch
        done(len(batch))
