"""Formats: the same pictures are the same batches however they are stored, and what is wrong is one line at once."""

import io
import itertools
import json
import pickle
import shutil
import subprocess
import sys
import tarfile
import zipfile

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffusion.data import formats, pipeline, sources, storage, tokens
from tests.data import written

EXAMPLES = written.pictures()


@pytest.fixture(scope='module')
def stored(tmp_path_factory):
    """{format: where the same pictures lie in it}."""
    there = tmp_path_factory.mktemp('formats')
    return {name: str(write(there / name, EXAMPLES)) for name, write in written.FORMATS.items()}


@pytest.mark.parametrize('memory', ['always', 'never'])
@pytest.mark.parametrize('name', written.FORMATS)
def test_the_same_pictures_are_the_same_batches(stored, name, memory):
    source = sources.images(stored[name], memory=memory)
    assert (source.shape, source.dtype, source.classes) == ((8, 8, 3), 'uint8', written.CLASSES)
    assert source.captions() == [caption for *_, caption in EXAMPLES]
    encode = tokens.words(source.captions()).encode
    stream = pipeline.batches(source, batch=7, seed=3, encode=encode)
    seen = []
    for batch in itertools.islice(stream, 7):
        ids = batch['index'].tolist()
        seen += ids
        np.testing.assert_array_equal(batch['image'], np.stack([EXAMPLES[i][1] for i in ids]))
        np.testing.assert_array_equal(batch['label'], [EXAMPLES[i][2] for i in ids])
        np.testing.assert_array_equal(batch['tokens'], encode([EXAMPLES[i][3] for i in ids]))
        assert 'bad' not in batch
    stream.close()
    assert set(seen) == set(range(len(EXAMPLES)))


@pytest.mark.parametrize('name', written.FORMATS)
def test_fingerprints_name_the_content(stored, name, tmp_path):
    """A copy elsewhere has the same; one pixel, one label or one caption makes another."""
    first = formats.open(stored[name]).fingerprint
    changed = [list(one) for one in EXAMPLES]
    changed[4][3] = changed[4][3].upper()
    write = written.FORMATS[name]
    again, captions = (formats.open(str(write(tmp_path / part / name, some))) for part, some in _in(tmp_path, changed))
    assert again.fingerprint == first
    assert captions.fingerprint != first


def _in(folder, changed):
    for part, some in (('same', EXAMPLES), ('other', changed)):
        (folder / part).mkdir()
        yield part, some


def test_large_sets_are_sampled_and_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, 'EXACT_BYTES', 0)
    data = bytearray(np.random.default_rng(0).bytes(3 * storage.SAMPLED_BLOCKS * storage.BLOCK))
    (tmp_path / 'a').write_bytes(data)
    files = [storage.File('a', len(data))]
    first = storage.fingerprint(str(tmp_path), files)
    for place, differs in ((0, True), (-1, True), (storage.BLOCK + 1, False)):
        other = data.copy()
        other[place] ^= 1
        (tmp_path / 'a').write_bytes(other)
        assert (storage.fingerprint(str(tmp_path), files) != first) == differs


SPAWNED = """
import pickle, sys
import numpy as np
source = pickle.load(sys.stdin.buffer)
batch = source.gather(np.arange(len(source)))
sys.stdout.buffer.write(batch['image'].tobytes())
"""


@pytest.mark.parametrize('memory', ['always', 'never'])
def test_a_source_can_be_sent_to_another_process(stored, memory):
    """All formats in one process of its own, after use in this one."""
    made = {name: sources.images(path, memory=memory) for name, path in stored.items()}
    for source in made.values():
        source.gather(np.array([3, 5]))
    code = (
        SPAWNED.replace('source = pickle.load', 'found = pickle.load')
        .replace('batch = source', 'for source in found.values():\n  batch = source')
        .replace('\nsys.stdout', '\n  sys.stdout')
    )
    sent = pickle.dumps(made)
    assert len(sent) < 200_000
    done = subprocess.run([sys.executable, '-c', code], input=sent, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == len(made) * b''.join(image.tobytes() for _, image, _, _ in EXAMPLES)


@pytest.mark.parametrize('name', ['folder', 'metadata', 'parquet', 'tars', 'npz', 'packed'])
def test_a_url_is_read_as_a_path_is(stored, name):
    memory = fsspec.filesystem('memory')
    inside = f'/{name}'
    if storage.kind(stored[name]) == 'folder':
        memory.put(stored[name], inside, recursive=True)
    else:
        inside += '.npz'
        memory.put(stored[name], inside)
    local, far = sources.images(stored[name]), sources.images(f'memory:/{inside}')
    assert far.fingerprint == local.fingerprint
    for key, value in local.gather(np.arange(len(EXAMPLES))).items():
        np.testing.assert_array_equal(far.gather(np.arange(len(EXAMPLES)))[key], value)
    assert far.captions() == local.captions()
    memory.rm(inside, recursive=True)


def test_gs_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, 'gcsfs', None)
    with pytest.raises(ValueError, match=r"gs://bucket/x: .*pip install 'diffusion\[gcs\]'") as raised:
        formats.open('gs://bucket/x')
    assert '\n' not in str(raised.value)


