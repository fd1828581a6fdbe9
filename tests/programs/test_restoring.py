"""`diffusion edit` of what is given in part: the guarantee for what is kept, what is written, and what is refused."""

import functools
import json
import re

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies
from PIL import Image

from diffusion import build
from diffusion.programs import drawing, inputs, merits, opening, restored, restoring
from diffusion.runtime import mesh, pictures
from tests import inverse

CHEAP = ('--steps=2', '--num=2')
RARE = ('replacement', 'ddnm', 'dps', 'pigdm')
SIZES = [
    *((name, (16, 16)) for name in inverse.EDITORS if name not in RARE),
    ('differential', (12, 20)),
    *(pytest.param(name, (16, 16), marks=pytest.mark.long) for name in RARE),
    pytest.param('repaint', (20, 14), marks=pytest.mark.long),
]


@pytest.fixture(scope='module')
def studio(trained):
    """(method, size) -> an artist of two pictures for masks, compiled once, and its weights."""
    config, facts = opening.read(str(trained))
    model = build.experiment(config, facts)
    params = model.network.init(jax.random.key(0))

    @functools.cache
    def artist(method, size):
        chosen = build.override(config, [f'edit.name={method}', 'sample.steps=2', 'guidance.name=none'])
        blank = np.zeros((*size, 3), np.uint8)
        wanted = restoring.masked(blank, blank.astype(np.float32), np.eye(*size, dtype=np.float32), method, 1.0, 0.0)
        grid = mesh.make(jax.devices()[:1])
        return drawing.artist(model, chosen, grid, 2, task=wanted.task), params, drawing.conditions(model, 2)

    return artist


