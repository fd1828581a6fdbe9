"""Files by path, on this machine or behind a URL such as gs://bucket/folder: listed, read in part, fingerprinted.

Nothing is kept open, so whatever is built on these functions can be sent to another process.
"""

import concurrent.futures
import dataclasses
import difflib
import hashlib
import io
import json
import os
import posixpath
from collections.abc import Sequence
from typing import Any, BinaryIO

# Up to so many bytes and files the fingerprint is of every byte.
EXACT_BYTES = 2**30
EXACT_FILES = 200_000
# Beyond, it is of so many files, and so many blocks of this many bytes in each.
SAMPLED_FILES = 1024
SAMPLED_BLOCKS = 16
BLOCK = 2**16
_SCHEMES = {'gs': 'gcs', 'gcs': 'gcs'}


@dataclasses.dataclass(frozen=True, slots=True)
class File:
    """name: its place under the folder that was listed, with '/'; size: bytes."""

    name: str
    size: int


def remote(path: str) -> bool:
    return '://' in path


def join(folder: str, name: str) -> str:
    return posixpath.join(folder, name) if name else folder


def kind(path: str) -> str:
    """'folder', 'file' or '' where there is nothing. Raises ValueError for a URL that nothing installed can read."""
    if remote(path):
        system, inner = _system(path)
        return 'folder' if system.isdir(inner) else 'file' if system.isfile(inner) else ''
    return 'folder' if os.path.isdir(path) else 'file' if os.path.isfile(path) else ''


def missing(path: str) -> FileNotFoundError:
    """The error for a path with nothing there: it names what is there beside it."""
    folder, name = os.path.split(path.rstrip('/'))
    if remote(path) or not os.path.isdir(folder or '.'):
        return FileNotFoundError(f'{path} is not there')
    close = difflib.get_close_matches(name, os.listdir(folder or '.'), 1, 0.5)
    hint = f': did you mean {os.path.join(folder, close[0])}?' if close else ''
    return FileNotFoundError(f'{path} is not there{hint}')


def size(path: str) -> int:
    if remote(path):
        system, inner = _system(path)
        return system.size(inner)
    return os.path.getsize(path)


def walk(folder: str) -> list[File]:
    """All files below a folder by name, but for hidden ones and what archivers leave ('.DS_Store', '__MACOSX/')."""
    if remote(folder):
        system, inner = _system(folder)
        found = system.find(inner, detail=True).items()
        base = inner.rstrip('/') + '/'
        files = [File(path.removeprefix(base), int(info['size'] or 0)) for path, info in found]
    else:
        files = list(_local(folder, '', set()))
    return sorted((one for one in files if not _hidden(one.name)), key=lambda one: one.name)


def _hidden(name):
    return any(part.startswith('.') or part == '__MACOSX' for part in name.split('/'))


def _local(folder, below, seen):
    real = os.path.realpath(folder)
    if real in seen:
        return  # a link that leads back up
    seen.add(real)
    with os.scandir(folder) as entries:
        for entry in entries:
            name = below + entry.name
            if entry.is_dir():
                if not _hidden(entry.name):
                    yield from _local(entry.path, name + '/', seen)
            elif entry.is_file():
                yield File(name, entry.stat().st_size)
            elif entry.is_symlink():
                yield File(name, 0)  # leads nowhere: named here, so that it is found to be missing


def read(path: str, start: int = 0, length: int = -1) -> bytes:
    """`length` bytes from `start` on, -1: all. Raises OSError, also where there are fewer."""
    if remote(path):
        system, inner = _system(path)
        data = system.cat_file(inner, start=start or None, end=None if length < 0 else start + length)
    else:
        # One open, read, close a call costs microseconds, and there is no handle that another process cannot have.
        handle = os.open(path, os.O_RDONLY)
        try:
            wanted = os.fstat(handle).st_size - start if length < 0 else length
            data = os.pread(handle, max(wanted, 0), start)
            while 0 < len(data) < wanted and (more := os.pread(handle, wanted - len(data), start + len(data))):
                data += more  # one call reads 2 GiB at most
        finally:
            os.close(handle)
    if len(data) < length:
        raise OSError(f'{path} ends {length - len(data)} bytes early')
    return data


def open_file(path: str) -> BinaryIO:
    """A seekable file to read from."""
    if remote(path):
        system, inner = _system(path)
        return io.BufferedReader(system.open(inner, 'rb'))
    return open(path, 'rb')


def fingerprint(folder: str, files: Sequence[File]) -> str:
    """Names the content of files, whatever machine they lie on: their names under the folder, sizes and bytes.

    Beyond 1 GiB or 200,000 files it is of all names and sizes but only a sample of bytes: 16 blocks of 64 KiB, the
    first and the last among them, in each of 1,024 files spread evenly. Who changes a byte elsewhere in so large a set
    and keeps the size of every file keeps the fingerprint. Raises OSError for a file that is gone.
    """
    every = len(files) <= EXACT_FILES and sum(one.size for one in files) <= EXACT_BYTES
    step = 1 if every else -(-len(files) // SAMPLED_FILES)

    def content(one):
        path = join(folder, one.name)
        if every or one.size <= SAMPLED_BLOCKS * BLOCK:
            return hashlib.sha256(read(path)).digest()
        whole = hashlib.sha256()
        for i in range(SAMPLED_BLOCKS):
            whole.update(read(path, (one.size - BLOCK) * i // (SAMPLED_BLOCKS - 1), BLOCK))
        return whole.digest()

    def digests(some):
        return [readable(one) for one in some]

    def readable(one):
        try:
            return content(one)
        except OSError:
            return b'unreadable'  # a bad file, which is told where it is decoded

    total = hashlib.sha256(b'exact' if every else b'sampled')
    for one in files:
        total.update(f'{one.name}\0{one.size}\0'.encode('utf-8', 'surrogateescape'))
    looked = files[::step]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        # Files by the hundred: a task of its own costs more than a small file.
        for some in pool.map(digests, [looked[i : i + 100] for i in range(0, len(looked), 100)]):
            total.update(b''.join(some))
    return total.hexdigest()[:32]


def digest(*facts: Any) -> str:
    """A short name for facts that JSON can hold."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _system(path):
    """The file system that holds a URL, and the path inside it."""
    scheme = path.split('://')[0]
    extra = _SCHEMES.get(scheme)
    how = f"pip install 'diffusion[{extra}]'" if extra else f'pip install fsspec and what it needs for {scheme}://'
    try:
        import fsspec

        return fsspec.core.url_to_fs(path)
    except ImportError as error:
        raise ValueError(f'{path}: what reads {scheme}:// is not installed: {how}') from error
