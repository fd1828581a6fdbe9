"""`diffusion data check` and `bench`, and what every action refuses."""

import dataclasses
import json
import time
import types

import numpy as np
import PIL.Image
import pytest

from diffusion.data import sources
from diffusion.programs import data_bench, feed
from tests.programs import pages


def picture(seed, height=12, width=12, channels=3):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    return PIL.Image.fromarray(values[..., 0] if channels == 1 else values)


@pytest.fixture
def folder(tmp_path):
    """12 RGB pictures of class a, 8 of class b, of which one is wide, one grey and one a copy out of class a."""
    root = tmp_path / 'set'
    for name, count in (('a', 12), ('b', 8)):
        (root / name).mkdir(parents=True)
        for i in range(count):
            picture(100 * (name == 'b') + i).save(root / name / f'{i:02}.png')
    picture(200, 12, 24).save(root / 'b' / '05.png')
    picture(201, channels=1).save(root / 'b' / '06.png')
    picture(3).save(root / 'b' / '07.png', compress_level=1)
    return root


def test_check_says_what_is_there_and_writes_a_page_that_needs_nothing(call, folder, tmp_path):
    done = call('data', 'check', folder, '--image-size=12', f'--out={tmp_path / "out"}')
    assert done.returncode == 0, done.stderr
    said = ' '.join(done.stdout.split())
    assert 'examples 20 readable 20 unreadable 0 copies of another 1' in said
    assert 'PNG RGB 19 PNG L 1' in said and '12 x 12 19 24 x 12 1' in said
    assert 'height 12 12 12 12 12 width 12 12 12 12 24' in said
    assert 'images that lose something 1' in said and 'at most 50.0%' in said and 'b/05.png (50%)' in said
    assert (
        'a 12 b 8' in said and '2 times a/03.png, b/07.png' in said and 'verdict: can be trained on: 1 copies' in said
    )
    page = pages.Page(tmp_path / 'out' / 'check.html')
    assert len(page.images) == 20
    assert all(source.startswith('data:image/png;base64,') for source in page.images)
    assert not any(word in page.text for word in ('http:', 'https:', '<script', '<link', 'url('))
    assert 'prefers-color-scheme: dark' in page.text and 'width=device-width' in page.text
    assert 'b/07.png' in ' '.join(page.words)
    with PIL.Image.open(tmp_path / 'out' / 'preview.png') as preview:
        assert preview.width > 5 * 12


def test_check_of_a_bad_set_is_1_and_names_the_files(call, folder):
    (folder / 'a' / '05.png').write_bytes((folder / 'a' / '05.png').read_bytes()[:60])
    done = call('data', 'check', folder)
    assert done.returncode == 1
    assert 'a/05.png' in done.stdout and 'verdict: 1 images cannot be read, more than 1%' in done.stdout
    strange = folder / 'a' / '<b>&.png'
    strange.write_bytes(b'')
    assert call('data', 'check', folder, f'--out={folder.parent / "out"}').returncode == 1
    page = pages.Page(folder.parent / 'out' / 'check.html')
    assert '<b>&' not in page.text and any('<b>&.png' in word for word in page.words)


def test_check_of_buckets_says_how_many_images_each_has_and_what_is_cut(call, tmp_path):
    """Of 96 x 64 and 100 x 50 the first loses 1 - (96 / 64) / (80 / 48) = 10 % in 80 x 48, the other 1 / 6."""
    for i, size in enumerate([(96, 64), (100, 50), (64, 64), (64, 96)] * 2):
        PIL.Image.new('RGB', size, (i, 0, 0)).save(tmp_path / f'{i}.png')
    done = call('data', 'check', tmp_path, '--image-size=64', '--buckets=3')
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ['80', 'x', '48', '4', '13.3%'] in rows
    assert ['64', 'x', '64', '2', '0.0%'] in rows and ['48', 'x', '80', '2', '10.0%'] in rows
    assert call('data', 'check', tmp_path, '--buckets=3').returncode == 2


def test_check_of_the_set_of_a_config(call, data_dir):
    done = call('data', 'check', '--config=configs/emoji.py', f'--config.data.data_dir={data_dir}')
    assert done.returncode == 0, done.stderr
    said = ' '.join(done.stdout.split())
    assert 'examples 137' in said and 'without one 0' in said and 'such as grinning face' in said


