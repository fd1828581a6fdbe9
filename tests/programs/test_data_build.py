"""`diffusion data build`: what was stored is what was there, however often the build was killed."""

import hashlib
import json
import pathlib
import signal
import time

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from diffusion.data import formats, pictures, sources, split
from diffusion.programs import storing
from tests.programs.test_data import folder, picture  # noqa: F401


def files(path):
    return {one.relative_to(path).as_posix(): one.read_bytes() for one in path.rglob('*') if one.is_file()}


def stored(path, part='train'):
    """[(id, pixels, label)] as TFDS itself decodes a split."""
    source = tfds.builder_from_directory(path).as_data_source(part)
    return [(one['id'].decode(), one['image'], int(one.get('label', -1))) for one in source]


def test_what_is_stored_is_what_was_there(call, folder, tmp_path):  # noqa: F811
    dest = tmp_path / 'built'
    done = call('data', 'build', folder, dest, '--image-size=8', '--crop=center', '--filter=lanczos', '--shards=3')
    assert done.returncode == 0, done.stderr
    source = formats.open(str(folder))
    fit = pictures.Fit(8, 'center', 'lanczos')
    built = formats.open(str(dest))
    assert built.length == source.length and built.classes == source.classes
    for one, other in zip(source.read(np.arange(20)), built.read(np.arange(20))):
        assert one.label == other.label
        np.testing.assert_array_equal(pictures.decode(one.image, fit), pictures.decode(other.image, pictures.Fit()))
    manifest = json.loads((dest / 'manifest.json').read_text())
    shards = manifest['splits']['train']['shards']
    assert [shard['examples'] for shard in shards] == [7, 7, 6] and manifest['plan']['fit']['filter'] == 'lanczos'
    for shard in shards:
        content = (dest / shard['file']).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (shard['sha256'], shard['size'])
    # The source of a config reads the folder, and so does TFDS.
    read = sources.images(str(dest))
    assert read.shape == (8, 8, 3) and read.classes == ('a', 'b') and len(read) == 20
    found = stored(dest)
    for i, example in enumerate(source.read(np.arange(20))):
        assert found[i][0] == example.name and found[i][2] == example.label
        np.testing.assert_array_equal(found[i][1], pictures.decode(example.image, fit))
        np.testing.assert_array_equal(read.gather(np.array([i]))['image'][0], found[i][1])


def test_both_sides_share_no_picture_and_copies_stay_together(call, folder, tmp_path):  # noqa: F811
    for i in range(4):
        picture(i).save(folder / 'b' / f'copy{i}.png', compress_level=0)
    for number, wanted in ((6, 6), (11, 11)):
        dest = tmp_path / f'built{number}'
        done = call('data', 'build', folder, dest, f'--val={number}')
        assert done.returncode == 0, done.stderr
        sides = {part: stored(dest, part) for part in ('train', 'validation')}
        contents = {part: {image.tobytes() for _, image, _ in found} for part, found in sides.items()}
        names = {part: {name for name, _, _ in found} for part, found in sides.items()}
        assert len(sides['validation']) == wanted and len(sides['train']) == 24 - wanted
        assert not contents['train'] & contents['validation'] and not names['train'] & names['validation']
        assert '4 pictures are there more than once, as 9 examples; none is on both sides' in done.stdout
        manifest = json.loads((dest / 'manifest.json').read_text())
        assert {part: side['examples'] for part, side in manifest['splits'].items()} == {
            'train': 24 - wanted,
            'validation': wanted,
        }
    # A share is of what can be read; the same pictures under other names in another order are split alike.
    other = tmp_path / 'other' / 'x'
    other.mkdir(parents=True)
    for i, path in enumerate(
        sorted(folder.rglob('*.png'), key=lambda path: hashlib.sha256(str(path.name).encode()).digest())
    ):
        (other / f'{i:03}.png').write_bytes(path.read_bytes())
    assert call('data', 'build', other.parent, tmp_path / 'renamed', '--val=0.25').returncode == 0
    renamed = {image.tobytes() for _, image, _ in stored(tmp_path / 'renamed', 'validation')}
    assert renamed == {image.tobytes() for _, image, _ in stored(tmp_path / 'built6', 'validation')}


def test_groups_fill_the_validation_as_far_as_they_fit():
    contents = ['bb', 'aa', 'aa', 'aa', '', 'cc', 'cc', 'dd']
    for wanted, expected in ((0, []), (1, [0]), (2, [0, 7]), (3, [1, 2, 3]), (4, [0, 1, 2, 3]), (5, [0, 1, 2, 3, 7])):
        found = split.by_content(contents, wanted)
        assert found.validation == expected, wanted
        assert sorted(found.train + found.validation) == [0, 1, 2, 3, 5, 6, 7]
        assert (found.groups, found.copies) == (2, 5)
    with pytest.raises(ValueError, match='nothing is left'):
        split.by_content(contents, 7)


