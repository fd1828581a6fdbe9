"""A set as TFDS keeps it, written without TensorFlow: shards of ArrayRecord, and what TFDS must know to read them."""

import contextlib
import dataclasses
import hashlib
import io
import os
import pathlib
from collections.abc import Iterable

import numpy as np
import PIL.Image

IMAGE, LABEL, CAPTION, NAME = 'image', 'label', 'caption', 'id'
VERSION = '1.0.0'
PNG_MODES = {1: 'L', 3: 'RGB', 4: 'RGBA'}


@dataclasses.dataclass(frozen=True)
class Layout:
    """What an example of the set is made of. name: of the set; shape: (H, W, C), (None, None, C) where sizes differ;
    dtype: of its images; classes: () for no labels; captioned: whether there are captions."""

    name: str
    shape: tuple[int | None, int | None, int]
    dtype: str
    classes: tuple[str, ...]
    captioned: bool

    @property
    def is_png(self) -> bool:
        """Whether images are kept as PNG, else as raw numbers; either way without loss."""
        return self.dtype == 'uint8' and self.shape[-1] in PNG_MODES


def features(layout: Layout):
    """TFDS's description of an example."""
    import tensorflow_datasets as tfds

    if layout.is_png:
        image = tfds.features.Image(shape=layout.shape, encoding_format='png')
    else:
        image = tfds.features.Tensor(shape=layout.shape, dtype=np.dtype(layout.dtype), encoding='bytes')
    label = {LABEL: tfds.features.ClassLabel(names=list(layout.classes))} if layout.classes else {}
    caption = {CAPTION: tfds.features.Text()} if layout.captioned else {}
    return tfds.features.FeaturesDict({IMAGE: image, **label, **caption, NAME: tfds.features.Text()})


class Encoder:
    """Examples to the bytes of a record: the same bytes for the same example. Threads may share one."""

    def __init__(self, layout: Layout):
        import tensorflow_datasets as tfds

        self._layout, self._features = layout, features(layout)
        self._serializer = tfds.core.example_serializer.ExampleSerializer(self._features.get_serialized_info())

    def __call__(self, name: str, image: np.ndarray, label: int, caption: str) -> bytes:
        """image: [H, W, C] of the layout."""
        example = {NAME: name, IMAGE: png(image) if self._layout.is_png else image}
        if self._layout.classes:
            example[LABEL] = label
        if self._layout.captioned:
            example[CAPTION] = caption
        encoded = self._serializer.get_tf_example(self._features.encode_example(example))
        return encoded.SerializeToString(deterministic=True)


def png(image: np.ndarray) -> bytes:
    """uint8 [H, W, C], C of 1 (grey), 3 (RGB) or 4 (RGBA), as the bytes of a PNG file."""
    found = io.BytesIO()
    PIL.Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image, PNG_MODES[image.shape[-1]]).save(found, 'PNG')
    return found.getvalue()


def content(image: np.ndarray) -> str:
    """Names the numbers of an image: equal for equal type, shape and values."""
    head = f'{image.dtype} {image.shape} '.encode()
    return hashlib.sha256(head + np.ascontiguousarray(image).tobytes()).hexdigest()[:32]


def file_name(layout: Layout, split: str, shard: int, shards: int) -> str:
    return f'{layout.name}-{split}.array_record-{shard:05}-of-{shards:05}'


@dataclasses.dataclass(frozen=True)
class Shard:
    """file: its name; examples: how many; record_bytes: of them; size: of the file in bytes; sha256: of the file."""

    file: str
    examples: int
    record_bytes: int
    size: int
    sha256: str


def write(path: pathlib.Path, records: Iterable[bytes]) -> Shard:
    """A shard that is there whole, on the disk, or not at all."""
    from array_record.python import array_record_module

    partial = path.with_name(f'.{path.name}.partial')
    examples = record_bytes = 0
    try:
        # Records stand alone, each found by its index: what TFDS writes too.
        writer = array_record_module.ArrayRecordWriter(os.fspath(partial), 'group_size:1')
        try:
            for record in records:
                writer.write(record)
                examples, record_bytes = examples + 1, record_bytes + len(record)
        finally:
            writer.close()
        with open(partial, 'rb+') as file:
            os.fsync(file.fileno())
        found = Shard(path.name, examples, record_bytes, partial.stat().st_size, sha256(partial))
        os.replace(partial, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
    sync(path.parent)
    return found


def sha256(path: pathlib.Path) -> str:
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def sync(folder: pathlib.Path) -> None:
    """The names in a folder reach the disk, as the contents of files do by fsync."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def describe(folder: pathlib.Path, layout: Layout, splits: dict[str, list[Shard]], description: str) -> None:
    """Writes what makes the shards of a folder a set of TFDS: features.json, dataset_info.json, names of classes."""
    import tensorflow_datasets as tfds

    identity = tfds.core.dataset_info.DatasetIdentity(
        name=layout.name, version=tfds.core.Version(VERSION), data_dir=os.fspath(folder), module_name=''
    )
    info = tfds.core.DatasetInfo(
        builder=identity, description=description, features=features(layout), disable_shuffling=True
    )
    info.set_file_format(tfds.core.FileFormat.ARRAY_RECORD)
    found = []
    for split, parts in splits.items():
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name=layout.name, split=split, filetype_suffix='array_record'
        )
        lengths, size = [part.examples for part in parts], sum(part.record_bytes for part in parts)
        found.append(tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size, filename_template=template))
    info.set_splits(tfds.core.SplitDict(found))
    info.write_to_directory(folder)
