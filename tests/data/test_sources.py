"""Sources: TFDS gives back the archive's pixels, and a user's mistake is one clear line."""

import concurrent.futures
import io
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from diffusion.data import emoji_dataset, pictures, records, sources


@pytest.mark.parametrize(('subset', 'size'), [('faces', 16), ('faces', 32), ('all', 32)])
def test_emoji_through_tfds_are_the_archives(subset, size, data_dir):
    chosen, pictures = emoji_dataset.read(subset, size)
    source = sources.emoji(subset, size, data_dir)
    assert len(source) == len(chosen)
    assert source.shape == (size, size, 3)
    assert source.captions() == [entry.name for entry in chosen]
    batch = source.gather(np.arange(len(source)))
    np.testing.assert_array_equal(batch['image'], pictures)
    assert batch['image'].dtype == np.uint8
    assert batch['label'].dtype == np.int32
    assert [source.classes[i] for i in batch['label']] == [entry.subgroup for entry in chosen]


def test_gather_is_per_record_reading(faces, data_dir, monkeypatch):
    monkeypatch.setattr(records, 'MEMORY_IMAGES', 0)
    large = sources.tfds('emoji/faces_16', data_dir=data_dir)
    indices = np.random.default_rng(0).integers(len(faces), size=50)
    for batch in (large.gather(indices), _stacked([large.gather([i]) for i in indices])):
        expected = faces.gather(indices)
        np.testing.assert_array_equal(batch['image'], expected['image'])
        np.testing.assert_array_equal(batch['label'], expected['label'])
        assert batch['caption'] == expected['caption']
    assert large.captions() == faces.captions()
    assert large.fingerprint == faces.fingerprint


def _stacked(batches):
    return {
        'image': np.concatenate([batch['image'] for batch in batches]),
        'label': np.concatenate([batch['label'] for batch in batches]),
        'caption': [caption for batch in batches for caption in batch['caption']],
    }


def test_splits_and_sizes(faces, data_dir):
    part = sources.tfds('emoji/faces_16', split='train[:10]', image_size=8, data_dir=data_dir)
    assert (len(part), part.shape) == (10, (8, 8, 3))
    assert part.gather([3])['image'].shape == (1, 8, 8, 3)
    assert part.captions() == faces.captions()[:10]
    assert part.fingerprint != faces.fingerprint


def test_decode_cuts_the_centre_and_keeps_what_fits():
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = (10, 200, 30)
    png = io.BytesIO()
    PIL.Image.fromarray(wide).save(png, format='PNG')
    np.testing.assert_array_equal(pictures.decode(png.getvalue(), pictures.Fit(20, width=60)), wide)
    # Pillow rounds between its two passes.
    assert abs(pictures.decode(png.getvalue(), pictures.Fit(5)).astype(int) - (10, 200, 30)).max() <= 1
    assert pictures.decode(png.getvalue(), pictures.Fit(5, channels=1)).shape == (5, 5, 1)


def test_facts_of_sets_that_are_not_there(tmp_path):
    cifar = sources.tfds('cifar10', data_dir=str(tmp_path))
    assert (cifar.shape, len(cifar.classes), cifar.captioned) == ((32, 32, 3), 10, False)
    imagenet = sources.tfds('imagenet2012', image_size=64, data_dir=str(tmp_path))
    assert (imagenet.shape, len(imagenet.classes)) == ((64, 64, 3), 1000)
    faces = sources.emoji(data_dir=str(tmp_path))
    assert (faces.shape, faces.captioned) == ((16, 16, 3), True)
    assert not list(tmp_path.iterdir())


