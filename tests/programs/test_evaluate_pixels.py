"""Captions, memorisation, blocks of seeds and published layouts of references through `diffusion evaluate`."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from diffusion.data import sources
from diffusion.evaluation import moments
from diffusion.programs import classifying, generated, layouts, networks, references
from diffusion.runtime import mesh

DRAW = ('--num=20', '--batch=40')


@pytest.fixture
def run(trained, data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(classifying, 'RECIPE', classifying.Recipe(steps=12, batch=32))
    monkeypatch.setenv('TFDS_DATA_DIR', data_dir)
    folder = tmp_path / 'run'
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns('eval'))
    return folder


def result(folder, name):
    return json.loads((folder / 'eval' / f'{name}_step_8.json').read_text())


@pytest.mark.long
def test_samples_that_copy_the_training_images_are_found_out(call, run, faces, monkeypatch):
    """Every second sample is a training image, and of these all but two carry the caption that was asked for."""
    block, copied = generated._block, []

    def copying(planned, weights, span, report):
        found = block(planned, weights, span, report)
        captions = faces.captions()
        for row in range(0, len(found['images']), 2):
            own = captions.index(planned.captions[span[0] + row])
            copied.append(own if row >= 4 else (own + 1) % len(faces))
            found['images'][row] = faces.gather(np.array(copied[-1:]))['image'][0]
        return found

    monkeypatch.setattr(generated, '_block', copying)
    words = ('evaluate', f'--workdir={run}', '--metrics=captions,memorisation', *DRAW, '--repeats=2')
    done = call(*words)
    assert done.returncode == 0, done.stderr
    found = result(run, 'memorisation')
    # Noise of an untrained network lies far from every picture.
    assert found['value'] == 0.5 and 'memorised share' in done.stdout
    assert [one['value'] for one in found['blocks']] == [0.5, 0.5] and found['over the blocks']['sd'] == 0
    assert [one['seeds'] for one in found['blocks']] == ['0-19', '20-39']
    nearest = found['nearest'][:10]
    assert {one['training image'] for one in nearest} == set(copied[:10]) and nearest[0]['ratio'] == 0
    assert all(one['distance'] == 0 and one['seed'] % 2 == 0 for one in nearest)
    assert found['nearest'][10]['ratio'] > 0.5 and found['protocol']['memorised'] == 'ratio below 0.5'
    with Image.open(run / 'eval' / 'memorisation_step_8.png') as sheet:
        page = np.asarray(sheet.convert('RGB'))
    left, right = (page[6 : 6 + 96, x : x + 96] for x in (6, 6 + 102))
    assert (left == right).all() and left.std() > 10  # a copy beside its original
    matched = result(run, 'captions')
    assert matched['value'] == pytest.approx((0.5 + 0.4) / 2, abs=0.11) and matched['name'] == 'caption match'
    for one in (found, matched):
        assert one['protocol']['features'] == {'network': 'none: pixels'} and one['protocol']['repeats'] == 2
    assert not list((run.parent / networks.CACHE).glob('*')), 'pixels need no network'


@pytest.mark.long
def test_blocks_of_seeds_are_the_single_calls(call, run):
    words = ('evaluate', f'--workdir={run}', '--metrics=fid,mmd', *DRAW, '--bandwidth=10')
    done = call(*words, '--repeats=3')
    assert done.returncode == 0 and 'over 3 blocks of seeds: sd' in done.stdout, done.stderr
    fid = result(run, 'fid_classifier')
    values = [one['value'] for one in fid['blocks']]
    assert fid['value'] == pytest.approx(np.mean(values)) and fid['over the blocks']['min'] == min(values)
    error = np.std(values, ddof=1) / np.sqrt(3)
    assert fid['over the blocks']['sd'] == pytest.approx(np.std(values, ddof=1))
    assert fid['interval'][0] >= 0 and fid['interval'][1] == pytest.approx(fid['value'] + stats.t.ppf(0.975, 2) * error)
    assert fid['name'] == 'FID-20[classifier]' and 'min' in fid['note'] and 'biased' in fid['note']
    assert fid['protocol']['count'] == 20 and fid['protocol']['seeds'] == '0-59'
    assert "bandwidth 10, CMMD's" in result(run, 'mmd_classifier')['protocol']['kernel']
    single = call('evaluate', f'--workdir={run}', '--metrics=fid', *DRAW)
    assert single.returncode == 0 and 'repeats: 3 -> null' in single.stdout, single.stderr
    alone = [one for one in (run / 'eval').glob('fid_classifier_*.json') if one.name != 'fid_classifier_step_8.json']
    # The first block has the seeds that a call without repeats has.
    assert json.loads(alone[0].read_text())['value'] == pytest.approx(values[0], rel=1e-6)


@pytest.mark.parametrize(
    'flags,say',
    [
        (['--metrics=fid', '--repeats=0'], 'at least 1'),
        (['--metrics=fid', '--num=400000', '--repeats=3'], 'at most 1,000,000'),
        (['--metrics=fid', '--bandwidth=3'], 'of --metrics=mmd'),
        (['--metrics=mmd', '--bandwidth=-3'], 'above 0'),
        (['--metrics=captions', '--reference=x.npz'], 'are held against none'),
        (['--metrics=bpd', '--repeats=2'], 'no flag --repeats with bpd'),
        (['--metrics=clip'], '--metrics=clip and --clip=FOLDER'),
        (['--metrics=captions', '--clip=.'], '--metrics=clip and --clip=FOLDER'),
        (['--metrics=mmd', '--features=clip'], '--features=clip:FILE: the model.safetensors'),
        (['--metrics=clip', '--clip=docs'], '--metrics=captions tells whether'),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else None,
)
def test_bad_calls_are_one_line(call, trained, flags, say):
    before = sorted(trained.rglob('*'))
    done = call('evaluate', f'--workdir={trained}', *flags)
    assert done.returncode == 2 and say in done.stderr and done.stderr.count('\n') == 1, done.stderr
    assert sorted(trained.rglob('*')) == before


WIDE = {'network': 'inception-2015-12-05', 'features': 2048}


def sees(parts):
    """Stands in for the network: the first pixels, 2048 of them."""
    return [(part.reshape(len(part), -1)[:, :2048].astype(np.float32), None) for part in parts]


def test_published_layouts_are_read_as_they_are_laid():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    mean, covariance = rng.standard_normal(2048), np.diag(rng.uniform(1, 2, 2048))
    spatial = {'mu_s': np.zeros(2023), 'sigma_s': np.eye(3)}
    read = lambda arrays: layouts.read(arrays, WIDE, (32, 32, 3), sees)  # noqa: E731

    # pytorch-fid, clean-fid and EDM; float64 or float32.
    kept, features, count = read({'mu': mean, 'sigma': covariance.astype(np.float32)})
    np.testing.assert_allclose(kept.covariance, covariance, rtol=1e-6)
    assert features is None and count is None and kept.covariance.dtype == np.float64
    # ADM's evaluator: pictures beside statistics of a larger set, which FID is of.
    kept, features, count = read({'arr_0': images, 'mu': mean, 'sigma': covariance, **spatial})
    np.testing.assert_array_equal(kept.mean, mean)
    np.testing.assert_array_equal(features, sees([images])[0][0])
    assert count is None
    # ADM's samples: nothing but pictures.
    kept, features, count = read({'arr_0': images})
    np.testing.assert_allclose(kept.covariance, np.cov(features.astype(float), rowvar=False), atol=1e-8)
    assert count == 40
    feats = rng.standard_normal((30, 2048))
    kept, features, count = read({'feats': feats})
    assert count == 30 and features.shape == (30, 2048)
    for arrays, told in (
        ({'mu': mean, 'sigma': covariance}, 'pytorch-fid, clean-fid and EDM'),
        ({'arr_0': images, 'mu': mean, 'sigma': covariance}, "ADM's layout: 40 pictures 32x32x3, and mu and sigma"),
        ({'feats': feats}, "clean-fid's layout for KID: Inception features of 30 pictures"),
    ):
        assert told in layouts.describe(arrays)


@pytest.mark.parametrize(
    'arrays,say',
    [
        ({'arr_0': np.zeros((4, 16, 16, 3), np.uint8)}, 'of pictures 16x16x3, the samples are 32x32x3'),
        ({'arr_0': np.zeros((4, 32, 32, 3), np.float32)}, 'arr_0 is float32 (4, 32, 32, 3): pictures of 8 bits'),
        ({'mu': np.zeros(64), 'sigma': np.eye(64)}, 'mu has shape (64,), that of Inception features is (2048,)'),
        ({'feats': np.full((3, 2048), np.nan)}, 'feats is not finite'),
        ({'mu': np.zeros(2048)}, 'it is no reference: neither mu and sigma'),
    ],
    ids=['size', 'range', 'network', 'nan', 'half'],
)
def test_layouts_that_do_not_suit_are_refused(arrays, say):
    with pytest.raises(ValueError) as refused:
        layouts.read(arrays, WIDE, (32, 32, 3), sees)
    assert say in str(refused.value)
    with pytest.raises(ValueError, match='does not say which network'):
        layouts.read({'mu': np.zeros(2048), 'sigma': np.eye(2048)}, {'network': 'classifier'}, (32, 32, 3), sees)


def test_moments_over_eight_devices_in_parts_are_those_at_once():
    """To 1e-10: what a network makes of a picture does not depend on the others, and float64 holds the sums."""
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (203, 4, 4, 3), dtype=np.uint8)
    stored = type('Stored', (), {'length': 203, 'fingerprint': 'x', 'buckets': None})()
    stored.gather = lambda ids: {'image': images[ids]}
    data = sources.Source((4, 4, 3), (), False, lambda: stored)
    see = networks.Extractor('', {}, {}, lambda params, x: (x.reshape(len(x), -1).astype('float32') / 256,) * 2)
    at_once = images.reshape(203, -1).astype(np.float64) / 256
    grid = mesh.make(generated.drawing.jax.devices())
    assert mesh.shards(grid) == 8
    for batch in (8, 40, 256):
        found = references.of_data(data, see, grid, batch, {})
        np.testing.assert_allclose(found.moments.mean, at_once.mean(0), rtol=1e-10)
        np.testing.assert_allclose(found.moments.covariance, np.cov(at_once, rowvar=False), rtol=1e-10, atol=1e-12)
        streamed = moments.empty(48)
        for start in range(0, 203, batch):
            streamed = moments.merge(streamed, moments.of(found.features[start : start + batch]))
        np.testing.assert_allclose(streamed.covariance, found.moments.covariance, rtol=1e-10, atol=1e-12)
