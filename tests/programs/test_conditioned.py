"""Training for editing: from another run's weights, with a picture as a condition, and what is then done with it."""

import dataclasses
import json
import types

import jax
import numpy as np
import pytest
from PIL import Image

from diffusion import build
from diffusion.data import tokens
from diffusion.programs import beginning, workdir
from diffusion.runtime import mesh, state
from tests.programs import conftest

CONFIG = '--config=configs/emoji_inpaint.py'
UNET = ('net.width=8', 'net.multipliers=1,2', 'net.text_width=8', 'net.cross_attention=1')
DIT = ('net.name=DiT', 'net.patch=4', 'net.width=16', 'net.depth=2', 'net.heads=2')
SMALL = ('runtime.platform=cpu', 'train.batch=16', 'init_from.path=', 'preview.match=0', 'preview.num=4')
FINE = tuple(word for word in conftest.TINY if 'configs/' not in word and 'match' not in word)


def experiment(data_dir, *words):
    config = build.resolve('configs/emoji_inpaint.py', [*SMALL, f'data.data_dir={data_dir}', *words])
    return build.experiment(config, build.facts(config, build.source(config)))


def stirred(params):
    """Parameters none of which is zero, so that nothing hides behind a zero."""
    noise = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: leaf + 0.1 * noise.standard_normal(leaf.shape).astype(np.float32), params)


@pytest.mark.parametrize('net', [UNET, DIT], ids=['UNet', 'DiT'])
def test_new_channels_change_nothing_at_first(net, data_dir, monkeypatch):
    monkeypatch.chdir(conftest.ROOT)
    run = experiment(data_dir, *net)
    config = {name: values for name, values in run.config.items() if name != 'conditioning'}
    base = build.experiment(config, run.facts)
    weights = stirred(base.network.init(jax.random.key(0)))
    grid = mesh.make(jax.devices()[:2])
    target = state.abstract(grid, run.network.init, run.optimizer, run.memory, run.ema)
    begun = state.create(target, run.network.init, run.optimizer, 0, run.memory, run.ema, weights)
    new = {
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(begun.params)
        if not np.any(leaf)
    }
    assert new == {"['picture']['kernel']"}
    random = np.random.default_rng(1)
    x, sigma = random.standard_normal((4, 16, 16, 3)).astype(np.float32), np.geomspace(0.01, 50, 4, dtype=np.float32)
    cond = {name: np.stack([np.asarray(value)] * 4) for name, value in run.null.items()}
    picture = run.conditioning.pictures(jax.random.split(jax.random.key(1), 4), np.clip(x, -1, 1))
    before = jax.jit(base.denoiser)(weights, x, sigma, cond)
    for params in (begun.params, begun.ema['ema']):
        for told in ({}, {'picture': picture}):
            np.testing.assert_array_equal(
                jax.jit(run.denoiser)(jax.device_get(params), x, sigma, {**cond, **told}), before
            )
    changed = stirred(jax.device_get(begun.params))
    one, two = (jax.jit(run.denoiser)(changed, x, sigma, {**cond, 'picture': value}) for value in (picture, -picture))
    assert np.abs(one - two).max() > 1e-3


@pytest.fixture(scope='module')
def tuned(diffusion, trained, tmp_path_factory):
    """A few steps from the weights of the tiny run."""
    folder = tmp_path_factory.mktemp('tuned') / 'run'
    done = diffusion('train', CONFIG, *FINE, *from_(trained), f'--workdir={folder}')
    assert done.returncode == 0, done.stderr
    assert f'begins from the ema weights of step 8 of {trained}' in done.stderr
    assert '1 new ones begin at zero' in done.stderr
    assert 'adherence to the conditions: agreement' in done.stderr
    return folder


def from_(folder):
    return (f'--config.init_from.path={folder}', '--config.preview.match=0')


