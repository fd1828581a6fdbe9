"""The manifest of a checkpoint: what its folder holds, with the SHA-256 of every file, written as its last file.

Nothing here touches a device or JAX, so a manifest can be read and checked on any machine.
"""

import concurrent.futures
import hashlib
import json
from pathlib import Path

from diffusion.runtime import writer

FILE = 'manifest.json'
# Orbax writes these two after the manifest; they hold times, nothing that is restored.
UNHASHED = frozenset({'_CHECKPOINT_METADATA', 'commit_success.txt', FILE})
THREADS = 4


class Damaged(ValueError):
    """A checkpoint that is not what was saved; the message says in which file."""


def write(folder: Path, content: dict) -> None:
    """Hashes every file under `folder` and writes the manifest: `content` (JSON values) and 'files'."""
    names = _files(folder)
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        hashes = pool.map(lambda name: _sha256(folder / name), names)
    files = {name: [(folder / name).stat().st_size, found] for name, found in zip(names, hashes)}
    writer.write_json(folder / FILE, {**content, 'files': files})


def read(folder: Path) -> dict:
    """The manifest of a folder. Raises Damaged where there is none that can be read."""
    try:
        found = json.loads((folder / FILE).read_text(encoding='utf-8'))
        return {**found, 'files': dict(found['files'])}
    except FileNotFoundError as error:
        raise Damaged(f'no {FILE}: it was never finished, or copied in part') from error
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise Damaged(f'{FILE} cannot be read ({type(error).__name__})') from error


def problems(folder: Path, items: tuple[str, ...] | None = None) -> list[str]:
    """What is wrong with the files of a checkpoint, [] for nothing. items: only these of its parts (None: all)."""
    try:
        files = read(folder)['files']
    except Damaged as error:
        return [str(error)]
    names = [name for name in files if items is None or name.split('/')[0] in items]
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda name: _problem(folder / name, *files[name]), names)
    return [f'{name} {problem}' for name, problem in zip(names, found) if problem]


def identity(folder: Path, item: str) -> str:
    """16 hexadecimal digits of what the files of one part are, alike in every copy. Raises Damaged."""
    files = {name: found for name, found in read(folder)['files'].items() if name.split('/')[0] == item}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:16]


def size(content: dict) -> int:
    """Bytes of all the files of a manifest."""
    return sum(count for count, _ in content['files'].values())


def _files(folder):
    paths = (path.relative_to(folder) for path in folder.rglob('*') if path.is_file())
    return sorted(path.as_posix() for path in paths if path.as_posix() not in UNHASHED)


def _problem(path, wanted, sha256):
    try:
        found = path.stat().st_size
        if found != wanted:
            return f'has {found:,} bytes, not {wanted:,}'
        return '' if _sha256(path) == sha256 else 'has other contents than were saved'
    except FileNotFoundError:
        return 'is missing'
    except OSError as error:
        return f'cannot be read ({error.strerror})'


def _sha256(path):
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
