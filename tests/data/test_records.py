"""Records: what stands for an image that cannot be read depends on nothing but the data."""

import concurrent.futures
import pathlib

import numpy as np
import pytest

from diffusion.data import pictures, sources
from tests.data import written

COUNT = 40
EXAMPLES = written.pictures(COUNT)
# One alone, two in a row, and the last, whose place the first takes.
BAD = {3: 4, 20: 22, 21: 22, 39: 0}


@pytest.fixture
def folder(tmp_path):
    path = written.folder(tmp_path / 'set', EXAMPLES)
    for number, i in enumerate(BAD):
        file = path / f'{EXAMPLES[i][0]}.png'
        whole = file.read_bytes()
        file.write_bytes((b'', whole[:60], whole.replace(b'IDAT', b'IDAX'), b'no picture')[number])
    return path


def _all(path, memory, **arguments):
    return sources.images(str(path), memory=memory, max_bad=0.2, **arguments)


@pytest.mark.parametrize('memory', ['always', 'never'])
def test_a_substitute_is_the_next_example_that_can_be_read(folder, memory):
    source = _all(folder, memory)
    ids = np.random.default_rng(0).permutation(COUNT)
    batch = source.gather(ids)
    given = [EXAMPLES[BAD.get(i, i)] for i in ids.tolist()]
    np.testing.assert_array_equal(batch['image'], np.stack([image for _, image, _, _ in given]))
    np.testing.assert_array_equal(batch['label'], [label for _, _, label, _ in given])
    assert batch['caption'] == [caption for *_, caption in given]
    np.testing.assert_array_equal(batch['bad'], np.isin(ids, list(BAD)))
    assert 'bad' not in source.gather(np.array([0, 1, 2]))
    assert source.captions() == [caption for *_, caption in EXAMPLES]
    named = source.open().bad(np.arange(COUNT))
    assert [(one.index, one.name) for one in named] == [(i, f'{EXAMPLES[i][0]}.png') for i in BAD]
    assert named[0].reason == 'missing or empty'
    assert all(one.reason and '\n' not in one.reason for one in named)


def test_threads_and_parts_agree(folder):
    source = _all(folder, 'never')
    whole = source.gather(np.arange(COUNT))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda i: source.gather(np.array([i])), range(COUNT)))
    np.testing.assert_array_equal(np.concatenate([part['image'] for part in parts]), whole['image'])
    assert [bool(part.get('bad', [False])[0]) for part in parts] == whole['bad'].tolist()


def test_more_than_may_be_are_an_error_at_once(folder):
    with pytest.raises(ValueError, match=r'4 of 40 images cannot be read, more than data.max_bad=0.05') as raised:
        len(sources.images(str(folder), max_bad=0.05))
    assert 'bird/003.png: missing or empty' in str(raised.value)
    assert '\n' not in str(raised.value)
    # At the share itself, and not above it, a set is taken.
    assert len(sources.images(str(folder), max_bad=0.1)) == COUNT


def test_a_large_set_that_is_wrong_throughout_is_an_error_at_once(folder):
    for name, *_ in EXAMPLES[1:]:
        (folder / f'{name}.png').write_bytes(b'x')
    with pytest.raises(ValueError, match='of 32 images cannot be read'):
        len(_all(folder, 'never'))
    (folder / f'{EXAMPLES[0][0]}.png').write_bytes(b'x')
    with pytest.raises(ValueError, match=r'none of the first 32 images can be read \(bird/000.png: no picture'):
        _all(folder, 'never')


@pytest.mark.parametrize('memory', ['always', 'never'])
@pytest.mark.parametrize('name', ['parquet', 'tars', 'array_record'])
def test_a_flipped_bit_in_a_shard_is_a_bad_image(tmp_path, name, memory):
    """In the pixels of a picture of the first file; whatever the format loses with it is substituted."""
    path = pathlib.Path(written.FORMATS[name](tmp_path / name, EXAMPLES))
    file = min(
        file for file in path.iterdir() if any(word in file.name for word in ('.parquet', '.tar', 'array_record'))
    )
    data = bytearray(file.read_bytes())
    data[data.find(b'IDAT') + 40] ^= 16
    file.write_bytes(data)
    source = sources.images(str(path), memory=memory, max_bad=0.5)
    batch = source.gather(np.arange(COUNT))
    whole = np.stack([image for _, image, _, _ in EXAMPLES])
    assert 1 <= batch['bad'].sum() <= 9
    np.testing.assert_array_equal(batch['image'][~batch['bad']], whole[~batch['bad']])
    for i in np.flatnonzero(batch['bad']).tolist():
        later = next(j % COUNT for j in range(i + 1, i + COUNT) if not batch['bad'][j % COUNT])
        np.testing.assert_array_equal(batch['image'][i], whole[later])


@pytest.mark.parametrize('memory', ['always', 'never'])
def test_sizes_that_differ_need_a_size(tmp_path, memory):
    path = written.folder(tmp_path / 'set', EXAMPLES[:3])
    (path / 'bird/001.png').write_bytes(written.png(np.zeros((9, 8, 3), np.uint8)))
    with pytest.raises(
        pictures.Misfit, match=r'bird/001.png is 9 x 8 x 3 uint8 where the set is 8 x 8 x 3 uint8: give'
    ):
        sources.images(str(path), memory=memory).gather(np.arange(3))
    assert sources.images(str(path), image_size=4, memory=memory).gather(np.arange(3))['image'].shape == (3, 4, 4, 3)
    with pytest.raises(pictures.Misfit, match=r'bird/001.png: 8 x 9 pixels where crop=none takes only 8 x 8'):
        sources.images(str(path), image_size=8, crop='none', memory=memory).gather(np.arange(3))


def test_arrays_of_many_channels_in_files_of_their_own(tmp_path):
    images = np.random.default_rng(0).normal(size=(6, 5, 5, 7)).astype(np.float32)
    for i, image in enumerate(images):
        np.save(tmp_path / f'{i}.npy', image)
    source = sources.images(str(tmp_path))
    assert (source.shape, source.dtype, source.classes) == ((5, 5, 7), 'float32', ())
    np.testing.assert_array_equal(source.gather(np.arange(6))['image'], images)
    np.save(tmp_path / 'all', images)
    np.testing.assert_array_equal(sources.images(str(tmp_path / 'all.npy')).gather(np.arange(6))['image'], images)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'memory': 'no'}, "memory='no': it is one of auto"),
        ({'max_bad': 1.0}, 'max_bad=1.0'),
        ({'crop': 'x'}, "crop='x'"),
        ({'channels': 2}, 'channels=2'),
        ({'path': ''}, 'path is empty'),
    ],
)
def test_mistakes(folder, arguments, message):
    with pytest.raises(ValueError, match=message):
        sources.images(**{'path': str(folder), **arguments})
