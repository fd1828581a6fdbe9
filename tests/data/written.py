"""The same pictures in every format, written by other libraries than those that read them where there is a choice."""

import io
import json
import tarfile
import zipfile
from typing import ClassVar

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow_datasets as tfds

CLASSES = ('bird', 'cat', 'dog')


def pictures(count: int = 23, size: int = 8):
    """[(name, uint8 [size, size, 3], class number, caption)], in the order of the names."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(count):
        label = i * len(CLASSES) // count
        image = rng.integers(0, 256, (size, size, 3), np.uint8)
        found.append((f'{CLASSES[label]}/{i:03d}', image, label, f'picture {i} of a {CLASSES[label]}'))
    return found


def png(image, format='PNG', **options) -> bytes:
    out = io.BytesIO()
    (image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(image)).save(out, format, **options)
    return out.getvalue()


def folder(path, examples):
    for name, image, _, caption in reversed(examples):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / f'{name}.png').write_bytes(png(image))
        (path / f'{name}.txt').write_text(caption + '\n', encoding='utf-8')
    return path


def metadata(path, examples):
    path.mkdir()
    rows = []
    for name, image, label, caption in examples:
        flat = name.replace('/', '_') + '.png'
        (path / flat).write_bytes(png(image))
        rows.append({'file_name': flat, 'text': caption, 'label': CLASSES[label]})
    (path / 'metadata.jsonl').write_text('\n'.join(map(json.dumps, reversed(rows))), encoding='utf-8')
    return path


def parquet(path, examples):
    """Two files of two row groups each, as `datasets` writes them."""
    path.mkdir()
    features = {
        'image': {'_type': 'Image'},
        'label': {'_type': 'ClassLabel', 'names': list(CLASSES)},
        'text': {'_type': 'Value', 'dtype': 'string'},
    }
    told = {'huggingface': json.dumps({'info': {'features': features}})}
    for i, some in enumerate((examples[:9], examples[9:])):
        table = pa.table(
            {
                'image': [{'bytes': png(image), 'path': f'{name}.png'} for name, image, _, _ in some],
                'label': pa.array([label for _, _, label, _ in some], pa.int64()),
                'text': [caption for *_, caption in some],
            }
        ).replace_schema_metadata(told)
        pq.write_table(table, path / f'train-0000{i}-of-00002.parquet', row_group_size=5)
    return path


def tars(path, examples):
    path.mkdir()
    for shard in range(2):
        with tarfile.open(path / f'set-00{shard}.tar', 'w') as archive:
            for name, image, label, caption in examples[shard::2][::-1]:
                members = {
                    'png': png(image),
                    'txt': caption.encode(),
                    'json': json.dumps({'label': CLASSES[label]}).encode(),
                }
                for suffix, data in members.items():
                    info = tarfile.TarInfo(f'{name}.{suffix}')
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
    return path


def _columns(examples):
    images, labels = np.stack([one[1] for one in examples]), np.array([one[2] for one in examples])
    return dict(
        images=images, labels=labels, captions=np.array([one[3] for one in examples]), classes=np.array(CLASSES)
    )


def npz(path, examples):
    np.savez(path, **_columns(examples))
    return path.with_suffix('.npz')


def packed(path, examples):
    np.savez_compressed(path, **_columns(examples))
    assert zipfile.ZipFile(path.with_suffix('.npz')).infolist()[0].compress_type == zipfile.ZIP_DEFLATED
    return path.with_suffix('.npz')


class Mine(tfds.core.GeneratorBasedBuilder):
    """TFDS wants a class; the examples are given to it before it is made."""

    examples: ClassVar = ()
    VERSION = tfds.core.Version('1.0.0')
    url_infos = None

    def _info(self):
        features = {
            'image': tfds.features.Image(shape=(None, None, 3), encoding_format='png'),
            'label': tfds.features.ClassLabel(names=CLASSES),
            'caption': tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, _):
        return {'train': self._generate_examples()}

    def _generate_examples(self):
        for i, (_, image, label, caption) in enumerate(self.examples):
            yield i, {'image': png(image), 'label': label, 'caption': caption}


def prepared(path, examples):
    """ArrayRecord through TFDS, in four shards."""

    Mine.examples = examples
    made = Mine(data_dir=path, file_format='array_record')
    quiet = tfds.download.DownloadConfig(
        try_download_gcs=False, compute_stats=tfds.download.ComputeStatsMode.SKIP, num_shards=4
    )
    made.download_and_prepare(download_config=quiet)
    return made.data_path


FORMATS = dict(
    folder=folder, metadata=metadata, parquet=parquet, tars=tars, npz=npz, packed=packed, array_record=prepared
)
