import json
import re
import shutil
import signal
import time

import numpy as np
import pytest
from PIL import Image

from tests.programs import conftest

TINY = conftest.TINY


def lines_of(folder):
    return [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]


def losses(folder):
    return {line['step']: line['loss'] for line in lines_of(folder) if 'loss' in line}


def test_a_run_leaves_what_it_should(trained):
    assert sorted(losses(trained)) == [2, 4, 6, 8]
    final = lines_of(trained)[-1]
    assert final['step'] == 8 and 0 <= final['caption_match'] <= 1 and final['caption_match_n'] == 5
    assert np.asarray(Image.open(trained / 'samples' / 'step_0000008.png')).shape[2] == 3
    assert sorted(path.name for path in (trained / 'checkpoints').iterdir()) == ['4', '8']
    described = json.loads((trained / 'config.json').read_text())
    assert described['config']['net']['width'] == 8 and described['versions']['jax']
    assert described['facts']['tokenizer']['kind'] == 'words' and described['facts']['examples'] == 137
    assert list(trained.glob('events.out.tfevents.*'))


def test_the_same_command_again_has_nothing_to_do(diffusion, trained):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob('*')}
    done = diffusion('train', *TINY, f'--workdir={trained}')
    assert done.returncode == 0 and 'has 8 steps already' in done.stdout
    changed = [p.name for p in trained.rglob('*') if p.is_file() and before.get(p) != p.stat().st_mtime_ns]
    assert changed in ([], ['config.json'])


def test_a_missing_last_sheet_is_drawn(call, trained, tmp_path):
    shutil.copytree(trained, tmp_path / 'run')
    sheet = tmp_path / 'run' / 'samples' / 'step_0000008.png'
    drawn = sheet.read_bytes()
    sheet.unlink()
    assert call('train', *TINY, f'--workdir={tmp_path / "run"}').returncode == 0
    assert sheet.read_bytes() == drawn


def test_interrupted_and_prolonged_it_is_the_undisturbed_run(diffusion, trained, tmp_path):
    """Ctrl-C in the middle, the same command again, then more steps: the same losses as in one go."""
    folder = tmp_path / 'run'
    whole = tmp_path / 'whole'
    slow = ('--config.train.log_every=1',)
    process = diffusion('train', *TINY, *slow, '--config.train.steps=100000', f'--workdir={folder}', start=True)
    while not (folder / 'metrics.jsonl').exists() or len(losses(folder)) < 2:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 75, said
    # However many steps it took until the signal came, the other run takes as many.
    stopped = int(re.search(r'stopped at step (\d+) of 100000', said)[1])
    again = diffusion('train', *TINY, *slow, f'--config.train.steps={stopped + 3}', f'--workdir={folder}')
    assert again.returncode == 0 and f'goes on where it stopped: step {stopped} of' in again.stderr
    assert [line['step'] for line in lines_of(folder) if 'loss' in line] == list(range(1, stopped + 4))
    last = max(stopped + 6, 10) // 2 * 2
    more = (f'--config.train.steps={last}',)
    assert diffusion('train', *TINY, *slow, *more, f'--workdir={folder}').returncode == 0
    shutil.copytree(trained, whole)
    assert diffusion('train', *TINY, *more, f'--workdir={whole}').returncode == 0
    singles, pairs = losses(folder), losses(whole)
    for step in range(2, last + 1, 2):
        mean = (singles[step - 1] + singles[step]) / 2
        np.testing.assert_allclose(mean, pairs[step], rtol=1e-6)


def test_another_config_is_shown_key_by_key_and_refused(diffusion, trained, tmp_path):
    folder = tmp_path / 'copy'
    shutil.copytree(trained, folder)
    before = (folder / 'config.json').read_bytes()
    change = ('--config.optimizer.lr=0.5', '--config.ema.halflife=7', '--config.train.steps=10')
    done = diffusion('train', *TINY, *change, f'--workdir={folder}')
    assert done.returncode == 2 and done.stderr.count('\n') == 1
    assert 'ema.halflife: 5000 -> 7' in done.stderr and 'optimizer.lr: 0.001 -> 0.5' in done.stderr
    assert '--allow-config-change=ema.halflife,optimizer.lr' in done.stderr
    assert (folder / 'config.json').read_bytes() == before
    done = diffusion('train', *TINY, *change, f'--workdir={folder}', '--allow-config-change=ema.halflife,optimizer.lr')
    assert done.returncode == 0 and 'step 8 of 10' in done.stderr
    assert json.loads((folder / 'config.json').read_text())['config']['optimizer']['lr'] == 0.5


@pytest.mark.parametrize(
    'words,say',
    [
        (['--config=configs/emojy.py'], "did you mean 'emoji.py'"),
        ([*TINY, '--config.train.lrr=1'], 'config.train.lrr does not exist'),
        ([*TINY, '--config.train.steps=x'], 'an int is wanted'),
        ([*TINY, '--config.net.name=UNett'], "did you mean 'UNet'"),
        ([*TINY, '--config.sampler.name=heum'], "did you mean 'heun'"),
        ([*TINY, '--config.train.cond_dropout=0'], 'condition dropout'),
        ([*TINY, '--config.train.batch=0'], 'must be at least 1'),
        ([*TINY, '--config.runtime.devices=3'], 'nearest that do: 15 and 18'),
        ([*TINY, '--config.runtime.devices=99'], 'but there are 8 cpu devices'),
        ([*TINY, '--config.runtime.fsdp=5'], 'does not divide'),
        ([*TINY, '--config.runtime.platform=abacus'], "one of 'auto', 'cpu', 'gpu', 'tpu'"),
        ([*TINY, '--config.preview.unseen=purple elephant'], "unknown word 'purple'"),
        ([*TINY, '--config.preview.unseen=crying cat'], 'is a caption of the set'),
        ([*TINY, '--config.data.subset=hands'], "it is 'faces' or 'all'"),
        ([*TINY, '--config.net.multipliers=1,2,2,2,2,2'], 'sides must divide by 32'),
        ([*TINY, '--workdirr=x'], "did you mean '--workdir'"),
        ([], '--config'),
        (['--config=configs/cifar10_edm.py'], 'not prepared'),
    ],
    ids=lambda value: value[-1][9:40] if isinstance(value, list) and value else None,
)
def test_bad_input_is_one_line_and_leaves_nothing(call, data_dir, tmp_path, words, say):
    place = [f'--config.data.data_dir={data_dir}'] if words else []
    done = call('train', *words, *place, f'--workdir={tmp_path / "run"}')
    assert done.returncode == 2, done.stderr
    assert say in done.stderr and done.stderr.count('\n') == 1
    assert not (tmp_path / 'run').exists()


def test_a_cloud_folder_is_refused(call):
    done = call('train', *TINY, '--workdir=gs://bucket/run')
    assert done.returncode == 2 and 'not a local folder' in done.stderr


def test_a_folder_that_is_no_run_is_left_alone(call, tmp_path):
    (tmp_path / 'thesis.txt').write_text('mine')
    done = call('train', *TINY, f'--workdir={tmp_path}')
    assert done.returncode == 2 and 'thesis.txt' in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ['thesis.txt']
    (tmp_path / 'config.json').write_text('{"config": 3')
    done = call('train', *TINY, f'--workdir={tmp_path}')
    assert done.returncode == 2 and 'damaged' in done.stderr
    assert (tmp_path / 'config.json').read_text() == '{"config": 3'
