import json
import shutil

import numpy as np
import pytest
from PIL import Image


def picture(path):
    return np.asarray(Image.open(path))


def test_one_picture_a_seed_and_a_grid(call, trained, tmp_path):
    done = call('sample', f'--workdir={trained}', '--prompt=crying cat', '--seeds=17,3-5', f'--out={tmp_path}')
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        '17.png',
        '3.png',
        '4.png',
        '5.png',
        'grid.png',
    ]
    assert picture(tmp_path / '17.png').shape == (16, 16, 3)
    assert 'ema weights of step 8' in done.stdout and 'heun sampler, 3 steps, guidance 2' in done.stdout


def test_a_seed_is_the_same_picture_in_any_batch(call, trained, tmp_path):
    one = ('sample', f'--workdir={trained}', '--prompt=crying cat')
    runs = {
        'alone': ('--seeds=17', '--config.sample.batch=1'),
        'among': ('--seeds=10-25', '--config.sample.batch=16'),
        'devices': ('--seeds=16,17,18,19', '--config.runtime.devices=4'),
    }
    for name, flags in runs.items():
        done = call(*one, *flags, f'--out={tmp_path / name}')
        assert done.returncode == 0, done.stderr
    pictures = [picture(tmp_path / name / '17.png') for name in runs]
    np.testing.assert_array_equal(pictures[0], pictures[1])
    np.testing.assert_array_equal(pictures[0], pictures[2])
    assert (pictures[0] != picture(tmp_path / 'among' / '16.png')).any()


def test_what_is_chosen_is_used(call, trained, tmp_path):
    one = ('sample', f'--workdir={trained}', '--prompt=crying cat', '--seeds=1')
    runs = {
        'base': (),
        'sampler': ('--sampler=ancestral',),
        'steps': ('--steps=2',),
        'guidance': ('--guidance=4',),
        'off': ('--guidance=1',),
        'raw': ('--weights=raw',),
        'churn': ('--config.sampler.churn=3',),
        'grid': ('--config.grid.name=log_linear',),
        'step': ('--step=4',),
    }
    drawn = {}
    for name, flags in runs.items():
        done = call(*one, *flags, f'--out={tmp_path / name}')
        assert done.returncode == 0, done.stderr
        drawn[name] = picture(tmp_path / name / '1.png').tobytes()
    assert len(set(drawn.values())) == len(runs)


