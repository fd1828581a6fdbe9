"""Arrays of numpy: one .npy, or an .npz with images and what belongs to them; mapped, not read, where that can be."""

import dataclasses
import functools
import io
import zipfile

import numpy as np

from diffusion.data import entries, fields, storage

IMAGES = ('images', 'image', 'x', 'arr_0')
LABELS = ('labels', 'label', 'y', 'arr_1')
# Up to here the checksums of an archive are verified before it is used.
VERIFIED = 2**30


@dataclasses.dataclass(frozen=True, eq=False)
class _Stored:
    """An array of a file; another process is sent the path and opens it again."""

    path: str
    member: str

    @functools.cached_property
    def array(self) -> np.ndarray:
        if not self.member:
            if storage.remote(self.path):
                return np.load(io.BytesIO(storage.read(self.path)), allow_pickle=False)
            return np.load(self.path, mmap_mode='r', allow_pickle=False)
        if not storage.remote(self.path) and (place := _mappable(self.path, self.member)):
            shape, order, kind, offset = place
            return np.memmap(self.path, kind, 'r', offset, shape, order)
        with storage.open_file(self.path) as file, np.load(file, allow_pickle=False) as archive:
            return archive[self.member]

    def __getstate__(self):
        return {'path': self.path, 'member': self.member}


@dataclasses.dataclass(frozen=True, eq=False)
class _Arrays:
    """Images of one array; labels: int32 [N] or None; texts: captions or None."""

    images: _Stored
    labels: np.ndarray | None
    texts: tuple[str, ...] | None

    def read(self, indices: np.ndarray) -> list[entries.Example]:
        return [
            entries.Example(
                self.name(i),
                np.array(self.images.array[i]),
                -1 if self.labels is None else int(self.labels[i]),
                '' if self.texts is None else self.texts[i],
            )
            for i in np.asarray(indices).tolist()
        ]

    def captions(self) -> list[str]:
        return [''] * len(self.images.array) if self.texts is None else list(self.texts)

    def name(self, index: int) -> str:
        return f'{self.images.path.rpartition("/")[2]}[{index}]'


def open(path: str, split: str, label: str, caption: str) -> entries.Entries:
    """path: of an .npz or .npy; split: as a suffix or prefix of the keys, 'x_train'; label, caption: 'auto', 'none' or
    a key. Raises ValueError for a damaged file and for what no image can be."""
    where = path.rpartition('/')[2]
    try:
        if path.lower().endswith('.npy'):
            if split:
                raise ValueError(f'an .npy has no splits, split={split!r}')
            stored, labels, texts, classes = _Stored(path, ''), None, None, ()
        else:
            stored, labels, texts, classes = _members(path, split, label, caption, where)
        images = stored.array
    except (zipfile.BadZipFile, EOFError, ValueError) as error:
        raise ValueError(f'{path}: {" ".join(str(error).split())}') from error
    if images.ndim not in (3, 4) or (images.dtype not in (np.uint8, np.uint16) and images.dtype.kind != 'f'):
        raise ValueError(f'{path}: {images.dtype} {images.shape} where uint8, uint16 or floats [N, H, W, C] are wanted')
    if images.ndim == 4 and images.shape[1] in (1, 3, 4) and images.shape[3] > 16:
        raise ValueError(f'{path}: images of shape {images.shape} look like [N, C, H, W]: [N, H, W, C] is wanted')
    if not images.size:
        raise ValueError(f'{path}: holds no image')
    for what, values in (('labels', labels), ('captions', texts)):
        if values is not None and len(values) != len(images):
            raise ValueError(f'{path}: {len(values)} {what} for {len(images)} images')
    table = _Arrays(stored, labels, texts)
    mark = storage.fingerprint(path, [storage.File('', storage.size(path))])
    return entries.Entries(len(images), mark, classes, texts is not None, table.read, table.captions, table.name)


def _members(path, split, label, caption, where):
    with storage.open_file(path) as file, np.load(file, allow_pickle=False) as archive:
        known = archive.files
        _verify(archive.zip)

        def find(what, wanted, likely):
            parted = [form for name in likely for form in (f'{name}_{split}', f'{split}_{name}')] if split else likely
            return fields.chosen(what, wanted, known, parted, where)

        image = find('image', 'auto', IMAGES)
        if not image:
            raise ValueError(
                f'no array called {", ".join(IMAGES)}{f" of split {split!r}" * bool(split)}; it has {", ".join(known)}'
            )
        key, words = find('label', label, LABELS), find('caption', caption, fields.CAPTIONS)
        names = archive['classes'].tolist() if 'classes' in known else ()
        texts = tuple(map(fields.text, archive[words].tolist())) if words else None
        classes, labels = (), None
        if key:
            classes, labels = fields.numbered(archive[key].reshape(-1).tolist(), names, f'{where}, {key}')
    return _Stored(path, image), labels, texts, classes


def _verify(archive):
    """Reads all members to their end, where zipfile compares the checksums."""
    if sum(one.file_size for one in archive.infolist()) > VERIFIED:
        return
    for one in archive.infolist():
        with archive.open(one) as member:
            while member.read(2**22):
                pass


def _mappable(path, member):
    """(shape, order, dtype, offset) of an array that lies in the archive as it is; None for one that is packed."""
    with storage.open_file(path) as file, zipfile.ZipFile(file) as archive:
        info = archive.getinfo(f'{member}.npy')
        if info.compress_type != zipfile.ZIP_STORED:
            return None
        # The header that stands before the member; its extra field may differ from the directory's.
        file.seek(info.header_offset + 26)
        lengths = file.read(4)
        file.seek(
            info.header_offset + 30 + int.from_bytes(lengths[:2], 'little') + int.from_bytes(lengths[2:], 'little')
        )
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, kind = read(file)
        return (shape, 'F' if fortran else 'C', kind, file.tell()) if kind.kind != 'O' else None
