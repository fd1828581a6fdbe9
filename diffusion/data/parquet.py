"""Parquet files with encoded images, as the Hugging Face Hub keeps them."""

import dataclasses
import functools
import json
import threading

import numpy as np

from diffusion.data import entries, fields, storage

# Row groups that a process keeps: reading in order reads each once.
GROUPS = 4
_READING = threading.Lock()


@dataclasses.dataclass(frozen=True, eq=False)
class _Table:
    """starts: the first example of each row group, int64 [G + 1]; groups: (file, number in it) of each; firsts: the
    first example of each file."""

    root: str
    files: tuple[str, ...]
    groups: tuple[tuple[int, int], ...]
    starts: np.ndarray
    firsts: tuple[int, ...]
    column: str
    labels: np.ndarray | None
    texts: tuple[str, ...] | None

    def read(self, indices: np.ndarray) -> list[entries.Example]:
        indices = np.asarray(indices, np.int64)
        where = np.searchsorted(self.starts, indices, side='right') - 1
        found = {}
        for group in np.unique(where).tolist():
            rows = np.flatnonzero(where == group)
            images = self._images(group, (indices[rows] - self.starts[group]).tolist())
            found.update(zip(rows.tolist(), images))
        return [
            entries.Example(
                self.name(i),
                found[row],
                -1 if self.labels is None else int(self.labels[i]),
                '' if self.texts is None else self.texts[i],
            )
            for row, i in enumerate(indices.tolist())
        ]

    def _images(self, group, rows):
        file, number = self.groups[group]
        path = storage.join(self.root, self.files[file])
        try:
            # One at a time: the groups are large, and pyarrow reads each with several threads already.
            with _READING:
                cells = _group(path, number, self.column)
        except (OSError, ValueError):
            return [b''] * len(rows)
        return [_bytes(cells[row].as_py()) for row in rows]

    def captions(self) -> list[str]:
        return [''] * int(self.starts[-1]) if self.texts is None else list(self.texts)

    def name(self, index: int) -> str:
        group = int(np.searchsorted(self.starts, index, side='right')) - 1
        file = self.groups[group][0]
        return f'{self.files[file] or self.root.rpartition("/")[2]}[{index - self.firsts[file]}]'


def _bytes(cell):
    data = cell.get('bytes') if isinstance(cell, dict) else cell
    return data if isinstance(data, bytes) else b''


@functools.lru_cache(maxsize=GROUPS)
def _group(path, number, column):
    with storage.open_file(path) as file:
        return _pyarrow().ParquetFile(file).read_row_group(number, columns=[column]).column(column)


def _pyarrow():
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError("Parquet is read by pyarrow, which is missing: pip install 'diffusion[parquet]'") from error
    return pyarrow.parquet


def open(root: str, files: list[storage.File], label: str, caption: str) -> entries.Entries:
    """root, files: Parquet files and the folder they lie in; label, caption: 'auto', 'none' or a column. Raises
    ValueError for a file that is damaged or unlike the others."""
    parquet = _pyarrow()
    column = ''
    groups, counts, firsts, labels, texts, names, schema = [], [], [], [], [], (), None
    for number, one in enumerate(files):
        path = storage.join(root, one.name)
        try:
            with storage.open_file(path) as file:
                opened = parquet.ParquetFile(file)
                if schema is None:
                    schema = opened.schema_arrow
                    column, key, words, names = _columns(schema, label, caption, path)
                elif schema.names != opened.schema_arrow.names:
                    raise ValueError(f'other columns than {files[0].name}')
                metadata = opened.metadata
                firsts.append(sum(counts))
                groups += [(number, i) for i in range(metadata.num_row_groups)]
                counts += [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
                told = opened.read(columns=[name for name in (key, words) if name])
                labels += told.column(key).to_pylist() if key else []
                texts += map(fields.text, told.column(words).to_pylist()) if words else []
        except (OSError, ValueError) as error:
            raise ValueError(f'{path}: {" ".join(str(error).split())}') from error
    classes, numbers = fields.numbered(labels, names, f'{root}, column {key}') if key else ((), None)
    table = _Table(
        root,
        tuple(one.name for one in files),
        tuple(groups),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        tuple(firsts),
        column,
        numbers,
        tuple(texts) if words else None,
    )
    mark = storage.fingerprint(root, files)
    return entries.Entries(sum(counts), mark, classes, bool(words), table.read, table.captions, table.name)


def _columns(schema, label, caption, path):
    """The columns of images, labels and captions, and the names of the classes."""
    described = json.loads((schema.metadata or {}).get(b'huggingface', b'{}')).get('info', {}).get('features', {})
    kinds = {name: each.get('_type') for name, each in described.items() if isinstance(each, dict)}
    images = [name for name in schema.names if kinds.get(name) == 'Image' or _holds_images(schema.field(name).type)]
    column = next((name for name in ('image', 'img', 'jpg', 'png') if name in images), '')
    if not column and len(images) != 1:
        raise ValueError(f'{len(images)} columns of images, none called image; it has {", ".join(schema.names)}')
    named = [name for name in schema.names if kinds.get(name) == 'ClassLabel']
    key = fields.chosen(
        'label', label, schema.names, [*(x for x in fields.LABELS if x in named), *named, *fields.LABELS], path
    )
    words = fields.chosen('caption', caption, schema.names, fields.CAPTIONS, path)
    names = described.get(key, {}).get('names') or () if key in named else ()
    return column or images[0], key, words, tuple(names)


def _holds_images(kind):
    import pyarrow.types as types

    if types.is_struct(kind):
        return any(field.name == 'bytes' for field in kind)
    return types.is_binary(kind) or types.is_large_binary(kind)
