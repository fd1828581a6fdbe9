"""Prepared TFDS sets, read without TensorFlow, their images decoded by Pillow."""

import concurrent.futures
import contextlib
import dataclasses
import difflib
import hashlib
import io
import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image

# A set below both limits is decoded once and kept; 1 GiB leaves room on a
# laptop, 200 000 images decode in seconds.
MEMORY_BYTES = 2**30
MEMORY_IMAGES = 200_000


@dataclasses.dataclass(frozen=True)
class Fields:
    """What a set's features are used as. shape: (H, W, C) of the images; label, caption: '' for
    none."""

    image: str
    label: str
    caption: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Records:
    """Examples by index. gather: int64 [B] -> {'image': [B, H, W, C], 'label': int32 [B],
    'caption': list}; captions: all of them, in index order."""

    length: int
    fingerprint: str
    gather: Callable[[np.ndarray], dict]
    captions: Callable[[], list[str]]


def digest(*facts: Any) -> str:
    """A short name for facts that JSON can hold."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def builder(dataset: str, data_dir: str):
    """The TFDS builder of 'name', 'name/config' or 'name:version'. Raises ValueError with the
    nearest names."""
    import tensorflow_datasets as tfds

    # Importing the module is what makes 'emoji/...' a name that TFDS knows.
    from diffusion.data import emoji_dataset  # noqa: F401

    try:
        # TFDS prints a banner where it misses TensorFlow; the error below says it in a line.
        with contextlib.redirect_stdout(io.StringIO()):
            return tfds.builder(dataset, data_dir=data_dir or None)
    except ModuleNotFoundError as error:
        # TFDS raises it anew with a longer text and without the name.
        missing = str(error).rpartition('No module named ')[2].strip("'")
        raise ValueError(
            f'TFDS set {dataset!r} cannot even be described without {missing}: pip install {missing}'
        ) from error
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        raise ValueError(f'TFDS has no set {dataset!r}: {_nearest(dataset.split("/")[0], known)}') from error
    except (ValueError, AssertionError) as error:
        name, _, config = dataset.partition('/')
        try:
            configs = list(tfds.builder_cls(name.partition(':')[0]).builder_configs)
        except ValueError:
            configs = []
        if config and config.partition(':')[0] not in configs:
            hint = _nearest(config, configs) if configs else 'it has no configs'
            raise ValueError(f'TFDS set {name!r} has no config {config!r}: {hint}') from error
        raise ValueError(f'TFDS set {dataset!r}: {str(error).splitlines()[0]}') from error


def fields(info, image_size: int) -> Fields:
    """Which features of `info` serve as image, label and caption. image_size: 0 for the set's own,
    which must be fixed.

    The image is the feature 'image' or the only image there is; the label is 'label' or the first
    ClassLabel; the caption is the first Text feature of 'caption', 'text', 'name'. Raises
    ValueError.
    """
    import tensorflow_datasets as tfds

    name, features = info.full_name, info.features
    if not isinstance(features, tfds.features.FeaturesDict):
        raise ValueError(f'TFDS set {name}: its examples are not dictionaries, so none is an image')
    images = [key for key, feature in features.items() if type(feature) is tfds.features.Image]
    if 'image' not in images and len(images) != 1:
        raise ValueError(f'TFDS set {name} has not one image feature but {len(images)}; it has: {", ".join(features)}')
    image = 'image' if 'image' in images else images[0]
    if features[image].np_dtype != np.uint8:
        raise ValueError(f'TFDS set {name}: its images are {features[image].np_dtype}; 8 bits a channel are wanted')
    labels = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    label = 'label' if 'label' in labels else next(iter(labels), '')
    texts = [key for key, feature in features.items() if isinstance(feature, tfds.features.Text)]
    captions = [key for key in ('caption', 'text', 'name') if key in texts]
    height, width, channels = features[image].shape
    if image_size:
        height = width = image_size
    if channels not in (1, 3, 4):
        raise ValueError(f'TFDS set {name}: its images have {channels} channels; 1, 3 or 4 are wanted')
    if not (height and width):
        raise ValueError(f'TFDS set {name}: its images differ in size; give an image_size, e.g. image_size=64')
    return Fields(
        image=image,
        label=label,
        caption=next(iter(captions), ''),
        classes=tuple(features[label].names) if label else (),
        shape=(height, width, channels),
    )


def prepare(dataset: str, data_dir: str) -> None:
    """Writes a set whose builder needs neither downloads nor TensorFlow, unless it is there.

    Several processes may do so at once. Raises ValueError where the folder cannot be written.
    """
    import tensorflow_datasets as tfds

    made = tfds.builder(dataset, data_dir=data_dir or None, file_format='array_record')
    if _prepared(made):
        return
    config = tfds.download.DownloadConfig(try_download_gcs=False, compute_stats=tfds.download.ComputeStatsMode.SKIP)
    # TFDS announces itself on stdout and draws a bar for what takes a fraction of a second.
    quiet = io.StringIO()
    try:
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            made.download_and_prepare(download_config=config)
    except (OSError, ValueError) as error:
        # TFDS writes aside and renames; who comes second finds the name taken, by the same data.
        if not _prepared(tfds.builder(dataset, data_dir=data_dir or None)):
            raise ValueError(
                f'{dataset} cannot be prepared at {made.data_path}: {error}; give a data_dir that can be written'
            ) from error


def open_split(dataset: str, split: str, data_dir: str, chosen: Fields) -> Records:
    """The examples of a prepared split, kept in memory if they fit. Raises FileNotFoundError,
    ValueError."""
    import tensorflow_datasets as tfds

    made = builder(dataset, data_dir)
    if not _prepared(made):
        raise FileNotFoundError(
            f'TFDS set {dataset!r} is not prepared at {made.data_path}: {_commands(made, data_dir)}'
        )
    try:
        part = made.info.splits[split]
        instructions = part.file_instructions
    except (KeyError, ValueError) as error:
        hint = _nearest(split, made.info.splits)
        raise ValueError(f'TFDS set {dataset!r} has no split {split!r}: {hint}') from error
    try:
        source = made.as_data_source(split, decoders={chosen.image: tfds.decode.SkipDecoding()})
    except NotImplementedError as error:
        raise ValueError(
            f'TFDS set {dataset!r} at {made.data_path} is stored as {made.info.file_format.value}, '
            'which cannot be read by index; prepare it in another folder and give that as data_dir: '
            f'{_commands(made, "FOLDER")}'
        ) from error
    shards = [(os.path.basename(one.filename), one.skip, one.take) for one in instructions]
    fingerprint = digest(made.info.full_name, split, part.num_bytes, shards, chosen.image, chosen.shape)
    length = len(source)
    if not length:
        raise ValueError(f'TFDS set {dataset!r}: split {split!r} is empty')
    small = length <= MEMORY_IMAGES and length * int(np.prod(chosen.shape)) <= MEMORY_BYTES
    return (_in_memory if small else _by_record)(source, chosen, fingerprint)


def decode(encoded: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """An encoded image as uint8 `shape`: the central square, resized by Pillow's antialiased
    bicubic filter.

    Neither happens to an image that has this size. One channel means grey, three RGB, four RGBA.
    """
    height, width, channels = shape
    image = PIL.Image.open(io.BytesIO(encoded)).convert({1: 'L', 3: 'RGB', 4: 'RGBA'}[channels])
    if image.size != (width, height):
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        # resize(box=...) would let pixels outside the square into those at its edge.
        square = image.crop((left, top, left + side, top + side))
        image = square.resize((width, height), PIL.Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(shape)


def _in_memory(source, chosen: Fields, fingerprint: str) -> Records:
    images = np.empty((len(source), *chosen.shape), np.uint8)
    labels = np.empty(len(source), np.int32)
    captions = [''] * len(source)

    def fill(start):
        stop = min(start + 256, len(source))
        for i, example in zip(range(start, stop), source.__getitems__(list(range(start, stop)))):
            images[i] = decode(example[chosen.image], chosen.shape)
            labels[i] = example[chosen.label] if chosen.label else 0
            captions[i] = _text(example, chosen)

    with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        list(pool.map(fill, range(0, len(source), 256)))

    def gather(indices):
        batch = {'image': images[indices]}
        if chosen.label:
            batch['label'] = labels[indices]
        if chosen.caption:
            batch['caption'] = [captions[i] for i in indices]
        return batch

    return Records(len(source), fingerprint, gather, lambda: list(captions))


def _by_record(source, chosen: Fields, fingerprint: str) -> Records:
    def gather(indices):
        examples = source.__getitems__([int(i) for i in indices])
        images = [decode(example[chosen.image], chosen.shape) for example in examples]
        batch = {'image': np.stack(images) if images else np.empty((0, *chosen.shape), np.uint8)}
        if chosen.label:
            batch['label'] = np.array([example[chosen.label] for example in examples], np.int32)
        if chosen.caption:
            batch['caption'] = [_text(example, chosen) for example in examples]
        return batch

    def captions():
        return [_text(source[i], chosen) for i in range(len(source))]

    return Records(len(source), fingerprint, gather, captions)


def _text(example, chosen):
    if not chosen.caption:
        return ''
    text = example[chosen.caption]
    return text.decode('utf-8') if isinstance(text, bytes) else str(text)


def _nearest(word, known):
    known = sorted(set(known))
    close = difflib.get_close_matches(word, known, 3, 0.5)
    return f'did you mean {", ".join(close)}?' if close else f'there are {", ".join(known[:20])}'


def _prepared(made):
    # made.is_prepared() asks the same and logs a warning where the answer is no.
    return (made.data_path / 'dataset_info.json').exists()


def _commands(made, data_dir):
    name = '/'.join(filter(None, [made.name, made.builder_config and made.builder_config.name]))
    place = f' --data_dir={data_dir}' if data_dir else ''
    manual = ''
    if made.MANUAL_DOWNLOAD_INSTRUCTIONS:
        manual = f' --manual_dir=FOLDER (the archives that tensorflow.org/datasets/catalog/{made.name} asks for)'
    return f'pip install tensorflow importlib_resources && tfds build {name} --file_format=array_record{place}{manual}'
