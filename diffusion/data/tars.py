"""WebDataset: tar archives in which the files of an example share a key, read at any place."""

import concurrent.futures
import dataclasses
import itertools
import json
import posixpath
import re
import tarfile

import numpy as np

from diffusion.data import entries, fields, folder, storage

_IMAGES = tuple(suffix.lstrip('.') for suffix in folder.SUFFIXES)
_TOLD = ('txt', 'cls', 'json')


@dataclasses.dataclass(frozen=True, eq=False)
class _Tars:
    """keys: of the examples in order, with the suffix of the image; places: int64 [N, 3], archive, offset and bytes of
    each image."""

    root: str
    files: tuple[str, ...]
    keys: tuple[str, ...]
    places: np.ndarray
    labels: np.ndarray | None
    texts: tuple[str, ...] | None

    def read(self, indices: np.ndarray) -> list[entries.Example]:
        return [self._example(int(i)) for i in indices]

    def _example(self, i):
        archive, offset, length = self.places[i].tolist()
        try:
            data = storage.read(storage.join(self.root, self.files[archive]), offset, length)
            image = folder.picture(self.keys[i], data)
        except OSError:
            image = b''
        label = -1 if self.labels is None else int(self.labels[i])
        return entries.Example(self.name(i), image, label, '' if self.texts is None else self.texts[i])

    def captions(self) -> list[str]:
        return [''] * len(self.keys) if self.texts is None else list(self.texts)

    def name(self, index: int) -> str:
        archive = self.files[self.places[index, 0]] or posixpath.basename(self.root)
        return f'{archive}:{self.keys[index]}'


def braces(pattern: str) -> list[str]:
    """The paths of a pattern with {000..123} and {a,b}."""
    found = re.search(r'\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}', pattern)
    if not found:
        return [pattern]
    first, last, words = found.groups()
    numbers = range(int(first), int(last) + 1) if first else ()
    parts = words.split(',') if words else [str(number).zfill(len(first)) for number in numbers]
    before, after = pattern[: found.start()], pattern[found.end() :]
    return list(itertools.chain.from_iterable(braces(before + part + after) for part in parts))


def open(root: str, files: list[storage.File], label: str, caption: str) -> entries.Entries:
    """root, files: archives and the folder they lie in; label, caption: 'auto', 'none' or a key of the .json members.

    The headers are read once. Without .cls and .json labels, folders inside the archives are classes. Raises ValueError
    for an archive that is damaged, or whose members contradict each other.
    """
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        shards = list(pool.map(lambda one: _index(storage.join(root, one.name), one.size), files))
    examples = {}
    for archive, shard in enumerate(shards):
        for key, members in shard.items():
            if key in examples:
                first = storage.join(root, files[examples[key][0]].name)
                raise ValueError(f'{storage.join(root, files[archive].name)}: key {key!r} is in {first} too')
            examples[key] = (archive, members)
    keys = sorted(examples)
    members = [examples[key][1] for key in keys]
    for key, one in zip(keys, members):
        if 'image' not in one:
            where = storage.join(root, files[examples[key][0]].name)
            raise ValueError(f'{where}: key {key!r} has {", ".join(sorted(one))} but no image')
    if not keys:
        raise ValueError(f'{root}: no member is an image: {", ".join(_IMAGES)} are')
    where = f'{root} (.cls or .json)'
    classes, labels = _labels(keys, members, label, where)
    texts = _texts(members, caption, where)
    table = _Tars(
        root,
        tuple(one.name for one in files),
        tuple(f'{key}.{one["image"][0]}' for key, one in zip(keys, members)),
        np.array([[examples[key][0], *one['image'][1:]] for key, one in zip(keys, members)], np.int64),
        labels,
        texts,
    )
    mark = storage.fingerprint(root, files)
    return entries.Entries(len(keys), mark, classes, texts is not None, table.read, table.captions, table.name)


def _index(path, size):
    """{key: {'image': (suffix, offset, bytes), 'txt': str, 'cls': str, 'json': dict}} of one archive."""
    found = {}
    try:
        with storage.open_file(path) as file, tarfile.open(fileobj=file, mode='r:') as archive:
            end = 0
            for member in archive:
                end = member.offset_data + -(-member.size // 512) * 512
                if end > size:
                    raise ValueError(f'truncated in {member.name}')
                hidden = any(part.startswith('.') and part != '.' for part in member.name.split('/'))
                if member.isfile() and not hidden:
                    _take(found, path, member, file)
            if size < end + 512:
                raise ValueError('truncated: the mark of its end is missing')
    except tarfile.ReadError as error:
        raise ValueError(f'{path}: no tar archive, or a damaged one: {error}') from error
    except (OSError, EOFError) as error:
        raise ValueError(f'{path}: {error}') from error
    except ValueError as error:
        raise ValueError(f'{path}: {" ".join(str(error).split())}'.replace(f'{path}: {path}', path)) from error
    return found


def _take(found, path, member, file):
    place, _, base = posixpath.normpath(member.name).rpartition('/')
    base, _, suffix = base.partition('.')
    suffix, key = suffix.lower(), posixpath.join(place, base)
    part = 'image' if suffix in _IMAGES else suffix
    if part not in ('image', *_TOLD):
        return
    here = found.setdefault(key, {})
    if part in here:
        raise ValueError(f'key {key!r} has two members for its {part}')
    if part == 'image':
        here[part] = (posixpath.basename(member.name).partition('.')[2], member.offset_data, member.size)
        return
    back = file.tell()
    file.seek(member.offset_data)
    data = file.read(member.size)
    file.seek(back)
    try:
        text = data.decode('utf-8-sig').strip()
        here[part] = json.loads(text) if part == 'json' else text
    except ValueError as error:
        raise ValueError(f'{member.name} is no {"JSON" if part == "json" else "UTF-8"}: {error}') from error
    if part == 'json' and not isinstance(here[part], dict):
        raise ValueError(f'{member.name} is not a JSON object')


def _labels(keys, members, label, where):
    known = {key for one in members for key in one.get('json', {})}
    numbers = [one.get('cls') for one in members]
    if label in ('auto', 'cls') and any(numbers):
        whole = all(re.fullmatch(r'-?\d+', one) for one in numbers if one)
        return fields.numbered([(int(one) if whole else one) if one else None for one in numbers], (), where)
    chosen = fields.chosen('label', 'none' if label == 'folder' else label, known, fields.LABELS, where)
    if chosen:
        return fields.numbered([one.get('json', {}).get(chosen) for one in members], (), where)
    tops = [key.partition('/')[0] if '/' in key else None for key in keys]
    if label == 'none' or None in tops or len(set(tops)) < 2:
        return (), None
    return fields.numbered(tops, (), where)


def _texts(members, caption, where):
    if caption in ('auto', 'txt') and any('txt' in one for one in members):
        return tuple(one.get('txt', '') for one in members)
    known = {key for one in members for key in one.get('json', {})}
    chosen = fields.chosen('caption', caption, known, fields.CAPTIONS, where)
    return tuple(fields.text(one.get('json', {}).get(chosen)) for one in members) if chosen else None