@pytest.mark.parametrize(
    'flags,say',
    [
        (['--prompt=criying cat'], "unknown word 'criying'"),
        (['--sampler=heum'], "did you mean 'heun'"),
        (['--steps=0'], 'must be at least 1'),
        (['--sampler=dopri5', '--steps=9'], "'dopri5' chooses its own steps: leave out --steps"),
        (['--sampler=bosh3', '--config.sample.steps=9'], "'bosh3' chooses its own steps"),
        (['--sampler=bosh3', '--config.sampler.rtol=0'], 'tolerances are above 0'),
        (['--steps=many'], 'an int is wanted'),
        (['--guidance=strong'], 'there are: apg'),
        (['--seeds=1,x'], 'whole numbers and ranges'),
        (['--seeds=1,1'], 'twice'),
        (['--seeds=5', '--num=2'], 'contradicts'),
        (['--num=0'], 'at least 1'),
        (['--label=cat'], 'not trained on classes'),
        (['--step=5'], 'there are 4, 8'),
        (['--config.precond.name=v'], 'fixed by the training'),
        (['--config.process.sigma_max=9'], 'fixed by the training'),
        (['--config.sampler.chrun=1'], "did you mean 'config.sampler.churn'"),
        (['--weights=best'], 'invalid choice'),
        (['--promt=x'], "did you mean '--prompt'"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_and_draws_nothing(call, trained, tmp_path, flags, say):
    done = call('sample', f'--workdir={trained}', f'--out={tmp_path / "out"}', *flags)
    assert done.returncode == 2, done.stderr
    assert say in done.stderr and done.stderr.count('\n') == 1
    assert not (tmp_path / 'out').exists()


def test_pictures_are_not_overwritten_unasked(call, trained, tmp_path):
    (tmp_path / '1.png').write_bytes(b'mine')
    done = call('sample', f'--workdir={trained}', '--seeds=1', f'--out={tmp_path}')
    assert done.returncode == 2 and '--overwrite' in done.stderr
    assert (tmp_path / '1.png').read_bytes() == b'mine'
    done = call('sample', f'--workdir={trained}', '--seeds=1', f'--out={tmp_path}', '--overwrite')
    assert done.returncode == 0 and picture(tmp_path / '1.png').shape == (16, 16, 3)


def test_a_missing_checkpoint_is_named(call, trained, tmp_path):
    done = call('sample', f'--workdir={tmp_path / "nowhere"}')
    assert done.returncode == 2 and 'no workdir' in done.stderr
    done = call('sample', f'--workdir={tmp_path}')
    assert done.returncode == 2 and 'not a run' in done.stderr
    shutil.copy(trained / 'config.json', tmp_path)
    done = call('sample', f'--workdir={tmp_path}')
    assert done.returncode == 2 and 'no complete checkpoint' in done.stderr


def test_an_unconditional_model_takes_no_prompt_and_no_guidance(call, points, tmp_path):
    for flags, say in (
        (['--prompt=cat'], 'not trained on text'),
        (['--label=1'], 'not trained on classes'),
        (['--guidance=2'], 'no condition to be guided by'),
    ):
        done = call('sample', f'--workdir={points}', f'--out={tmp_path / "out"}', *flags)
        assert done.returncode == 2 and say in done.stderr, done.stderr
        assert not (tmp_path / 'out').exists()


def test_the_plane_is_learned(points):
    """All eight modes of the mixture, and nothing far from them: a whole training run judged by its law."""
    loss = [json.loads(line) for line in (points / 'metrics.jsonl').read_text().splitlines()]
    assert loss[-1]['loss'] < loss[0]['loss']
    page = picture(points / 'samples' / 'step_0000400.png')
    rows, columns = np.nonzero((page != 255).any(-1))
    x, y = columns / 383 * 3 - 1.5, 1.5 - rows / 383 * 3
    angles = np.round(np.arctan2(y, x) / (np.pi / 4)).astype(int) % 8
    assert set(angles) == set(range(8))
    centres = np.stack([np.cos(angles * np.pi / 4), np.sin(angles * np.pi / 4)])
    assert np.mean(np.hypot(*(np.stack([x, y]) - centres)) < 0.25) > 0.9


def test_points_are_drawn_as_a_picture_and_as_numbers(call, points, tmp_path):
    done = call('sample', f'--workdir={points}', '--num=1500', f'--out={tmp_path}')
    assert done.returncode == 0, done.stderr
    drawn = np.load(tmp_path / 'points.npy')
    assert drawn.shape == (1500, 2) and drawn.dtype == np.float32
    assert picture(tmp_path / 'grid.png').shape == (384, 384, 3)


def test_an_adaptive_sampler_takes_its_own_steps_and_says_when_they_run_out(call, points, tmp_path):
    words = ('sample', f'--workdir={points}', '--sampler=bosh3', '--num=512')
    done = call(*words, f'--out={tmp_path / "whole"}')
    assert done.returncode == 0, done.stderr
    assert 'bosh3 sampler, steps of its own' in done.stdout and 'warning' not in done.stderr
    drawn = np.load(tmp_path / 'whole' / 'points.npy')
    assert np.mean(np.abs(np.hypot(*drawn.T) - 1) < 0.25) > 0.9
    done = call(*words, '--config.sampler.max_steps=3', f'--out={tmp_path / "short"}')
    assert done.returncode == 0 and 'ran out of steps before the end' in done.stderr
    assert ' 11 evaluations' in done.stdout
