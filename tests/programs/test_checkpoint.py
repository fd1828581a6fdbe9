"""`diffusion checkpoint`, and programs on checkpoints that are not whole."""

import json
import os
import resource
import shutil

import pytest

from diffusion.runtime import checkpoint, manifest, store

# Two steps a second on one core: what is tested is what becomes of them.
QUICK = (
    '--config=configs/toy2d.py',
    '--config.net.width=8',
    '--config.train.batch=16',
    '--config.train.steps=12',
    '--config.train.save_every=4',
    '--config.train.log_every=1',
    '--config.preview.num=0',
    '--config.runtime.platform=cpu',
    '--config.runtime.devices=2',
)


@pytest.fixture(scope='module')
def run(diffusion, tmp_path_factory):
    """The workdir of a run with the checkpoints of steps 4, 8 and 12."""
    folder = tmp_path_factory.mktemp('quick') / 'run'
    done = diffusion('train', *QUICK, '--config.train.keep=3', '--config.ema.others=64', f'--workdir={folder}')
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / 'copy')


def hurt(folder, step, part='params'):
    path = max((folder / checkpoint.FOLDER / str(step) / part).rglob('*'), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_show_reads_no_weights(call, copy):
    for path in (copy / checkpoint.FOLDER / '12').rglob('*'):
        if path.is_file() and path.name != manifest.FILE:
            path.unlink()
    shown = call('checkpoint', 'show', f'--workdir={copy}')
    assert shown.returncode == 0, shown.stderr
    assert [line for line in shown.stdout.splitlines() if line.startswith('step ')][-1].startswith('step 12: ')
    assert 'ema_64' in shown.stdout and 'step 12, examples 192' in shown.stdout
    assert 'step 4' not in call('checkpoint', 'show', f'--workdir={copy}', '--step=8').stdout


def test_verify_names_what_is_damaged_and_the_newest_good_one(call, copy):
    whole = call('checkpoint', 'verify', f'--workdir={copy}')
    assert whole.returncode == 0 and whole.stdout.splitlines() == [f'step {step}: whole' for step in (4, 8, 12)]
    hurt(copy, 12)
    found = call('checkpoint', 'verify', f'--workdir={copy}')
    assert found.returncode == 1 and 'step 12: params/' in found.stdout
    assert 'the newest good one is step 8' in found.stdout
    for step in (4, 8):
        hurt(copy, step, 'optimizer')
    found = call('checkpoint', 'verify', f'--workdir={copy}')
    assert found.returncode == 1 and 'none is whole' in found.stdout


@pytest.mark.long
def test_training_falls_back_and_arrives_where_it_was(call, copy):
    before = manifest.read(copy / checkpoint.FOLDER / '12')['meta']
    hurt(copy, 12, 'ema')
    done = call('train', *QUICK, '--config.train.keep=3', '--config.ema.others=64', f'--workdir={copy}')
    assert done.returncode == 0, done.stderr
    assert 'step 12 is damaged' in done.stderr and 'falls back to step 8' in done.stderr
    assert store.steps(copy / checkpoint.FOLDER) == [4, 8, 12]
    assert manifest.read(copy / checkpoint.FOLDER / '12')['meta']['position'] == before['position']
    assert (copy / checkpoint.ASIDE / '12').is_dir()


def test_sampling_falls_back_saying_so_and_reads_only_what_it_draws_with(call, copy, tmp_path):
    hurt(copy, 12, 'ema')
    words = ('sample', f'--workdir={copy}', '--num=2', '--steps=2')
    back = call(*words, f'--out={tmp_path / "a"}')
    assert back.returncode == 0 and 'falls back to step 8' in back.stderr and 'ema weights of step 8' in back.stdout
    other = call(*words, f'--out={tmp_path / "b"}', '--weights=ema_64')
    assert other.returncode == 0 and not other.stderr.count('damaged') and 'ema_64 weights of step 12' in other.stdout
    asked = call(*words, f'--out={tmp_path / "c"}', '--step=12')
    assert asked.returncode == 2 and 'step 12 is damaged' in asked.stderr and not (tmp_path / 'c').exists()
    (copy / checkpoint.FOLDER / '12' / manifest.FILE).write_text('{')
    back = call(*words, f'--out={tmp_path / "d"}', '--weights=ema_64')
    assert back.returncode == 0 and 'ema_64 weights of step 8' in back.stdout
    wrong = call(*words, f'--out={tmp_path / "c"}', '--weights=ema_65')
    assert wrong.returncode == 2 and 'there are ema, ema_64, raw' in wrong.stderr


@pytest.mark.long
def test_a_failed_save_in_the_background_ends_the_run_with_its_error(diffusion, tmp_path):
    """The limit on the size of a file stands for a full disk: what is written fails, what runs does not."""
    folder = tmp_path / 'run'
    changes = ('--config.train.steps=100000', '--config.train.save_every=4', '--config.net.width=256')
    process = diffusion('train', *QUICK, *changes, f'--workdir={folder}', start=True)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 70, said
    last = said[said.rindex('diffusion: ') :].splitlines()[0]  # threads of the checkpoint library may speak after it
    assert 'the checkpoint of step 4 could not be written' in last and 'File too large' in last
    assert not store.steps(folder / checkpoint.FOLDER)


@pytest.mark.long
def test_the_best_by_a_metric_survive_rotation(call, tmp_path):
    best = ('--config.train.keep=1', '--config.train.keep_best=1', '--config.train.save_every=2')
    done = call('train', *QUICK, *best, f'--workdir={tmp_path}')
    assert done.returncode == 0, done.stderr
    logged = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    losses = {line['step']: line['loss'] for line in logged}
    lowest = min(range(2, 13, 2), key=losses.get)
    assert store.steps(tmp_path / checkpoint.FOLDER) == sorted({lowest, 12})


@pytest.mark.long
def test_a_metric_that_nobody_measured_is_named(call, tmp_path):
    flags = ('--config.train.keep_best=1', f'--workdir={tmp_path}')
    done = call('train', *QUICK, *flags, '--config.train.best_metric=fid')
    assert done.returncode == 0 and done.stderr.count("train.best_metric 'fid' was not measured so far") == 1
    assert 'grad_norm' in done.stderr
    assert 'was not measured' not in call('train', *QUICK, *flags, '--config.train.steps=16').stderr


@pytest.mark.long
def test_an_evaluation_goes_before_the_log(call, run, tmp_path):
    """Bits per dimension of steps 4 and 12 as `diffusion evaluate` leaves them: the lower stays, or the higher."""
    for highest, stays in ((False, 12), (True, 4)):
        folder = shutil.copytree(run, tmp_path / str(highest))
        for step, value in ((4, 5.0), (8, 4.0), (12, 3.0)):
            os.makedirs(folder / 'eval', exist_ok=True)
            (folder / 'eval' / f'nll_step_{step}.json').write_text(json.dumps({'value': value}))
        flags = ('--config.train.keep=1', '--config.train.keep_best=1', '--config.train.best_metric=nll')
        more = (*flags, f'--config.train.best_highest={highest}', '--config.train.steps=13', '--config.ema.others=64')
        done = call('train', *QUICK, *more, f'--workdir={folder}')
        assert done.returncode == 0, done.stderr
        assert store.steps(folder / checkpoint.FOLDER) == [stays, 13]


@pytest.mark.parametrize(
    'words,say',
    [
        (['shwo'], "did you mean 'show'"),
        ([], 'the following arguments are required'),
        (['show', '--workdir=nowhere'], 'holds no checkpoint'),
        (['verify', '--workdir={run}', '--step=5'], 'there are 4, 8, 12'),
    ],
)
def test_a_wrong_call_is_one_line(call, run, words, say):
    done = call('checkpoint', *(word.format(run=run) for word in words))
    assert done.returncode == 2 and say in done.stderr and done.stderr.count('\n') == 1


def test_a_run_that_has_begun_takes_no_average_on(call, copy):
    before = (copy / 'config.json').read_bytes()
    changed = ('--config.ema.others=64,128', '--allow-config-change=ema.others', '--config.train.steps=16')
    done = call('train', *QUICK, *changed, f'--workdir={copy}')
    assert done.returncode == 2 and 'holds no average ema_128' in done.stderr
    assert (copy / 'config.json').read_bytes() == before