@pytest.mark.long
def test_adherence_is_measured_of_the_sheet(tuned):
    rows = [json.loads(line) for line in (tuned / 'metrics.jsonl').read_text().splitlines()]
    found = [row for row in rows if 'adherence_agreement' in row]
    assert [row['step'] for row in found] == [8] and 0 <= found[0]['adherence_agreement'] <= 1
    assert 0 < found[0]['adherence_colour'] < 255
    told = json.loads((tuned / beginning.FILE).read_text())
    assert told['weights'] == 'ema' and told['step'] == 8 and len(told['mark']) == 16


@pytest.mark.long
def test_a_run_goes_on_without_its_base(call, tuned):
    """Only a run that begins looks at what it begins from."""
    words = [word for word in FINE if 'train.steps' not in word]
    words += ['--config.preview.num=0', '--config.train.steps=8', '--allow-config-change=init_from.path,preview.num']
    done = call('train', CONFIG, *words, *from_('/not/there'), f'--workdir={tuned}')
    assert done.returncode == 0 and 'has 8 steps already' in done.stdout


@pytest.mark.parametrize(
    'words,say',
    [
        (['--config.net.width=16'], 'config.net.width is 16 here and 8 in'),
        (['--config.net.name=DiT', '--config.net.heads=2'], "config.net.name is 'DiT' here and 'UNet' in"),
        (['--config.precond.sigma_data=0.5'], 'its network predicts something else'),
        (['--config.data.subset=all'], 'a caption is not in the words of'),
        (['--config.train.labels=True'], 'the classes of this run are not those of'),
        (['--config.init_from.step=3'], 'no checkpoint of step 3: there are 4, 8'),
        (['--config.init_from.weights=best'], 'invalid choice'),
        (['--config.init_from.path=nowhere'], "there is no workdir 'nowhere'"),
        (['--config.conditioning.name=SuperResolution', '--config.conditioning.factor=3'], 'do not divide by factor=3'),
        (['--config.conditioning.name=Edge'], "did you mean 'Edges'"),
        (['--config.conditioning.full=0', '--config.preview.match=3'], 'set match=0'),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else None,
)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(call, trained, tmp_path, data_dir, words, say):
    told = [word for word in FINE if not any(word.split('=')[0] == other.split('=')[0] for other in words)]
    if any('DiT' in word for word in words):
        told = [word for word in told if 'multipliers' not in word]
    told += [f'--config.data.data_dir={data_dir}', *from_(trained)]
    done = call('train', CONFIG, *told, *words, f'--workdir={tmp_path / "run"}')
    assert done.returncode == 2, done.stdout + done.stderr
    assert say in done.stderr and done.stderr.count('\n') == 1
    assert not (tmp_path / 'run' / 'config.json').exists()


def test_words_that_the_base_knows_keep_their_numbers(trained):
    config, facts = workdir.read(trained)
    config['init_from']['path'] = str(trained)
    few = tokens.words(['crying cat', 'nerd face'])
    other = dataclasses.replace(facts, tokenizer=few)
    captions = types.SimpleNamespace(captions=lambda: ['crying cat', 'nerd face'])
    assert beginning.words(config, other, captions, None) == facts
    assert beginning.words(config, other, captions, facts) == facts
    with pytest.raises(ValueError, match="a caption is not in the words of .* unknown word 'purple'"):
        beginning.words(config, other, types.SimpleNamespace(captions=lambda: ['purple cat']), None)


def test_a_checkpoint_can_be_named_by_its_folder(trained, data_dir):
    found = beginning.base({'init_from': {'path': f'{trained}/checkpoints/4', 'weights': 'raw', 'step': 0}})
    assert (found.folder, found.step, found.weights) == (str(trained), 4, 'raw')


@pytest.mark.long
def test_inpainting_keeps_the_rest_pixel_for_pixel(call, tuned, faces, tmp_path):
    before = faces.gather(np.array([3]))['image'][0]
    Image.fromarray(before).save(tmp_path / 'face.png')
    mask = np.zeros((16, 16), np.uint8)
    mask[8:14, 3:12] = 255
    Image.fromarray(mask).save(tmp_path / 'mask.png')
    words = ('edit', 'inpaint', f'--workdir={tuned}', f'--image={tmp_path}/face.png', f'--mask={tmp_path}/mask.png')
    done = call(*words, '--num=2', '--prompt=cat', f'--out={tmp_path / "out"}')
    assert done.returncode == 0, done.stderr
    assert 'conditioned with heun' in done.stdout and 'outside the mask max |Δ| 0' in done.stdout
    after = np.asarray(Image.open(tmp_path / 'out' / '0.png'))
    np.testing.assert_array_equal(after[mask == 0], before[mask == 0])
    done = call(*words, '--method=replacement', '--num=1', f'--out={tmp_path / "two"}')
    assert done.returncode == 0 and 'replacement' in done.stdout
    done = call('edit', 'upscale', f'--workdir={tuned}', f'--image={tmp_path}/face.png', '--method=conditioned')
    assert done.returncode == 2 and 'was trained with Inpaint, for edit inpaint, outpaint' in done.stderr


@pytest.mark.long
def test_sampling_tells_examples_of_the_data(call, tuned, data_dir, tmp_path):
    words = ('sample', f'--workdir={tuned}', '--num=3', f'--config.data.data_dir={data_dir}')
    done = call(*words, f'--out={tmp_path / "out"}')
    assert done.returncode == 0, done.stderr
    assert 'told pictures of 3 of 137 examples, by Inpaint' in done.stdout and 'agreement' in done.stdout
    drawn = {path.name: path.read_bytes() for path in (tmp_path / 'out').glob('*.png')}
    done = call(*words[:2], '--seeds=2', words[-1], f'--out={tmp_path / "one"}')
    assert done.returncode == 0 and (tmp_path / 'one' / '2.png').read_bytes() == drawn['2.png']


def test_a_plain_model_has_no_condition_to_be_used(call, trained, tmp_path):
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / 'face.png')
    for action, flags in (('trace', ()), ('upscale', ('--method=conditioned',))):
        done = call('edit', action, f'--workdir={trained}', f'--image={tmp_path}/face.png', *flags)
        assert done.returncode == 2 and 'this model was not trained for it' in done.stderr, done.stderr