def test_missing_data_says_how_to_prepare_it(tmp_path):
    command = f'tfds build cifar10 --file_format=array_record --data_dir={tmp_path}'
    with pytest.raises(FileNotFoundError, match='is not prepared') as raised:
        len(sources.tfds('cifar10', data_dir=str(tmp_path)))
    assert command in str(raised.value)
    with pytest.raises(FileNotFoundError, match='tfds build imagenet_resized/64x64 '):
        len(sources.tfds('imagenet_resized/64x64', data_dir=str(tmp_path)))
    with pytest.raises(FileNotFoundError, match='--manual_dir'):
        len(sources.tfds('imagenet2012', image_size=64, data_dir=str(tmp_path)))


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: sources.tfds('cifar11'), 'did you mean .*cifar10'),
        (lambda: sources.tfds('imagenet_resized/65x65'), r"no config '65x65': did you mean .*64x64"),
        (lambda: sources.tfds('cifar10:9.9.9'), '3.0.2'),
        (lambda: sources.tfds('imagenet2012'), 'image_size=64'),
        (lambda: sources.tfds('penguins'), 'not one image feature but 0'),
        (lambda: sources.tfds('cifar10', image_size=-1), 'image_size=-1'),
        (lambda: sources.emoji(subset='cats'), "'faces' or 'all'"),
        (lambda: sources.emoji(image_size=64), '16 or 32'),
        (lambda: sources.mixture(modes=0), 'modes=0'),
        (lambda: sources.mixture().captions(), 'no captions'),
    ],
)
def test_mistakes_are_one_line(make, message):
    with pytest.raises(ValueError, match=message) as raised:
        make()
    assert '\n' not in str(raised.value)


def test_unknown_split(faces, data_dir):
    with pytest.raises(ValueError, match="no split 'trian': did you mean train"):
        len(sources.tfds('emoji/faces_16', split='trian', data_dir=data_dir))


def test_data_in_a_format_without_an_index(faces, data_dir, tmp_path):
    there = tmp_path / 'emoji' / 'faces_16' / '1.0.0'
    shutil.copytree(pathlib.Path(data_dir, 'emoji', 'faces_16', '1.0.0'), there)
    info = there / 'dataset_info.json'
    info.write_text(info.read_text().replace('array_record', 'tfrecord'))
    with pytest.raises(ValueError, match=r'stored as tfrecord.*--file_format=array_record') as raised:
        len(sources.tfds('emoji/faces_16', data_dir=str(tmp_path)))
    assert '\n' not in str(raised.value)


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').write_text('in the way')
    with pytest.raises(ValueError, match='give a data_dir that can be written') as raised:
        len(sources.emoji(data_dir=str(tmp_path / 'file')))
    assert '\n' not in str(raised.value)


def test_first_use_by_many_threads_opens_once(faces, data_dir):
    source = sources.emoji(data_dir=data_dir)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: source.open(), range(8)))
    assert all(one is opened[0] for one in opened)


PREPARE = """
import sys
from diffusion.data import pipeline, sources
source = sources.emoji(data_dir=sys.argv[1])
stream = pipeline.batches(source, batch=4, seed=0)
next(stream)
stream.close()
assert not {'tensorflow', 'torch'} & set(sys.modules), 'a heavy module was imported'
print(source.fingerprint)
"""


def test_processes_prepare_at_once_without_tensorflow(tmp_path, faces):
    started = [
        subprocess.Popen([sys.executable, '-c', PREPARE, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in started:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err.decode()
        assert out.decode().strip() == faces.fingerprint
    left = [path.name for path in (tmp_path / 'emoji' / 'faces_16').iterdir()]
    assert left == ['1.0.0']


def test_mixture_is_the_mixture_it_says():
    source = sources.mixture(modes=5, radius=2.0, scale=0.1, examples=20000, seed=3)
    batch = source.gather(np.arange(len(source)))
    assert batch['image'].shape == (20000, *source.shape)
    assert batch['image'].dtype == np.dtype(source.dtype)
    for mode in range(5):
        points = batch['image'][batch['label'] == mode].reshape(-1, 2)
        centre = 2 * np.array([np.cos(2 * np.pi * mode / 5), np.sin(2 * np.pi * mode / 5)])
        # Five standard errors of a mean, and of a standard deviation, of this many numbers.
        assert abs(points.mean(0) - centre).max() < 5 * 0.1 / np.sqrt(len(points))
        assert abs(points.std(0) - 0.1).max() < 5 * 0.1 / np.sqrt(2 * len(points))
        assert abs(len(points) - 4000) < 5 * np.sqrt(4000 * 0.8)
    assert source.fingerprint == sources.mixture(5, 2.0, 0.1, 20000, 3).fingerprint
    assert source.fingerprint != sources.mixture(5, 2.0, 0.1, 20000, 4).fingerprint
