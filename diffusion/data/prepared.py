"""Prepared TFDS sets in ArrayRecord files, read without TensorFlow."""

import concurrent.futures
import dataclasses
import functools
import os
import posixpath
import re
import threading
from typing import Any

import numpy as np

from diffusion.data import entries, fields, stock, storage


@dataclasses.dataclass(frozen=True)
class Fields:
    """What a set's features are used as. shape: (H, W, C) of the images, None where they differ; label, caption: ''
    for none."""

    image: str
    label: str
    caption: str
    classes: tuple[str, ...]
    shape: tuple[int | None, int | None, int]


@dataclasses.dataclass(frozen=True)
class _Split:
    """folder: where the prepared set lies; length: of the split."""

    folder: str
    split: str
    chosen: Fields
    length: int

    def read(self, indices: np.ndarray) -> list[entries.Example]:
        indices = np.asarray(indices).tolist()
        source = _source(self.folder, self.split, self.chosen)
        try:
            found = source.__getitems__(indices)
        except (RuntimeError, ValueError, OSError):
            found = [_one(source, i) for i in indices]
        return [self._example(i, record) for i, record in zip(indices, found)]

    def _example(self, index, record):
        if record is None:
            return entries.Example(self.name(index), b'')
        chosen = self.chosen
        image = record[chosen.image]
        label = int(record[chosen.label]) if chosen.label else -1
        caption = _text(record[chosen.caption]) if chosen.caption else ''
        return entries.Example(self.name(index), image, label, caption)

    def captions(self) -> list[str]:
        every = (self.read(np.arange(i, min(i + 256, self.length))) for i in range(0, self.length, 256))
        return [example.caption for some in every for example in some]

    def name(self, index: int) -> str:
        return f'{self.split}[{index}]'


def _one(source, index):
    try:
        return source[index]
    except (RuntimeError, ValueError, OSError):
        return None


def _text(value):
    # As it is stored, with the space around it: what a set was prepared with is what trained models know.
    return value.decode('utf-8') if isinstance(value, bytes) else str(value)


_opening = threading.Lock()


def _source(folder, split, chosen):
    """A process opens a set once, whichever of its threads comes first; what it opened cannot be sent to another."""
    with _opening:
        return _opened(folder, split, chosen)


@functools.lru_cache(maxsize=8)
def _opened(folder, split, chosen):
    import tensorflow_datasets as tfds

    made = _from_folder(folder)
    source = made.as_data_source(split)
    if isinstance(made.info.features[chosen.image], tfds.features.Image):
        return _Plain(source.data_source, tuple(filter(None, (chosen.image, chosen.label, chosen.caption))))
    return source


@dataclasses.dataclass(frozen=True)
class _Plain:
    """The features in use of each record as they are stored, in a fifth of the time that TFDS takes for all of them.
    records: their bytes by index."""

    records: Any
    used: tuple[str, ...]

    def __getitems__(self, indices: list[int]) -> list[dict]:
        return [self._parsed(record) for record in self.records.__getitems__(indices)]

    def __getitem__(self, index: int) -> dict:
        return self._parsed(self.records[index])

    def _parsed(self, record):
        from google.protobuf import message
        from tensorflow_datasets.proto import tf_example_pb2

        try:
            feature = tf_example_pb2.Example.FromString(record).features.feature
            return {name: _value(feature[name]) for name in self.used}
        except (message.DecodeError, IndexError, TypeError) as error:
            raise ValueError(f'a record that is no example of the set ({type(error).__name__})') from error


def _value(feature):
    return getattr(feature, feature.WhichOneof('kind')).value[0]


def _from_folder(folder):
    import tensorflow_datasets as tfds

    # Not with stdout put aside, as elsewhere: threads come here, and one would put aside what another has put there.
    return tfds.builder_from_directory(folder)


def used(info, label: str = 'auto', caption: str = 'auto') -> Fields:
    """Which features of `info` serve as image, label and caption.

    The image is the feature 'image' or the only image there is; the label is 'label' or the first
    ClassLabel; the caption is the first Text feature of 'caption', 'text', 'name'. Raises
    ValueError.
    """
    import tensorflow_datasets as tfds

    name, features = info.full_name, info.features
    if not isinstance(features, tfds.features.FeaturesDict):
        raise ValueError(f'TFDS set {name}: its examples are not dictionaries, so none is an image')
    images = [key for key, feature in features.items() if type(feature) is tfds.features.Image]
    # What `diffusion data build` stores of images that no file format holds.
    plain = dict(features.items()).get('image')
    if not images and type(plain) is tfds.features.Tensor and len(plain.shape) == 3:
        images = ['image']
    if 'image' not in images and len(images) != 1:
        raise ValueError(f'TFDS set {name} has not one image feature but {len(images)}; it has: {", ".join(features)}')
    image = 'image' if 'image' in images else images[0]
    array = type(features[image]) is tfds.features.Tensor
    if features[image].np_dtype != np.uint8 and not (array and features[image].np_dtype == np.float32):
        raise ValueError(f'TFDS set {name}: its images are {features[image].np_dtype}; 8 bits a channel are wanted')
    labels = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    texts = [key for key, feature in features.items() if isinstance(feature, tfds.features.Text)]
    key = fields.chosen('label', label, labels, ('label', *labels), f'TFDS set {name}')
    words = fields.chosen('caption', caption, texts, ('caption', 'text', 'name'), f'TFDS set {name}')
    if features[image].shape[2] not in (1, 3, 4) and not array:
        raise ValueError(f'TFDS set {name}: its images have {features[image].shape[2]} channels; 1, 3 or 4 are wanted')
    return Fields(image, key, words, tuple(features[key].names) if key else (), tuple(features[image].shape))