def test_a_build_that_is_killed_goes_on_with_the_same_bytes(call, diffusion, folder, tmp_path):  # noqa: F811
    """Killed when its first shard is there; the many shards after it, each waiting for the disk, leave it no time."""
    words = ('--shards=200', '--val=30')
    for i in range(400):
        picture(1000 + i).save(folder / 'a' / f'more{i}.png')
    whole, dest = tmp_path / 'one' / 'set', tmp_path / 'two' / 'set'
    assert call('data', 'build', folder, whole, *words).returncode == 0
    process = diffusion('data', 'build', folder, dest, *words, start=True)
    while process.poll() is None and not list(dest.glob('[!.]*.array_record-*')):
        time.sleep(0.001)
    process.kill()
    said = process.communicate()[0]
    assert process.returncode == -signal.SIGKILL, said
    begun = {path.name: path.stat().st_mtime_ns for path in dest.glob('[!.]*.array_record-*')}
    assert (dest / storing.WORK).is_dir() and not (dest / 'manifest.json').exists()
    assert not (dest / 'dataset_info.json').exists()  # no set for anybody yet
    # Another build has no business there, nor does this one beside itself.
    other = call('data', 'build', folder, dest, '--shards=3')
    assert other.returncode == 2 and 'shards: 200 -> 3' in other.stderr
    # A shard that was damaged in between is written anew.
    hurt = min(begun)
    (dest / hurt).write_bytes(b'x' + (dest / hurt).read_bytes()[1:])
    (dest / '.left.partial').write_bytes(b'x')
    assert call('data', 'build', folder, dest, *words).returncode == 0
    assert files(dest) == files(whole)
    kept = [name for name, when in begun.items() if (dest / name).stat().st_mtime_ns == when]
    assert len(kept) >= len(begun) - 2  # all but the damaged one and at most one that was not noted yet
    again = call('data', 'build', folder, dest, *words)
    assert again.returncode == 0 and 'built already' in again.stdout


def test_a_finished_set_is_never_written_over(call, folder, tmp_path):  # noqa: F811
    dest = tmp_path / 'built'
    assert call('data', 'build', folder, dest).returncode == 0
    before = files(dest)
    other = call('data', 'build', folder, dest, '--image-size=8')
    assert other.returncode == 2 and 'built otherwise' in other.stderr and 'fit' in other.stderr
    (folder / 'a' / '00.png').unlink()
    gone = call('data', 'build', folder, dest)
    assert gone.returncode == 2 and 'source' in gone.stderr
    assert files(dest) == before
    picture(0).save(folder / 'a' / '00.png')
    shard = next(dest.glob('[!.]*.array_record-*'))
    shard.write_bytes(before[shard.name][:-1] + b'x')
    hurt = call('data', 'build', folder, dest)
    assert hurt.returncode == 1 and f'{shard.name} has other contents' in hurt.stdout


def test_unreadable_images_are_named_and_left_out_or_end_the_build(call, folder, tmp_path):  # noqa: F811
    for i in range(120):
        picture(500 + i).save(folder / 'a' / f'more{i:03}.png')
    (folder / 'a' / 'more007.png').write_bytes(b'no picture')
    dest = tmp_path / 'built'
    done = call('data', 'build', folder, dest)
    assert done.returncode == 0, done.stderr
    bad = [json.loads(line) for line in (dest / storing.BAD).read_text().splitlines()]
    assert [line['name'] for line in bad] == ['a/more007.png'] and bad[0]['reason']
    assert len(stored(dest)) == 139 and 'a/more007.png' in done.stdout
    (folder / 'a' / 'more008.png').write_bytes(b'')
    ended = call('data', 'build', folder, tmp_path / 'other')
    assert ended.returncode == 1 and 'nothing is stored' in ended.stdout
    assert [path.name for path in (tmp_path / 'other').iterdir()] == [storing.BAD]
    picture(508).save(folder / 'a' / 'more008.png')
    assert call('data', 'build', folder, tmp_path / 'other').returncode == 0


def test_arrays_of_many_channels_are_stored_as_numbers(call, tmp_path):
    arrays = np.random.default_rng(0).standard_normal((10, 6, 5, 7)).astype(np.float32)
    np.savez(tmp_path / 'set.npz', images=arrays)
    done = call('data', 'build', tmp_path / 'set.npz', tmp_path / 'built', '--shards=2')
    assert done.returncode == 0, done.stderr
    read = formats.open(str(tmp_path / 'built')).read(np.arange(10))
    for one, array in zip(read, arrays):
        np.testing.assert_array_equal(pictures.decode(one.image, pictures.Fit()), array)


def test_pictures_of_many_sizes_stay_as_they_are(call, folder, tmp_path):  # noqa: F811
    assert call('data', 'build', folder, tmp_path / 'built').returncode == 0
    found = stored(tmp_path / 'built')
    for name, image, _ in found:
        with PIL.Image.open(folder / name) as opened:
            np.testing.assert_array_equal(image, np.asarray(opened.convert('RGB')))
    assert sources.images(str(tmp_path / 'built'), image_size=6).gather(np.arange(3))['image'].shape == (3, 6, 6, 3)


def test_a_prepared_set_of_tfds_is_a_source_too(call, data_dir, tmp_path):
    done = call('data', 'build', 'tfds:emoji/faces_16', tmp_path / 'built', f'--data-dir={data_dir}', '--val=7')
    assert done.returncode == 0, done.stderr
    train, validation = (formats.open(str(tmp_path / 'built'), part) for part in ('train', 'validation'))
    assert train.length + validation.length == 137 and 'grinning face' in train.captions() + validation.captions()
    assert pathlib.Path(done.stdout.splitlines()[0].removeprefix('prepared at ')).is_dir()
