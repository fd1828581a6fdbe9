"""The working tree as one archive, named by what is in it: what git tracks, and what it neither tracks nor ignores."""

import fnmatch
import gzip
import hashlib
import io
import os
import re
import subprocess
import tarfile
from pathlib import Path

from diffusion import usage

MOST = 256 * 2**20  # bytes: a working tree holds code; data belong into a bucket
SECRET_NAMES = ('.env', '.env.*', '*.pem', '*.key', '*.p12', 'id_rsa*', 'id_ed25519*', '.netrc', '*credentials*.json')
SECRET_TEXT = re.compile(rb'-----BEGIN [A-Z ]*PRIVATE KEY-----|"private_key"\s*:\s*"')


def files(root: Path) -> list[str]:
    """Sorted paths below root. Raises usage.UsageError where root is no working tree of git."""
    call = ('git', '-C', str(root), 'ls-files', '-z', '--cached', '--others', '--exclude-standard')
    try:
        done = subprocess.run(call, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise usage.UsageError('git is not installed here; it says which files are packed') from error
    if done.returncode:
        raise usage.UsageError(f'{root} is no working tree of git: run this in a clone of the project')
    names = {os.fsdecode(name) for name in done.stdout.split(b'\0') if name}
    return sorted(name for name in names if os.path.lexists(root / name))


def contents(root: Path, allowed: tuple[str, ...] = ()) -> dict[str, tuple[int, bytes, str]]:
    """{path: (mode, bytes, target of a link)}; `allowed` may look like secrets."""
    found, size = {}, 0
    for name in files(root):
        path = root / name
        if path.is_symlink():
            target = os.readlink(path)
            inside = os.path.normpath(os.path.join(os.path.dirname(name), target))
            if os.path.isabs(target) or inside.split('/')[0] == '..':
                raise usage.UsageError(f'{name} links to {target}, which is not packed')
            found[name] = (0o777, b'', target)
            continue
        if not path.is_file():
            continue  # a repository inside the repository: git names its folder alone
        data = path.read_bytes()
        if name not in allowed and _secret(name, data):
            raise usage.UsageError(
                f'{name} looks like a secret and would be packed: put it into .gitignore, or --allow-file={name}'
            )
        size += len(data)
        if size > MOST:
            raise usage.UsageError(f'more than {MOST >> 20} MB would be packed ({name}): put data into .gitignore')
        found[name] = (0o755 if os.access(path, os.X_OK) else 0o644, data, '')
    if 'pyproject.toml' not in found:
        raise usage.UsageError(f'{root} has no pyproject.toml, from which the hosts install: run this in a clone')
    return found


def _secret(name, data):
    base = os.path.basename(name)
    return any(fnmatch.fnmatch(base, pattern) for pattern in SECRET_NAMES) or SECRET_TEXT.search(data) is not None


def digest(found: dict[str, tuple[int, bytes, str]]) -> str:
    """Of names, modes and bytes; not of times, owners or order."""
    whole = hashlib.sha256()
    for name, (mode, data, target) in sorted(found.items()):
        head = f'{name}\0{mode:o}\0{target}\0{len(data)}\0'
        whole.update(head.encode('utf-8', 'surrogateescape') + data)
    return whole.hexdigest()[:16]


def archive(found: dict[str, tuple[int, bytes, str]]) -> bytes:
    """A .tar.gz, the same bytes for the same contents."""
    buffer = io.BytesIO()
    with gzip.GzipFile('', 'wb', 6, buffer, mtime=0) as packed, tarfile.open(fileobj=packed, mode='w') as tar:
        for name, (mode, data, target) in sorted(found.items()):
            entry = tarfile.TarInfo(name)
            entry.mode, entry.size = mode, len(data)
            if target:
                entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def pack(root: Path, folder: Path, allowed: tuple[str, ...] = ()) -> tuple[str, frozenset[str]]:
    """Writes folder/HASH.tar.gz where it is not there; returns the hash and what is in it."""
    found = contents(root, allowed)
    name = digest(found)
    path = folder / f'{name}.tar.gz'
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix('.tmp')
        beside.write_bytes(archive(found))
        os.replace(beside, path)
    return name, frozenset(found)