def test_bench_measures_what_training_reads_and_says_whether_it_suffices(call, data_dir):
    words = ('data', 'bench', '--config=configs/emoji.py', f'--config.data.data_dir={data_dir}', '--seconds=0.2')
    plain = call(*words)
    assert plain.returncode == 0 and '137 examples of 16 x 16 x 3 uint8, kept in memory' in plain.stdout
    assert 'needs     unknown' in plain.stdout and 'verdict' not in plain.stdout
    fed = call(*words, '--step-time=1000')
    assert fed.returncode == 0 and 'verdict   fed' in fed.stdout and 'batches of 64 every 1000 s' in fed.stdout
    starved = call(*words, '--step_time=1e-9', '--hosts=2')
    assert starved.returncode == 1 and 'verdict   starved' in starved.stdout and 'batches of 32' in starved.stdout


def test_bench_takes_the_step_time_of_a_run(call, data_dir, tmp_path):
    folder = tmp_path / 'run'
    folder.mkdir()
    lines = [{'step': step, 'images_per_s': 320.0, 'data_wait': 0.5} for step in (10, 20, 30)]
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    words = ('data', 'bench', '--config=configs/emoji.py', f'--config.data.data_dir={data_dir}', '--seconds=0.1')
    done = call(*words, f'--workdir={folder}')
    # 64 images at 320 a second are 0.2 s a step, half of which was waiting.
    assert 'needs     640 images/s a host: batches of 64 every 0.1 s' in done.stdout, done.stdout + done.stderr
    (folder / 'metrics.jsonl').write_text('')
    assert 'tells no step time' in call(*words, f'--workdir={folder}').stderr


def test_the_speed_of_a_set_that_takes_known_time_to_read():
    """A batch of 10 that cannot be had in less than 20 ms a thread is read at 1,000 images/s by two threads at most."""
    source = sources.mixture(examples=100)
    records = source.open()
    delayed = dataclasses.replace(records, gather=lambda ids: (time.sleep(0.02), records.gather(ids))[1])
    slow = dataclasses.replace(source, open=lambda: delayed)
    config = {'train': {'batch': 10, 'seed': 0}, 'runtime': {'workers': 0, 'ahead': 2}}
    facts = types.SimpleNamespace(tokenizer=None, shape=(1, 1, 2), dtype='float32')
    pace = data_bench.read(config, facts, slow, np.arange(10), 1.0)
    assert 0 < pace.rate <= 1_300 and pace.first >= 0.02 and pace.peak[0] > 2**20
    assert feed.workers(0, slow) == 0


@pytest.mark.parametrize(
    'words,say',
    [
        ([], 'the following arguments are required'),
        (['chekc'], "did you mean 'check'"),
        (['check'], 'name one SOURCE'),
        (['check', '{set}', '--config=configs/emoji.py'], 'name one SOURCE'),
        (['check', '{set}-gone'], 'set-gone'),
        (['check', '{set}', '--crop=centre'], 'crop='),
        (['check', '{set}', '--background=white'], 'three numbers'),
        (['check', '{set}', '--config.data.path=x'], 'leave it out'),
        (['check', '{set}', '--out={set}/a/00.png'], 'is not a local folder'),
        (['check', 'tfds:no_such_set'], 'TFDS has no set'),
        (['check', '--config=configs/toy2d.py'], 'holds no pictures'),
        (['build', '{set}'], 'name the folder to build in'),
        (['build', '{set}', 'gs://bucket/x'], 'not a local folder'),
        (['build', '{set}', '{set}'], 'no build of this set has written'),
        (['build', '{set}', '{set}/a/00.png'], 'is a file'),
        (['build', '{set}', '{set}-built', '--val=some'], '--val=some'),
        (['build', '{set}', '{set}-built', '--val=1.5'], '--val=1.5'),
        (['build', '{set}', '{set}-built', '--shards=-1'], '--shards=-1'),
        (['build', '{set}', '{set}-built', '--name=a-b'], '--name=a-b'),
        (['build', 'tfds:mnist', '{set}-built', '--data-dir={set}-tfds'], 'needs TensorFlow'),
        (['bench'], 'give --config=FILE'),
        (['bench', '--workdir={set}'], 'is not a run'),
        (['bench', '--config=configs/emoji.py', '--seconds=0'], '--seconds=0'),
        (['bench', '--config=configs/emoji.py', '--step-time=-1'], '--step-time=-1'),
        (['bench', '--config=configs/emoji.py', '--hosts=3'], 'does not divide'),
        (['bench', '--config=configs/emoji.py', '--workers=-2'], 'workers must be at least 0'),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_and_writes_nothing(call, folder, words, say):
    before = sorted(folder.parent.rglob('*'))
    done = call('data', *(word.replace('{set}', str(folder)) for word in words))
    assert done.returncode == 2, done.stdout + done.stderr
    assert say in done.stderr and done.stderr.count('\n') == 1, done.stderr
    assert sorted(folder.parent.rglob('*')) == before
