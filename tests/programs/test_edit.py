import itertools
import re

import numpy as np
import pytest
from PIL import Image

CHEAP = ('--rtol=1e-4', '--atol=1e-4')


@pytest.fixture(scope='module')
def two(tmp_path_factory, faces):
    """Two of the faces as files."""
    folder = tmp_path_factory.mktemp('pictures')
    images = faces.gather(np.array([3, 90]))['image']
    for name, image in zip('ab', images):
        Image.fromarray(image).save(folder / f'{name}.png')
    Image.fromarray(images[0]).resize((24, 20)).save(folder / 'large.png')
    (folder / 'text.png').write_text('no picture')
    return folder


def picture(path):
    return np.asarray(Image.open(path))


@pytest.mark.long
def test_interpolation_begins_and_ends_with_the_pictures(call, trained, two, tmp_path):
    words = ('edit', 'interpolate', f'--workdir={trained}', f'--image={two}/a.png', f'--image={two}/b.png', *CHEAP)
    done = call(*words, '--num=8', '--prompt=crying cat', f'--out={tmp_path / "out"}')
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (tmp_path / 'out').iterdir())
    assert names == [*(f'{i}.png' for i in range(8)), 'edit.json', 'grid.png']
    frames = [picture(tmp_path / 'out' / f'{i}.png').astype(int) for i in range(8)]
    for frame, end in ((frames[0], 'a'), (frames[-1], 'b')):
        assert np.abs(frame - picture(two / f'{end}.png')).max() <= 2
    assert min(np.abs(a - b).max() for a, b in itertools.pairwise(frames)) > 5
    assert len(re.findall(r'round trip ([5-9]\d|1\d\d)\.\d dB', done.stdout)) == 2


@pytest.mark.long
def test_inversion_leads_back(call, trained, two, tmp_path):
    images = (f'--image={two}/a.png', f'--image={two}/b.png')
    words = ('edit', 'invert', f'--workdir={trained}', *images, '--prompt=crying cat', *CHEAP)
    done = call(*words, f'--out={tmp_path}')
    assert done.returncode == 0, done.stderr
    code = np.load(tmp_path / 'a_code.npy')
    assert code.shape == (16, 16, 3) and code.dtype == np.float32 and 0.2 < code.std() < 2
    restored = picture(tmp_path / 'a_reconstruction.png').astype(int)
    assert np.abs(restored - picture(two / 'a.png')).max() <= 2
    assert min(float(psnr) for psnr in re.findall(r'round trip ([\d.]+) dB', done.stdout)) > 50
    refused = call(*words, f'--out={tmp_path}')
    assert refused.returncode == 2 and '--overwrite' in refused.stderr
    done = call(*words, '--guidance=3', '--overwrite', '--new-prompt=cat', '--strength=0.7', f'--out={tmp_path}')
    assert done.returncode == 0 and 'guidance 3' in done.stdout
    assert {'a_edited.png', 'sheet.png', 'edit.json'} <= {path.name for path in tmp_path.iterdir()}
    assert np.abs(np.load(tmp_path / 'a_code.npy') - code).max() > 1e-3


@pytest.mark.parametrize(
    'flags,say',
    [
        (['interpolate', '--image=a.png'], 'needs two pictures, not 1'),
        (['interpolate', '--image=a.png', '--image=b.png', '--num=1'], 'at least 2'),
        (['interpolate', '--image=a.png', '--image=large.png'], 'is 24 x 20 pixels, this model draws 16 x 16'),
        (['invert', '--image=nothing.png'], 'there is no picture'),
        (['invert', '--image=text.png'], 'cannot be read as a picture'),
        (['invert', '--image=a.png', '--image=a.png'], 'the same name'),
        (['invert', '--image=a.png', '--strength=0'], 'strength 0: above 0'),
        (['invert', '--image=a.png', '--new-prompt=criying cat'], "unknown word 'criying'"),
        (['invert', '--image=a.png', '--label=cat'], 'not trained on classes'),
        (['invert', '--image=a.png', '--prompt=criying cat'], "unknown word 'criying'"),
        (['invert', '--image=a.png', '--guidance=strong'], 'a float is wanted'),
        (['invert', '--image=a.png', '--step=5'], 'there are 4, 8'),
        (['invert', '--image=a.png', '--atol=0'], 'tolerances are above 0'),
        (['invert', '--image=a.png', '--config.sampler.name=heun'], 'choose in: runtime'),
        (['invert'], '--image'),
        (['inverse', '--image=a.png'], "no action 'inverse': did you mean 'invert'"),
        ([], 'action'),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_and_writes_nothing(call, trained, two, tmp_path, flags, say):
    flags = [word.replace('--image=', f'--image={two}/') for word in flags]
    done = call('edit', *flags, *(['--out', tmp_path / 'out', '--workdir', trained] if len(flags) else []))
    assert done.returncode == 2, done.stdout + done.stderr
    assert say in done.stderr and done.stderr.count('\n') == 1
    assert not (tmp_path / 'out').exists()


def test_points_are_not_edited(call, points, two):
    done = call('edit', 'invert', f'--workdir={points}', f'--image={two}/a.png')
    assert done.returncode == 2 and 'points' in done.stderr