def open_named(dataset: str, split: str, data_dir: str, label: str = 'auto', caption: str = 'auto') -> entries.Entries:
    """A split of a set that TFDS knows by name. Raises FileNotFoundError with the commands that prepare it,
    ValueError."""
    made = stock.builder(dataset, data_dir)
    if not stock.there(made):
        raise FileNotFoundError(
            f'TFDS set {dataset!r} is not prepared at {made.data_path}: {stock.commands(made, data_dir)}'
        )
    chosen = used(made.info, label, caption)
    part = _part(made, split, dataset, stock.commands(made, 'FOLDER'))
    shards = [(os.path.basename(one.filename), one.skip, one.take) for one in part.file_instructions]
    _check_shards(part)
    mark = storage.digest(made.info.full_name, split, part.num_bytes, shards, chosen.image, chosen.shape)
    return _entries(_Split(os.fspath(made.data_path), split, chosen, part.num_examples), part, mark)


def open_spec(spec: str, split: str, label: str, caption: str) -> entries.Entries:
    """'NAME[/CONFIG][:VERSION][:SPLIT]', of TFDS's own folder."""
    found = re.fullmatch(r'([\w/.+-]+(?::\d[\w.*]*)?)(?::([a-zA-Z].*))?', spec)
    if not found or (split and found[2]):
        raise ValueError(f'tfds:{spec}: write tfds:NAME, tfds:NAME/CONFIG or, with the split once, tfds:NAME:SPLIT')
    return open_named(found[1], split or found[2] or 'train', '', label, caption)


def open(folder: str, split: str, label: str, caption: str) -> entries.Entries:
    """The set that lies prepared in a folder, the one with dataset_info.json; split: '' for the only one there is.
    Raises ValueError."""
    if storage.remote(folder):
        raise ValueError(f'{folder}: ArrayRecord files are read from a local or mounted folder: copy the set there')
    made = _from_folder(folder)
    known = sorted(made.info.splits)
    if not split and len(known) != 1:
        raise ValueError(f'{folder} holds the splits {", ".join(known)}: choose one with split')
    split = split or known[0]
    chosen = used(made.info, label, caption)
    part = _part(made, split, folder, 'file_format=array_record')
    _check_shards(part)
    names = [os.path.basename(one.filename) for one in part.file_instructions]
    told = ['features.json', *(name for name in os.listdir(folder) if name.endswith('.labels.txt'))]
    files = [storage.File(name, storage.size(posixpath.join(folder, name))) for name in sorted({*names, *told})]
    taken = [(one.skip, one.take) for one in part.file_instructions]
    mark = storage.digest(storage.fingerprint(folder, files), taken, chosen.image)
    return _entries(_Split(folder, split, chosen, part.num_examples), part, mark)


def _entries(table, part, mark):
    if not table.length:
        raise ValueError(f'TFDS set at {table.folder}: split {table.split!r} is empty')
    return entries.Entries(
        table.length,
        mark,
        table.chosen.classes,
        bool(table.chosen.caption),
        table.read,
        table.captions,
        table.name,
    )


def _part(made, split, name, remedy):
    """What TFDS knows of a split, where it can be read by index."""
    if made.info.file_format is None or made.info.file_format.value != 'array_record':
        stored = made.info.file_format and made.info.file_format.value
        raise ValueError(
            f'TFDS set {name!r} at {made.data_path} is stored as {stored}, which cannot be read by index; '
            f'prepare it in another folder and give that as data_dir: {remedy}'
        )
    try:
        part = made.info.splits[split]
        _ = part.file_instructions
    except (KeyError, ValueError) as error:
        raise ValueError(
            f'TFDS set {name!r} has no split {split!r}: {fields.nearest(split, made.info.splits)}'
        ) from error
    return part


def _check_shards(part):
    """Opens every file once: what is cut or gone is an error now, not in the middle of an epoch."""
    from array_record.python import array_record_module

    def check(one):
        path = os.fspath(one.filename)
        if not os.path.exists(path):
            raise FileNotFoundError(f'{path} is not there')
        try:
            reader = array_record_module.ArrayRecordReader(path, 'readahead_buffer_size:0')
            count = reader.num_records()
            reader.close()
        except RuntimeError as error:
            raise ValueError(f'{path} is damaged or truncated: {" ".join(str(error).split())}') from error
        if count != one.examples_in_shard:
            raise ValueError(f'{path} has {count} records where {one.examples_in_shard} are wanted')

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(check, part.file_instructions))
