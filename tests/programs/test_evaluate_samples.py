"""`diffusion evaluate` of samples: results with their protocol, references, and what is refused."""

import dataclasses
import json

import numpy as np
import pytest

from diffusion.data import sources
from diffusion.evaluation import tensorfile
from diffusion.nets import dinov2, functional, safetensors
from diffusion.programs import classifying, fetching, generated, networks
from tests.nets import test_dinov2

# Enough to compile and to be whole, no more.
SHORT = classifying.Recipe(steps=12, batch=32)
DRAW = ('--num=40', '--batch=40')


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(classifying, 'RECIPE', SHORT)


def results(folder, step=8):
    return {
        path.name: json.loads(path.read_text()) for path in (folder / 'eval').glob(f'*_classifier_step_{step}.json')
    }


def test_samples_are_measured_with_their_protocol(call, trained, data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv('TFDS_DATA_DIR', data_dir)
    words = ('evaluate', f'--workdir={trained}', '--metrics=fid,kid,is,prdc,mmd', *DRAW)
    done = call(*words)
    assert done.returncode == 0, done.stderr
    found = results(trained)
    names = {'fid', 'kid', 'is', 'mmd', 'precision', 'recall', 'density', 'coverage'}
    assert set(found) == {f'{name}_classifier_step_8.json' for name in names}
    fid = found['fid_classifier_step_8.json']
    assert fid['name'] == 'FID-40[classifier]' and 'biased' in fid['note'] and 'FID-40[classifier]' in done.stdout
    assert all('[classifier]' in one['name'] for one in found.values())
    low, high = fid['interval']
    assert low < fid['value'] < high and fid['error']['method'] == 'bootstrap of the samples, log-normal' and low > 0
    asked = fid['protocol']
    assert asked['count'] == 40 and asked['seeds'] == '0-39' and asked['weights'] == 'ema'
    assert asked['nfe'] == 5 and asked['steps'] == 3 and asked['sampler']['name'] == 'heun'
    assert asked['reference']['count'] == 137 and asked['guidance']['scale'] == 2.0
    assert len(fid['protocol_hash']) == 16 and len(asked['features']['sha256']) == 64

    # One classifier for all runs beside each other; the same call gives the same numbers.
    (stored,) = (trained.parent / networks.CACHE).glob('classifier-*.safetensors')
    assert tensorfile.read(stored)[2] == asked['features']['sha256']
    written = {path: path.stat().st_mtime_ns for path in (trained / 'eval').iterdir()}
    repeated = call(*words)
    assert repeated.returncode == 0 and 'measured before, --overwrite measures again' in repeated.stdout
    assert {path: path.stat().st_mtime_ns for path in (trained / 'eval').iterdir()} == written
    again = call(*words, '--overwrite')
    assert again.returncode == 0 and results(trained) == found and 'not to be compared' not in again.stdout

    # A stored reference of the same pictures gives the same number, and the protocol tells how it was made.
    reference = tmp_path / 'ref.npz'
    made = call('evaluate', 'stats', 'tfds:emoji/faces_16', '-o', reference, f'--features=classifier:{stored}')
    assert made.returncode == 0 and '137 pictures' in made.stdout, made.stderr
    against = (*words[:2], '--metrics=fid,is', *DRAW, f'--reference={reference}')
    other = call(*against)
    assert other.returncode == 0, other.stderr
    # It has a file of its own: the result by the other protocol stays.
    assert results(trained)['fid_classifier_step_8.json'] == fid
    (apart,) = (trained / 'eval').glob('fid_classifier_?*_step_8.json')
    value = json.loads(apart.read_text())
    assert value['value'] == pytest.approx(fid['value'], rel=1e-6)
    assert value['protocol_hash'] != fid['protocol_hash']

    steps = call(*words[:2], '--metrics=is', *DRAW, '--steps=2', '--step=4', '--guidance=1')
    assert steps.returncode == 0, steps.stderr
    assert 'sample.steps' not in steps.stderr and 'steps: 3 -> 2' in steps.stdout and 'nfe: 5 -> 3' in steps.stdout
    assert 'guidance.scale: 2.0 -> 1.0' in steps.stdout and 'is_classifier_step_8.json' in steps.stdout

    _check_refused_references(call, trained, reference, stored, tmp_path)


def _check_refused_references(call, trained, reference, stored, folder):
    """References of another size, network or making, or damaged: one line, nothing written."""
    before = results(trained)
    with np.load(reference) as archive:
        kept = {name: archive[name] for name in archive.files}
    about = json.loads(str(kept['about']))

    def changed(name, **parts):
        np.savez(folder / name, **{**kept, **parts})
        return folder / name

    def told(part, key, value):
        return np.array(json.dumps({**about, part: {**about[part], key: value}}))

    spoilt = kept['features'].copy()
    spoilt[0, 0] = np.nan
    (folder / 'cut.npz').write_bytes(reference.read_bytes()[:5000])
    np.savez(folder / 'foreign.npz', mu=np.zeros(64), sigma=np.eye(64))
    np.savez(folder / 'wide.npz', mu=np.zeros(2048), sigma=np.zeros((2048, 2048), np.float32))
    for path, say in (
        (
            changed('size.npz', about=told('reference', 'shape', [32, 32, 3])),
            'of pictures 32x32x3, the samples are 16x16x3',
        ),
        (changed('net.npz', about=told('network', 'sha256', '0' * 64)), 'of another sha256'),
        (changed('nan.npz', features=spoilt), 'does not hold the finite features'),
        (changed('few.npz', features=kept['features'][:9]), 'does not hold'),
        (changed('odd.npz', about=np.array('{')), 'cannot be read'),
        (folder / 'cut.npz', 'damaged'),
        (folder / 'foreign.npz', 'does not say which network'),
        (folder / 'wide.npz', 'does not say which network'),
        (folder / 'none.npz', 'is not there: diffusion evaluate stats'),
        (stored, 'damaged or no .npz'),
    ):
        done = call('evaluate', f'--workdir={trained}', '--metrics=fid', '--overwrite', *DRAW, f'--reference={path}')
        assert done.returncode == 2 and say in done.stderr and done.stderr.count('\n') == 1, done.stderr
    assert results(trained) == before
    refused = call('evaluate', 'stats', 'tfds:emoji/faces_16', '-o', reference, f'--features=classifier:{stored}')
    assert refused.returncode == 2 and '--overwrite' in refused.stderr


@pytest.mark.parametrize(
    'flags,say',
    [
        (['--metrics=kid', '--num=19'], 'kid needs at least 20 samples'),
        (['--metrics=fid_inf', '--num=99'], 'fid_inf needs at least 100'),
        (['--metrics=fid', '--num=0'], 'at least 2'),
        (['--metrics=fid', '--seed=3000'], 'it lies in'),
        (['--metrics=fid', '--features=dino'], 'one of classifier, inception'),
        (['--metrics=fid', '--features=inception'], 'sha256 6726825d'),
        (['--metrics=fid', '--features=inception:nowhere.pth'], '--features=classifier needs no download'),
        (['--metrics=fid', '--features=inception:README.md'], 'neither a .safetensors'),
        (['--metrics=fid', '--features=classifier:nowhere'], 'there is no classifier'),
        (['--metrics=fid', '--features=classifier:README.md'], 'neither a .safetensors'),
        (['--metrics=fid', '--features-sha256=00'], 'is of published weights'),
        (['--metrics=fid', '--steps=0'], 'at least 1'),
        (['--metrics=fid', '--sampler=hunn'], 'heun'),
        (['--metrics=fid', '--config.process.sigma_max=9'], 'fixed by the training'),
        (['--metrics=bpd', '--guidance=2'], 'no flag --guidance with bpd'),
        (['--metrics=bpd', '--features=inception'], 'no flag --features with bpd'),
        (['--metrics=bpd', '--features-sha256=00'], 'no flag --features-sha256 with bpd'),
        (['--metrics=fid', '--resize=clean'], 'is of --features=inception'),
        (['--metrics=fid', '--features=dinov2'], 'diffusion evaluate fetch dinov2-l'),
        (['--metrics=fid', '--features=dinov2-s'], 'sha256 b938bf1b'),
        (['stats'], 'SOURCE'),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_and_writes_nothing(call, trained, data_dir, monkeypatch, tmp_path, flags, say):
    monkeypatch.setenv('HOME', str(tmp_path))
    before = sorted(trained.rglob('*'))
    words = flags if flags[0] == 'stats' else [f'--workdir={trained}', *flags]
    done = call('evaluate', *words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert say in done.stderr and done.stderr.count('\n') == 1
    assert sorted(trained.rglob('*')) == before


def test_weights_with_another_hash_are_refused_before_they_are_used(tmp_path):
    path = tmp_path / 'x.safetensors'
    path.write_bytes(safetensors.packed({'fc.weight': np.zeros((2, 2), np.float32)}, {}))
    mark = tensorfile.read(path)[2]
    args = dataclasses.make_dataclass('Args', ['features', 'features_sha256', 'resize'])
    with pytest.raises(ValueError, match=f'sha256 {mark}, not {fetching.FILES["inception"].sha256}'):
        networks.open(args(f'inception:{path}', None, None), 3, None, '')
    with pytest.raises(ValueError, match='is missing'):
        networks.open(args(f'inception:{path}', mark[:10], None), 3, None, '')
    with pytest.raises(ValueError, match='have 4 channels'):
        networks.open(args(f'inception:{path}', mark[:10], None), 4, None, '')


def test_networks_are_named_by_what_they_are(tmp_path, monkeypatch):
    """Published weights, seen as FID means it, have no qualifier; any other network, file or resizing has one."""
    path = tmp_path / 'x.safetensors'
    path.write_bytes(safetensors.packed({'x': np.zeros(2, np.float32)}, {}))
    mark = tensorfile.read(path)[2]
    monkeypatch.setattr(networks.inception, 'parameters', lambda tensors: {})
    args = dataclasses.make_dataclass('Args', ['features', 'features_sha256', 'resize'])
    made = {how: networks.open(args(f'inception:{path}', mark, how), 3, None, '') for how in (None, 'tf1', 'clean')}
    assert made[None].label == made['tf1'].label == f'inception-{mark[:8]}' and made[None].told == made['tf1'].told
    assert made['clean'].label == f'inception-{mark[:8]}-clean' and 'antialias' in made['clean'].told['resize']
    known = dataclasses.replace(fetching.FILES['inception'], sha256=mark)
    monkeypatch.setitem(fetching.FILES, 'inception', known)
    assert networks.open(args(f'inception:{path}', None, None), 3, None, '').label == ''
    assert networks.open(args(f'inception:{path}', None, 'clean'), 3, None, '').label == 'clean'


def test_dinov2_sees_pictures_of_any_size_and_tells_no_classes(tmp_path):
    rng = np.random.default_rng(0)
    zeros = test_dinov2.published(width=64, depth=1, hidden=96, side=3)
    tensors = {name: rng.standard_normal(value.shape).astype(np.float32) for name, value in zeros.items()}
    path = tmp_path / 'dino.safetensors'
    path.write_bytes(safetensors.packed(tensors, {}))
    mark = tensorfile.read(path)[2]
    args = dataclasses.make_dataclass('Args', ['features', 'features_sha256', 'resize'])
    with pytest.raises(ValueError, match=f'sha256 {mark}, not b938bf1b.* or 0b8b82f8'):
        networks.open(args(f'dinov2:{path}', None, None), 3, None, '')
    seen = networks.open(args(f'dinov2:{path}', mark, None), 1, None, '')
    assert seen.label == f'dinov2-{mark[:8]}' and seen.told['depth'] == 1 and not seen.classes
    images = rng.integers(0, 256, (3, 20, 30, 1), dtype=np.uint8)
    features, logits = seen.apply(seen.params, images)
    sizes = dinov2.shape(tensors)
    network = functional.functional(lambda rngs: dinov2.DINOv2(**sizes, rngs=rngs))
    direct = network.apply(dinov2.parameters(tensors, **sizes), dinov2.seen(np.repeat(images, 3, -1)))
    np.testing.assert_allclose(features, direct, rtol=1e-4, atol=1e-4)
    assert features.shape == (3, 64) and logits.shape == (3, 0)
    path.write_bytes(path.read_bytes() + b'x')
    with pytest.raises(ValueError, match='damaged or other weights'):
        networks.open(args(f'dinov2:{path}', mark, None), 3, None, '')


def test_samples_that_are_not_finite_are_an_error(call, trained, data_dir, monkeypatch):
    monkeypatch.setenv('TFDS_DATA_DIR', data_dir)
    before = results(trained)
    draw = generated.drawing.Artist.draw

    def broken(self, *args):
        for drawn in draw(self, *args):
            yield drawn._replace(finished=np.arange(len(drawn.x)) != 3)

    monkeypatch.setattr(generated.drawing.Artist, 'draw', broken)
    done = call('evaluate', f'--workdir={trained}', '--metrics=fid', *DRAW, '--seed=1')
    assert done.returncode == 2 and '1 of 40 samples (seed 1000003 is the first) are not finite' in done.stderr
    assert results(trained) == before


def test_numbers_are_no_pictures(call, points):
    done = call('evaluate', f'--workdir={points}', '--metrics=fid')
    assert done.returncode == 2 and 'are of pictures' in done.stderr


@pytest.mark.long
def test_the_classifier_learns_its_set():
    """Two classes that a glance tells apart: bright above, or bright below."""
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=200).astype(np.int32)
    images = rng.integers(0, 60, (200, 8, 8, 3)).astype(np.uint8)
    for image, label in zip(images, labels):
        image[:4] += np.uint8(120 * label)
        image[4:] += np.uint8(120 * (1 - label))
    stored = dataclasses.make_dataclass('Stored', ['length', 'fingerprint', 'gather', 'buckets'])
    kept = stored(200, 'x' * 32, lambda ids: {'image': images[ids], 'label': labels[ids]}, None)
    data = sources.Source((8, 8, 3), ('up', 'down'), False, lambda: kept)
    params, told = classifying.train(data, dataclasses.replace(SHORT, steps=40))
    assert told['accuracy'] == '1.0000 of 20'
    features, logits = classifying.network(8, 3, 2).apply(params, classifying.unit(images[:50]))
    assert features.shape == (50, 64) and (np.asarray(logits).argmax(1) == labels[:50]).mean() > 0.95