def test_parquet_without_pyarrow_names_the_extra(stored, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pyarrow.parquet', None)
    with pytest.raises(ValueError, match=r'diffusion\[parquet\]'):
        formats.open(stored['parquet'])


def test_splits(tmp_path):
    written.folder(tmp_path / 'both' / 'train', EXAMPLES)
    written.folder(tmp_path / 'both' / 'test', EXAMPLES[:12])
    assert formats.open(str(tmp_path / 'both'), split='test').length == 12
    with pytest.raises(ValueError, match='holds the splits test, train'):
        formats.open(str(tmp_path / 'both'))
    np.savez(tmp_path / 'mnist', x_train=np.zeros((4, 8, 8), np.uint8), y_train=np.arange(4), x_test=np.ones((2, 8, 8)))
    mnist = formats.open(str(tmp_path / 'mnist.npz'), split='train')
    assert (mnist.length, mnist.classes) == (4, ('0', '1', '2', '3'))
    parquet = written.parquet(tmp_path / 'parquet', EXAMPLES)
    shutil.copy(parquet / 'train-00000-of-00002.parquet', parquet / 'test-00000-of-00001.parquet')
    assert formats.open(str(parquet), split='train').length == len(EXAMPLES)
    with pytest.raises(ValueError, match='holds the splits test, train'):
        formats.open(str(parquet))


def test_choices_of_labels_and_captions(stored):
    assert formats.open(stored['folder'], label='none').classes == ()
    assert not formats.open(stored['parquet'], caption='none').captioned
    assert formats.open(stored['metadata'], label='text').classes == tuple(sorted(one[3] for one in EXAMPLES))
    with pytest.raises(ValueError, match="has no label 'lable': did you mean label"):
        formats.open(stored['parquet'], label='lable')


def test_tfds_by_name(faces, data_dir, monkeypatch):
    monkeypatch.setenv('TFDS_DATA_DIR', data_dir)
    found = sources.images(f'{data_dir}/emoji/faces_16/1.0.0')
    ids = np.arange(len(faces))
    np.testing.assert_array_equal(found.gather(ids)['image'], faces.gather(ids)['image'])
    assert found.captions() == faces.captions()
    with pytest.raises(ValueError, match='with the split once'):
        formats.open('tfds:emoji/faces_16:train', split='train')
    with pytest.raises(ValueError, match='holds prepared sets deeper down: name .*1.0.0'):
        formats.open(data_dir)


def test_brace_patterns(stored):
    found = formats.open(stored['tars'] + '/set-{000..001}.tar')
    assert found.length == len(EXAMPLES)
    assert found.fingerprint == formats.open(stored['tars']).fingerprint
    with pytest.raises(FileNotFoundError, match=r'set-002.tar is not there, 1 of 3'):
        formats.open(stored['tars'] + '/set-{000..002}.tar')


def _tar(path, members):
    with tarfile.open(path, 'w') as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


PNG = written.png(EXAMPLES[0][1])


def _files(path, **contents):
    path.mkdir()
    for name, data in contents.items():
        (path / name.replace('__', '.')).write_bytes(data)
    return path


def _cut(source, path, name):
    shutil.copytree(source, path) if source.is_dir() else shutil.copy(source, path)
    there = path / name if name else path
    there.write_bytes(there.read_bytes()[: there.stat().st_size // 2])
    return path


def _flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 8
    path.write_bytes(data)
    return path


def _table(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def _row(**values):
    return json.dumps(values).encode()


WRONG = {
    'empty folder': (lambda p, s: _files(p), 'is empty'),
    'no path': (lambda p, s: '', r'path is empty.*--config.data.path=DIR'),
    'nothing there': (lambda p, s: p, 'is not there'),
    'unknown suffix': (lambda p, s: _files(p, a__doc=b'x'), r'holds no image: 1 files of \.doc'),
    'unknown file': (lambda p, s: _files(p, a__doc=b'x') / 'a.doc', 'is no set'),
    'packed': (lambda p, s: _files(p, **{'a__tar.gz': b'x'}) / 'a.tar.gz', 'unpack it'),
    'two formats': (lambda p, s: _files(p, a__png=PNG, b__tar=b''), 'holds 1 .tar .*and 1 images'),
    'arrays and pictures': (lambda p, s: _files(p, a__png=PNG, b__npy=b''), 'keep them apart'),
    'lone caption': (lambda p, s: _files(p, a__png=PNG, a__txt=b'x', b__txt=b'y'), r'no image .*b\.txt'),
    'two captions': (
        lambda p, s: _files(p, a__png=PNG, a__txt=b'x', metadata__jsonl=_row(file_name='a.png', text='x')),
        'keep one of them',
    ),
    'metadata of an absent file': (
        lambda p, s: _files(p, a__png=PNG, metadata__jsonl=_row(file_name='b.png', text='x')),
        r"line 1: names 'b.png', which is not there",
    ),
    'metadata that is no JSON': (lambda p, s: _files(p, a__png=PNG, metadata__jsonl=b'\n{'), 'line 2: not an object'),
    'stray image': (
        lambda p, s: shutil.copy(written.folder(p, EXAMPLES) / 'cat/008.png', p / 'x.png') and p,
        '1 images lie beside',
    ),
    'cut parquet': (lambda p, s: _cut(s['parquet'], p, 'train-00001-of-00002.parquet'), '00001-of-00002.parquet: '),
    'cut tar': (lambda p, s: _cut(s['tars'], p, 'set-001.tar'), 'set-001.tar: '),
    'cut npz': (lambda p, s: _cut(s['npz'], p.with_suffix('.npz'), ''), r'\.npz: '),
    'cut array_record': (
        lambda p, s: _cut(s['array_record'], p, 'mine-train.array_record-00002-of-00004'),
        '00002-of-00004 is damaged or truncated',
    ),
    'missing array_record': (
        lambda p, s: shutil.copytree(
            s['array_record'], p, ignore=lambda *_: ['mine-train.array_record-00001-of-00004']
        ),
        '00001-of-00004 is not there',
    ),
    'flipped npz': (lambda p, s: _flipped(shutil.copy(s['npz'], p.with_suffix('.npz'))), 'Bad CRC'),
    'label over names': (
        lambda p, s: (
            np.savez(p.with_suffix('.npz'), x=np.zeros((2, 4, 4, 3), np.uint8), y=[0, 2], classes=['a', 'b'])
            or p.with_suffix('.npz')
        ),
        'label 2 of example 1 is out of range: 0 to 1',
    ),
    'negative label': (
        lambda p, s: _tar(p.with_suffix('.tar'), [('a.png', PNG), ('a.cls', b'-2')]),
        'label -2 of example 0 is out of range',
    ),
    'huge label': (
        lambda p, s: _table(p.with_suffix('.parquet'), image=[PNG], label=[10**9]),
        'label 1000000000 of example 0 is out of range',
    ),
    'fraction': (lambda p, s: _table(p.with_suffix('.parquet'), image=[PNG], label=[0.5]), 'label 0.5 is neither'),
    'labels too few': (
        lambda p, s: (
            np.savez(p.with_suffix('.npz'), x=np.zeros((2, 4, 4, 3), np.uint8), y=[0]) or p.with_suffix('.npz')
        ),
        '1 labels for 2 images',
    ),
    'channels first': (
        lambda p, s: np.savez(p.with_suffix('.npz'), x=np.zeros((2, 3, 32, 32))) or p.with_suffix('.npz'),
        r'look like \[N, C, H, W\]',
    ),
    'objects': (
        lambda p, s: np.savez(p.with_suffix('.npz'), x=np.array([{}, None])) or p.with_suffix('.npz'),
        'allow_pickle',
    ),
    'no image column': (lambda p, s: _table(p.with_suffix('.parquet'), text=['x']), '0 columns of images'),
    'no rows': (lambda p, s: _table(p.with_suffix('.parquet'), image=pa.array([], pa.binary())), 'holds no example'),
    'twice in a tar': (lambda p, s: _tar(p.with_suffix('.tar'), [('a.png', PNG), ('a.png', PNG)]), "key 'a' has two"),
    'caption alone in a tar': (lambda p, s: _tar(p.with_suffix('.tar'), [('a.txt', b'x')]), "key 'a' has txt but no"),
    'tar without images': (lambda p, s: _tar(p.with_suffix('.tar'), [('a.doc', b'x')]), 'no member is an image'),
    'unknown TFDS set': (lambda p, s: 'tfds:cifar11', 'did you mean .*cifar10'),
}


@pytest.mark.parametrize('case', WRONG)
def test_what_is_wrong_is_one_line_before_anything_is_decoded(case, stored, tmp_path):
    import pathlib

    make, message = WRONG[case]
    path = make(tmp_path / 'set', {name: pathlib.Path(there) for name, there in stored.items()})
    with pytest.raises((ValueError, FileNotFoundError), match=message) as raised:
        formats.open(str(path))
    assert '\n' not in str(raised.value)


def test_two_archives_with_one_key(tmp_path):
    for name in ('a.tar', 'b.tar'):
        _tar(tmp_path / name, [('x.png', PNG)])
    with pytest.raises(ValueError, match=r"b\.tar: key 'x' is in .*a\.tar too"):
        formats.open(str(tmp_path))


def test_class_folders_in_a_tar_need_no_labels(tmp_path):
    _tar(tmp_path / 'a.tar', [(f'./{name}.png', written.png(image)) for name, image, _, _ in EXAMPLES])
    found = sources.images(str(tmp_path / 'a.tar'))
    assert found.classes == written.CLASSES
    np.testing.assert_array_equal(found.gather(np.arange(23))['label'], [label for _, _, label, _ in EXAMPLES])


def test_unpacked_arrays_are_mapped_not_read(stored):
    mapped, read = (formats.open(stored[name]).read.__self__.images.array for name in ('npz', 'packed'))
    assert isinstance(mapped, np.memmap)
    assert not isinstance(read, np.memmap)
    assert zipfile.is_zipfile(stored['npz'])