@pytest.mark.parametrize('method,size', SIZES)
def test_what_a_mask_keeps_is_the_same_in_the_file(studio, tmp_path, method, size):
    """Pixel for pixel and always: any picture, any mask, hard or soft, any seed."""
    artist, params, cond = studio(method, size)

    @hypothesis.settings(max_examples=15, deadline=None, database=None)
    @hypothesis.given(strategies.integers(0, 2**31 - 1), strategies.floats(0.02, 0.98), strategies.booleans())
    def hold(seed, share, soft):
        rng = np.random.default_rng(seed)
        image = rng.integers(0, 256, (*size, 3), np.uint8)
        change = (rng.random(size) < share).astype(np.float32)
        change *= (rng.integers(1, 256, size) / np.float32(255)) if soft else 1
        wanted = restoring.masked(image, np.float32(image / 127.5 - 1), change, method, 1.0, np.float32(0))
        store = restored.Store(tmp_path, [seed, seed // 2], '.png', 0.9, None)
        restored.write(store, wanted, artist.about(wanted.task).draw(params, store.seeds, cond), {})
        for path in map(store.path, store.seeds):
            with Image.open(path) as file:
                result = np.asarray(file)
            assert result.shape == image.shape and np.array_equal(result[change == 0], image[change == 0])
        for row in json.loads((tmp_path / 'edit.json').read_text())['results']:
            assert row.get('outside_max', 0) == 0

    hold()


def test_the_blend_is_the_stated_one():
    before, after = np.random.default_rng(0).integers(0, 256, (2, 9, 7, 3), np.uint8)
    change = np.linspace(0, 1, 63, dtype=np.float32).reshape(9, 7)
    found = inputs.blended(before, after, change)
    exact = before + change[..., None].astype(float) * (after.astype(float) - before)
    assert np.abs(found - exact).max() <= 0.5 + 1e-9
    assert np.array_equal(found[0, 0], before[0, 0]) and np.array_equal(found[-1, -1], after[-1, -1])
    field = np.random.default_rng(1).normal(size=(2, 9, 7, 3)).astype(np.float32) * 1e6
    kept = (change < 0.5).astype(np.float32)
    assert np.array_equal(inputs.blended(field[0], field[1], 1 - kept)[kept == 1], field[0][kept == 1])


def test_merits_of_a_known_picture():
    """A ramp of 10 levels a pixel with a square of 255 in it."""
    before = np.repeat(np.arange(0, 160, 10, dtype=np.uint8)[None, :, None], 16, 0)
    change = np.zeros((16, 16))
    change[4:8, 4:8] = 1
    after = np.where(change[..., None] > 0, 255, before).astype(np.uint8)
    assert merits.outside(before, after, change) == 0
    across, along = merits.jump(after, change)
    # Left and right sides meet columns 3 and 8, top and bottom columns 4 to 7; a ramp's neighbours differ by 10 or 0.
    assert across == pytest.approx(((255 - 30) + (255 - 80) + 2 * (255 - 55)) / 4)
    rows, columns = 16 * 15 - 4 * 5, 16 * 15 - 4 * 5
    assert along == pytest.approx(10 * rows / (rows + columns))
    after[0, 0] = 7
    assert merits.outside(before, after, change) == 7
    assert merits.jump(after, np.ones((16, 16))) is None


@pytest.fixture(scope='module')
def given(tmp_path_factory, faces):
    """Files: a face as PNG, as a cut RGBA and as WebP, masks, and what is none."""
    folder = tmp_path_factory.mktemp('given')
    face = faces.gather(np.array([3]))['image'][0]
    Image.fromarray(face).save(folder / 'a.png')
    Image.fromarray(face).save(folder / 'a.webp', lossless=True)
    Image.fromarray(face[:8]).save(folder / 'half.png')
    Image.fromarray(face[:15]).save(folder / 'odd.png')
    Image.fromarray(face).convert('CMYK').save(folder / 'ink.jpg')
    Image.fromarray(np.zeros((16, 16), np.uint16)).save(folder / 'deep.png')
    mask = np.zeros((16, 16), np.uint8)
    mask[9:14, 3:13] = 255
    hidden = np.dstack([face, 255 - mask])
    Image.fromarray(hidden).save(folder / 'cut.png')
    Image.fromarray(mask).save(folder / 'mask.png')
    Image.fromarray(mask[:, :12]).save(folder / 'narrow.png')
    Image.fromarray(0 * mask).save(folder / 'black.png')
    Image.fromarray(0 * mask + 255).save(folder / 'white.png')
    (folder / 'text.png').write_text('no picture')
    return folder


def test_inpainting_a_transparent_part(call, trained, given, tmp_path):
    words = ('edit', 'inpaint', f'--workdir={trained}', f'--image={given}/cut.png', f'--out={tmp_path}', *CHEAP)
    done = call(*words, '--prompt=crying cat', '--method=replacement')
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {'0.png', '1.png', 'sheet.png', 'edit.json'}
    assert len(re.findall(r'outside the mask max \|Δ\| 0;', done.stdout)) == 2
    assert '50 pixels change, 0 change partly, 206 are kept' in done.stdout
    face, result = np.asarray(Image.open(given / 'a.png')), np.asarray(Image.open(tmp_path / '0.png'))
    mask = np.asarray(Image.open(given / 'mask.png'))
    assert np.array_equal(result[mask == 0], face[mask == 0]) and not np.array_equal(result, face)
    told = json.loads((tmp_path / 'edit.json').read_text())
    assert told['edit'] == {'name': 'replacement'} and told['prompt'] == 'crying cat'
    assert [row['seed'] for row in told['results']] == [0, 1] and told['results'][0]['outside_max'] == 0
    refused = call(*words)
    assert refused.returncode == 2 and '--overwrite' in refused.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    'flags,shape',
    [
        (['outpaint', '--image=half.png', '--bottom=8'], (16, 16)),
        (['outpaint', '--image=a.webp', '--left=2', '--top=4', '--method=ddnm'], (20, 18)),
        (['variation', '--image=a.webp', '--strength=0.5'], (16, 16)),
        (['colorize', '--image=a.png'], (16, 16)),
        (['upscale', '--image=half.png'], (16, 32)),
        (['deblur', '--image=a.png', '--method=pigdm', '--sampler=euler'], (16, 16)),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_every_action_leaves_pictures_of_its_size(call, trained, given, tmp_path, flags, shape):
    flags = [word.replace('--image=', f'--image={given}/') for word in flags]
    done = call('edit', *flags, f'--workdir={trained}', f'--out={tmp_path}', '--prompt=crying cat', *CHEAP)
    assert done.returncode == 0, done.stderr
    result = np.asarray(Image.open(tmp_path / '0.png'))
    assert result.shape == (*shape, 3)
    if flags[0] == 'outpaint':
        before = pictures.read(next(word[8:] for word in flags if word.startswith('--image=')), 3)[0]
        top, left = shape[0] - before.shape[0], shape[1] - before.shape[1]
        top = 0 if '--bottom=8' in flags else top
        assert np.array_equal(result[top : top + before.shape[0], left:], before)
    assert (tmp_path / 'sheet.png').exists() and (tmp_path / 'edit.json').exists()


INPAINT = ['inpaint', '--image=a.png', '--mask=mask.png']


@pytest.mark.parametrize(
    'flags,say',
    [
        (['inpaint', '--image=a.png', '--mask=narrow.png'], 'is 12 x 16 pixels, the picture 16 x 16'),
        (['inpaint', '--image=a.png', '--mask=black.png'], 'is empty'),
        (['inpaint', '--image=a.png', '--mask=white.png'], 'covers all'),
        (['inpaint', '--image=a.png', '--mask=text.png'], 'cannot be read as a picture'),
        (['inpaint', '--image=text.png', '--mask=mask.png'], 'cannot be read as a picture'),
        (['inpaint', '--image=a.png'], 'add --mask=FILE'),
        (['inpaint', '--image=cut.png', '--mask=mask.png'], 'leave out --mask'),
        (['inpaint', '--image=ink.jpg', '--mask=mask.png'], 'mode CMYK'),
        (['inpaint', '--image=deep.png', '--mask=mask.png'], '8 bits is wanted'),
        ([*INPAINT, '--strength=0'], 'strength 0: above 0'),
        ([*INPAINT, '--method=repant'], "did you mean 'repaint'"),
        ([*INPAINT, '--method=repaint', '--sampler=heun'], 'takes steps of its own'),
        ([*INPAINT, '--method=repaint', '--noise=2'], 'knows nothing of noise'),
        ([*INPAINT, '--truth=a.npy'], 'for runs on numbers'),
        ([*INPAINT, '--prompt=criying cat'], "unknown word 'criying'"),
        (['variation', '--image=odd.png'], 'nearest it can is 16 x 16'),
        (['variation', '--image=a.png', '--strength=1.5'], 'at most 1'),
        (['colorize', '--image=a.png', '--method=differential'], 'is for masks'),
        (['upscale', '--image=a.png', '--factor=1'], 'a whole number from 2'),
        (['outpaint', '--image=a.png'], 'pixels to add'),
        (['deblur', '--image=a.png', '--blur=0'], 'above 0'),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_and_writes_nothing(call, trained, given, tmp_path, flags, say):
    flags = [re.sub(r'=(\w+\.(png|jpg))', rf'={given}/\1', word) for word in flags]
    done = call('edit', *flags, '--out', tmp_path / 'out', '--workdir', trained)
    assert done.returncode == 2, done.stdout + done.stderr
    assert say in done.stderr and done.stderr.count('\n') == 1
    assert not (tmp_path / 'out').exists()


def test_a_model_without_text_takes_no_prompt(call, trained, given, tmp_path):
    stored = json.loads((trained / 'config.json').read_text())
    del stored['config']['text']
    stored['facts']['tokenizer'], stored['config']['guidance'] = None, {'name': 'none'}
    (tmp_path / 'config.json').write_text(json.dumps(stored))
    words = (f'--image={given}/a.png', f'--mask={given}/mask.png', '--prompt=cat', '--config.guidance.name=none')
    done = call('edit', 'inpaint', f'--workdir={tmp_path}', *words)
    assert done.returncode == 2 and 'not trained on text' in done.stderr and done.stderr.count('\n') == 1


@pytest.fixture(scope='module')
def fields(diffusion, tmp_path_factory):
    """A run of a few steps on fields of two channels, of numbers of any size, and a field with gaps."""
    folder = tmp_path_factory.mktemp('fields')
    values = 1e3 + 40 * np.random.default_rng(0).normal(size=(64, 8, 8, 2)).astype(np.float32)
    np.save(folder / 'set.npy', values)
    gaps = values[0].copy()
    gaps[2:5, 3:7] = np.nan
    np.save(folder / 'gaps.npy', gaps)
    np.save(folder / 'truth.npy', values[0])
    flags = ['data.image_size=0', 'net.width=8', 'net.multipliers=1,2', 'net.depth=1', 'train.steps=4', 'train.batch=8']
    flags = [f'--config.{flag}' for flag in (*flags, 'preview.every=0', 'preview.num=0', 'runtime.platform=cpu')]
    place = f'--config.data.path={folder}/set.npy'
    done = diffusion('train', '--config=configs/folder.py', place, *flags, f'--workdir={folder}/run')
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.long
def test_missing_values_of_a_field_get_a_posterior(call, fields, tmp_path):
    words = ('edit', 'inpaint', f'--workdir={fields}/run', f'--image={fields}/gaps.npy', f'--truth={fields}/truth.npy')
    done = call(*words, '--num=19', '--steps=2', f'--out={tmp_path}')
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / 'edit.json').read_text())
    truth, members = np.load(fields / 'truth.npy'), np.stack([np.load(tmp_path / f'{i}.npy') for i in range(19)])
    gaps = np.isnan(np.load(fields / 'gaps.npy'))
    assert members.dtype == np.float32
    assert np.array_equal(members[:, ~gaps], np.broadcast_to(truth[~gaps], (19, (~gaps).sum())))
    low, high = np.load(tmp_path / 'low.npy'), np.load(tmp_path / 'high.npy')
    np.testing.assert_allclose([low, high], [members.min(0), members.max(0)], rtol=1e-6)
    np.testing.assert_allclose(np.load(tmp_path / 'spread.npy'), members.std(0, ddof=1), rtol=1e-4, atol=1e-4)
    share = np.mean((low <= truth)[gaps] & (truth <= high)[gaps])
    assert told['coverage'] == pytest.approx(share) and f'covers {share:.1%}' in done.stdout
    refused = call('edit', 'inpaint', f'--workdir={fields}/run', f'--image={fields}/truth.npy', f'--out={tmp_path}/new')
    assert refused.returncode == 2 and 'has no gaps' in refused.stderr
