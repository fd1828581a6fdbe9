"""A training on pictures of several shapes: compiled for each before the first step, one shape a batch."""

import io
import json

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from diffusion import build
from diffusion import config as configs
from diffusion.data import sources
from tests.programs import conftest

SIZES = ((40, 40), (30, 62), (64, 28), (33, 60))


class FourShapes(tfds.core.GeneratorBasedBuilder):
    """Drawings of a gradient in four shapes, one much more often than the others."""

    url_infos = None  # see `emoji_dataset`
    VERSION = tfds.core.Version('1.0.0')
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name='mixed', description='four shapes'),)

    def _info(self):
        features = {'image': tfds.features.Image(shape=(None, None, 3), encoding_format='png')}
        features['label'] = tfds.features.ClassLabel(names=['even', 'odd'])
        features = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, description='four shapes', features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {'train': self._generate_examples()}

    def _generate_examples(self):
        for i in range(40):
            height, width = SIZES[0 if i % 2 else i // 2 % 4]
            image = np.zeros((height, width, 3), np.uint8)
            image[..., 0], image[..., 1] = np.linspace(0, 255, width), np.linspace(0, 255, height)[:, None]
            image[..., 2] = i
            png = io.BytesIO()
            PIL.Image.fromarray(image).save(png, format='PNG')
            yield i, {'image': png.getvalue(), 'label': i % 2}


SMALL = (
    '--config.data.dataset=four_shapes/mixed',
    '--config.data.image_size=32',
    '--config.data.buckets=3',
    '--config.data.multiple=8',
    '--config.augment.name=flip',
    '--config.net.name=PointNet',
    '--config.net.width=8',
    '--config.net.depth=1',
    '--config.net.dtype=float32',
    '--config.train.steps=8',
    '--config.train.batch=4',
    '--config.train.labels=true',
    '--config.train.cond_dropout=0',
    '--config.train.log_every=1',
    '--config.sampler.name=euler',
    '--config.sample.steps=2',
    '--config.sample.batch=4',
    '--config.preview.every=0',
    '--config.preview.num=0',
    '--config.runtime.platform=cpu',
    '--config.runtime.devices=2',
)


BIG = ('net.name=DiT', 'net.patch=16', 'net.heads=2')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Where the set is prepared."""
    made = tmp_path_factory.mktemp('four')
    builder = FourShapes(data_dir=str(made), config='mixed', file_format='array_record')
    config = tfds.download.DownloadConfig(try_download_gcs=False, compute_stats=tfds.download.ComputeStatsMode.SKIP)
    builder.download_and_prepare(download_config=config)
    return made


def test_a_set_of_several_shapes_is_read_in_buckets(folder):
    source = sources.tfds('four_shapes/mixed', image_size=32, data_dir=str(folder), buckets=3, multiple=8)
    found = source.buckets
    assert found.sizes == ((24, 40), (32, 32), (40, 24)) and found.commonest == (32, 32)
    assert [len(ids) for ids in found.members] == [10, 25, 5]
    for bucket, (height, width) in enumerate(found.sizes):
        batch = source.gather(found.members[bucket], (height, width))
        assert batch['image'].shape == (len(found.members[bucket]), height, width, 3)
        # Red rises from left to right and green downwards over the whole picture, of which a centred part is kept.
        red, green = batch['image'][:, height // 2, :, 0].astype(int), batch['image'][:, :, width // 2, 1].astype(int)
        for shade in (red, green):
            assert np.all(np.diff(shade) > 0) and np.all(np.abs(shade[:, 0] + shade[:, -1] - 255) < 10)
        np.testing.assert_array_equal(batch['image'][..., 2].max((1, 2)), found.members[bucket])
        np.testing.assert_array_equal(batch['label'], found.members[bucket] % 2)
    assert source.gather(np.arange(40))['image'].shape == (40, 32, 32, 3)
    plain = sources.tfds('four_shapes/mixed', image_size=32, data_dir=str(folder))
    assert plain.buckets is None and plain.fingerprint != source.fingerprint
    two = sources.tfds('four_shapes/mixed', image_size=32, data_dir=str(folder), buckets=2, multiple=8)
    assert len(two.buckets.sizes) == 2 and two.fingerprint != source.fingerprint


def test_a_network_that_cannot_take_every_shape_is_refused(folder):
    words = [word.removeprefix('--config.') for word in SMALL]
    where = f'data.data_dir={folder}'
    config = build.resolve(str(conftest.ROOT / 'configs/cifar10_edm.py'), [*words, where, *BIG])
    with pytest.raises(configs.ConfigError, match='net does not fit the data: images of 24 x 40'):
        build.experiment(config, build.facts(config, build.source(config)))


@pytest.mark.long
def test_it_trains_on_all_shapes_and_draws_any(call, folder, tmp_path):
    run = tmp_path / 'run'
    place = ('--config=configs/cifar10_edm.py', f'--config.data.data_dir={folder}', f'--workdir={run}')
    done = call('train', *place, *SMALL)
    assert done.returncode == 0, done.stderr
    assert 'compiled the training step for 3 sizes' in done.stderr and '40 examples of 3 sizes' in done.stderr
    # Five of 30 x 62 and five of 33 x 60, where 24 x 40 has the ratio 0.6.
    cut = 1 - (30 / 62 / 0.6 + 33 / 60 / 0.6) / 2
    assert f'images of 24 x 40: 10, of which {cut:.1%} is cut\n' in done.stderr
    facts = json.loads((run / 'config.json').read_text())['facts']
    assert facts['shapes'] == [[24, 40, 3], [32, 32, 3], [40, 24, 3]] and facts['shape'] == [32, 32, 3]
    lines = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
    assert np.all(np.isfinite([line['loss'] for line in lines if 'loss' in line]))
    done = call('sample', f'--workdir={run}', '--num=2', '--size=40x24', f'--out={tmp_path / "out"}')
    assert done.returncode == 0, done.stderr
    assert np.asarray(PIL.Image.open(tmp_path / 'out' / '1.png')).shape == (40, 24, 3)
    refused = call('sample', f'--workdir={run}', '--size=32x40', f'--out={tmp_path / "none"}')
    assert refused.returncode == 2 and 'trained on images of 24x40, 32x32, 40x24' in refused.stderr
    again = call('train', *place, *SMALL, '--config.data.buckets=2')
    assert again.returncode == 2 and 'data.buckets: 3 -> 2' in again.stderr


@pytest.mark.slow
def test_it_goes_on_as_if_undisturbed_and_a_skipped_step_is_seen_again(call, folder, tmp_path):
    def train(name, *flags):
        place = ('--config=configs/cifar10_edm.py', f'--config.data.data_dir={folder}', f'--workdir={tmp_path / name}')
        done = call('train', *place, *SMALL, *flags)
        assert done.returncode == 0, done.stderr
        lines = map(json.loads, (tmp_path / name / 'metrics.jsonl').read_text().splitlines())
        return [line['loss'] for line in lines if 'loss' in line]

    whole = train('whole')
    assert train('parts', '--config.train.steps=3') == whole[:3]
    assert train('parts', '--config.runtime.workers=0', '--config.runtime.devices=1') == pytest.approx(whole, rel=1e-5)

    train('wild', '--config.optimizer.lr=1e30', '--config.train.skips=0')
    incidents = sorted((tmp_path / 'wild' / 'incidents').iterdir())
    assert incidents
    seen = call('train', f'--replay={incidents[-1]}')
    assert seen.returncode == 0 and 'skipped again' in seen.stdout, seen.stderr
    cheap = ('--solver=bosh3', '--rtol=1e-1', '--atol=1e-1', '--num=8', '--batch=8', '--probes=1')
    measured = call('evaluate', f'--workdir={tmp_path / "whole"}', '--metrics=bpd', *cheap)
    assert measured.returncode == 0, measured.stderr
