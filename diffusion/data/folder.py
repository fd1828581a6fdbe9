"""A folder of images: labels by class folder, captions in .txt files or in metadata.jsonl."""

import dataclasses
import io
import json
import posixpath

import numpy as np

from diffusion.data import entries, fields, storage

METADATA = 'metadata.jsonl'
SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp', '.gif', '.tif', '.tiff', '.bmp', '.ppm', '.pgm', '.jp2', '.npy')
# Text files that people put beside images and that caption none.
_NOTES = ('readme', 'license', 'licence', 'notice', 'copying', 'classes', 'labels')


@dataclasses.dataclass(frozen=True, eq=False)
class _Folder:
    """names: of the images in order; labels: int32 [N] or None; texts: captions, or None; beside: names of the .txt
    files, '' for none, or None."""

    root: str
    names: tuple[str, ...]
    labels: np.ndarray | None
    texts: tuple[str, ...] | None
    beside: tuple[str, ...] | None

    def read(self, indices: np.ndarray) -> list[entries.Example]:
        return [self._example(int(i)) for i in indices]

    def _example(self, i):
        label = -1 if self.labels is None else int(self.labels[i])
        try:
            image = picture(self.names[i], storage.read(storage.join(self.root, self.names[i])))
        except OSError:
            image = b''
        return entries.Example(self.names[i], image, label, self._caption(i))

    def _caption(self, i):
        if self.texts is not None:
            return self.texts[i]
        if self.beside is None or not self.beside[i]:
            return ''
        return _utf8(storage.join(self.root, self.beside[i])).strip()

    def captions(self) -> list[str]:
        return [self._caption(i) for i in range(len(self.names))]

    def name(self, index: int) -> str:
        return self.names[index]


def _utf8(path):
    try:
        return storage.read(path).decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is not UTF-8: {error.reason} at byte {error.start}') from error


def picture(name: str, data: bytes) -> bytes | np.ndarray:
    """The image of a file: its bytes, or the array of an .npy; b'' for an .npy that is damaged."""
    if not name.lower().endswith('.npy'):
        return data
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError):
        return b''


def is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def stem(name: str) -> str:
    """A file's name under its folder without the suffix: what examples are ordered by."""
    return posixpath.splitext(name)[0]


def open(root: str, files: list[storage.File], label: str, caption: str) -> entries.Entries:
    """root: the folder; files: all that is in it; label, caption: 'auto', 'none' or a key of metadata.jsonl; label
    may be 'folder'. Raises ValueError for what contradicts itself."""
    images = sorted((one for one in files if is_image(one.name)), key=lambda one: (stem(one.name), one.name))
    names = tuple(one.name for one in images)
    arrays = [name for name in names if name.lower().endswith('.npy')]
    if arrays and len(arrays) < len(names):
        raise ValueError(f'{root} holds both .npy arrays and pictures (first: {arrays[0]}): keep them apart')
    rows, told = _metadata(root, files, names)
    known = {key for row in rows.values() for key in row}
    by_key = fields.chosen('label', 'none' if label == 'folder' else label, known, fields.LABELS, METADATA)
    written = fields.chosen('caption', caption, known, fields.CAPTIONS, METADATA)
    beside, notes = _beside(root, files, names) if caption == 'auto' else (None, [])
    if written and beside:
        raise ValueError(f'{root} has captions in .txt files and in {METADATA}: keep one of them')
    if by_key:
        classes, labels = fields.numbered([rows.get(name, {}).get(by_key) for name in names], (), METADATA)
    else:
        classes, labels = _class_folders(root, names, label)
    texts = tuple(fields.text(rows.get(name, {}).get(written)) for name in names) if written else None
    used = sorted([*images, *notes, *told], key=lambda one: one.name)
    table = _Folder(root, names, labels, texts, beside)
    mark = storage.fingerprint(root, used)
    return entries.Entries(len(names), mark, classes, bool(written or beside), table.read, table.captions, table.name)


def _class_folders(root, names, label):
    if label == 'none':
        return (), None
    tops = [name.partition('/')[0] if '/' in name else '' for name in names]
    classes = tuple(sorted(set(tops)))
    if len(classes) < 2 and label == 'auto':
        return (), None
    if '' in classes:
        loose = tops.index('')
        raise ValueError(
            f'{root}: {tops.count("")} images lie beside the class folders (first: {names[loose]}): move them, or '
            "choose label='none'"
        )
    return fields.numbered(tops, classes, root)


def _beside(root, files, names):
    """The .txt of each image, or None where no image has one; and those files."""
    texts = {stem(one.name): one for one in files if one.name.lower().endswith('.txt')}
    found = tuple(texts[stem(name)].name if stem(name) in texts else '' for name in names)
    if not any(found):
        return None, []
    images = {stem(name) for name in names}
    lone = [
        one.name for key, one in texts.items() if key not in images and posixpath.basename(key).lower() not in _NOTES
    ]
    if lone:
        raise ValueError(f'{root}: {len(lone)} caption files have no image beside them (first: {min(lone)})')
    return found, [one for key, one in texts.items() if key in images]


def _metadata(root, files, names):
    """{image: what metadata.jsonl says of it}, and the files that say it."""
    told = [one for one in files if posixpath.basename(one.name) == METADATA]
    images, rows = set(names), {}
    for one in told:
        path, folder = storage.join(root, one.name), posixpath.dirname(one.name)
        for number, line in enumerate(_utf8(path).splitlines(), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                name = posixpath.normpath(posixpath.join(folder, row['file_name']))
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise ValueError(f'{path}, line {number}: not an object with a file_name') from error
            if name not in images:
                raise ValueError(f'{path}, line {number}: names {row["file_name"]!r}, which is not there')
            if name in rows:
                raise ValueError(f'{path}, line {number}: names {row["file_name"]!r} a second time')
            rows[name] = {key: value for key, value in row.items() if key != 'file_name'}
    return rows, told
