"""The bundled emoji set as a TFDS data set: `emoji/faces_16`, `faces_32`, `all_16`, `all_32`.

Importing this module registers the builder. It is prepared and read without TensorFlow.
"""

import dataclasses
import io
import json
import pathlib
import zipfile
from typing import ClassVar

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

ARCHIVE = pathlib.Path(__file__).with_name('emoji.zip')
SUBSETS = ('faces', 'all')
IMAGE_SIZES = (16, 32)


@dataclasses.dataclass(frozen=True)
class Entry:
    """id: code points, such as '1f600'; name: Unicode's short name; group, subgroup: Unicode's."""

    id: str
    name: str
    group: str
    subgroup: str


def is_face(entry: Entry) -> bool:
    """Whether Unicode files the emoji with the faces, or it is an animal drawn as a face ('dog
    face')."""
    return (
        entry.subgroup.startswith('face-')
        or entry.subgroup in ('cat-face', 'monkey-face')
        or (entry.group == 'Animals & Nature' and entry.name.endswith(' face'))
    )


def entries(subset: str) -> list[Entry]:
    """The emoji of a subset, in Unicode's order."""
    return [entry for _, entry in _select(_table(), subset)]


def read(subset: str, image_size: int) -> tuple[list[Entry], np.ndarray]:
    """The emoji of a subset and their pictures, uint8 [N, image_size, image_size, 3].

    The archive holds 32 x 32 pixels; 16 x 16 are the means of their 2 x 2 blocks.
    """
    table = _table()
    with zipfile.ZipFile(ARCHIVE) as archive:
        sheet = PIL.Image.open(io.BytesIO(archive.read('emoji.webp'))).convert('RGB')
    size, columns = table['size'], table['columns']
    if image_size != size:
        factor = size // image_size
        sheet = sheet.resize((sheet.width // factor, sheet.height // factor), PIL.Image.Resampling.BOX)
    grid = np.asarray(sheet).reshape(-1, image_size, columns, image_size, 3)
    pictures = grid.swapaxes(1, 2).reshape(-1, image_size, image_size, 3)
    chosen = _select(table, subset)
    return [entry for _, entry in chosen], pictures[[i for i, _ in chosen]]


def _table() -> dict:
    with zipfile.ZipFile(ARCHIVE) as archive:
        return json.loads(archive.read('emoji.json'))


def _select(table, subset):
    every = [Entry(**dict(zip(table['fields'], row))) for row in table['emoji']]
    return [(i, entry) for i, entry in enumerate(every) if subset == 'all' or is_face(entry)]


class EmojiConfig(tfds.core.BuilderConfig):
    """Which emoji, and how large."""

    def __init__(self, subset: str, image_size: int):
        super().__init__(
            name=f'{subset}_{image_size}',
            description=f'{subset} emoji, {image_size} x {image_size} pixels',
        )
        self.subset = subset
        self.image_size = image_size


class Emoji(tfds.core.GeneratorBasedBuilder):
    """Noto Color Emoji without skin tones, each with its Unicode name as the caption.

    Examples stand in Unicode's order; the label is Unicode's subgroup.
    """

    # Nothing is downloaded. Without this, TFDS 4.9.10 looks for checksums with importlib_resources, a
    # package it does not bring along.
    url_infos = None
    # A new archive needs a new version: TFDS takes a prepared version to be what it was.
    VERSION = tfds.core.Version('1.0.0')
    BUILDER_CONFIGS: ClassVar = [EmojiConfig(subset, size) for subset in SUBSETS for size in IMAGE_SIZES]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        subgroups = list(dict.fromkeys(entry.subgroup for entry in entries(config.subset)))
        return tfds.core.DatasetInfo(
            builder=self,
            description='Emoji of Noto Color Emoji on white, with their Unicode names.',
            features=tfds.features.FeaturesDict(
                {
                    'id': tfds.features.Text(),
                    'image': tfds.features.Image(
                        shape=(config.image_size, config.image_size, 3), encoding_format='png'
                    ),
                    'caption': tfds.features.Text(),
                    'label': tfds.features.ClassLabel(names=subgroups),
                }
            ),
            homepage='https://github.com/googlefonts/noto-emoji',
            license='SIL Open Font License 1.1 (pictures), Unicode License (names)',
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {'train': self._generate_examples()}

    def _generate_examples(self):
        chosen, pictures = read(self.builder_config.subset, self.builder_config.image_size)
        for i, (entry, picture) in enumerate(zip(chosen, pictures)):
            # PNG bytes, not an array: TFDS encodes arrays with TensorFlow.
            png = io.BytesIO()
            PIL.Image.fromarray(picture).save(png, format='PNG')
            image, label = png.getvalue(), entry.subgroup
            yield i, {'id': entry.id, 'image': image, 'caption': entry.name, 'label': label}