@pytest.mark.long
@pytest.mark.parametrize('name,action', [('SuperResolution', 'upscale'), ('Edges', 'trace')])
def test_other_conditions_are_trained_and_used(call, data_dir, faces, tmp_path, name, action):
    words = [word for word in FINE if 'train.steps' not in word]
    conditions = (f'--config.conditioning.name={name}', '--config.conditioning.dropout=0', '--config.init_from.path=')
    folder = tmp_path / 'run'
    words += [*conditions, '--config.train.steps=4', f'--config.data.data_dir={data_dir}']
    done = call('train', CONFIG, *words, f'--workdir={folder}')
    assert done.returncode == 0 and 'adherence to the conditions' in done.stderr, done.stderr
    image = faces.gather(np.array([3]))['image'][0]
    Image.fromarray(image[::2, ::2] if action == 'upscale' else image).save(tmp_path / 'face.png')
    done = call(
        'edit', action, f'--workdir={folder}', f'--image={tmp_path}/face.png', '--num=1', f'--out={tmp_path / "out"}'
    )
    assert done.returncode == 0 and 'conditioned with' in done.stdout, done.stderr
    assert np.asarray(Image.open(tmp_path / 'out' / '0.png')).shape == (16, 16, 3)
    refused = call('edit', 'variation', f'--workdir={folder}', f'--image={tmp_path}/out/0.png', f'--out={tmp_path}/two')
    assert refused.returncode == 2 and 'never trained without its condition' in refused.stderr


def test_data_check_shows_conditions(call, data_dir, tmp_path):
    done = call('data', 'check', CONFIG, f'--config.data.data_dir={data_dir}', f'--out={tmp_path}')
    assert done.returncode == 0, done.stderr
    page = np.asarray(Image.open(tmp_path / 'conditioning.png'))
    assert page.ndim == 3 and page.shape[1] >= 8 * 96
