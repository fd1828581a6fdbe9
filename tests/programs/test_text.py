"""Text through a pretrained encoder, from training to drawing; the way from one prompt to another."""

import shutil

import numpy as np
import pytest
from PIL import Image

from diffusion import build
from diffusion import config as configs
from tests import bert
from tests.programs import conftest

SMALL = tuple(word for word in conftest.TINY if 'configs/' not in word and 'text_width' not in word)
NET = (
    '--config.net.depth=1',
    '--config.net.attention=',
    '--config.net.cross_attention=1',
    '--config.net.text_layers=1',
    '--config.net.text_width=8',
    '--config.data.subset=faces',
    '--config.data.image_size=16',
    '--config.preview.unseen=cat with sunglasses',
)


def picture(path):
    return np.asarray(Image.open(path))


def test_the_config_takes_an_encoder(data_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(conftest.ROOT)
    folder = bert.write(tmp_path / 'bert')
    words = ['text.name=encoder', f'text.path={folder}', f'text.cache={tmp_path}/cache', f'data.data_dir={data_dir}']
    config = build.resolve('configs/emoji_text.py', [*words, 'data.subset=faces', 'text.length=24'])
    facts = build.facts(config, build.source(config))
    run = build.experiment(config, facts)
    assert run.null['tokens'].shape == (24, bert.WIDTH) and run.batch_shapes()['tokens'].shape == (256, 24, bert.WIDTH)
    assert build.facts_from_json(facts.to_json(), config) == facts
    config = build.resolve('configs/emoji_text.py', ['text.name=encoder', f'data.data_dir={data_dir}'])
    with pytest.raises(configs.ConfigError, match='path is missing'):
        build.facts(config, build.source(config))


def test_from_one_prompt_to_another(call, trained, tmp_path):
    words = ('sample', f'--workdir={trained}', '--prompt=crying cat')
    done = call(*words, '--to=nerd face', '--num=5', '--seeds=3', f'--out={tmp_path / "way"}')
    assert done.returncode == 0, done.stderr
    assert "on the way to 'nerd face'" in done.stdout
    assert sorted(path.name for path in (tmp_path / 'way').iterdir()) == [*(f'{i}.png' for i in range(5)), 'grid.png']
    frames = [picture(tmp_path / 'way' / f'{i}.png').astype(int) for i in range(5)]
    for prompt, frame in (('crying cat', frames[0]), ('nerd face', frames[-1])):
        done = call(*words[:2], f'--prompt={prompt}', '--seeds=3', f'--out={tmp_path / prompt}')
        assert done.returncode == 0, done.stderr
        assert np.abs(picture(tmp_path / prompt / '3.png') - frame).max() <= 1


@pytest.mark.parametrize(
    'flags,say',
    [
        (['--to=cat'], 'wants one --prompt to begin with, not 0'),
        (['--prompt=cat', '--prompt=dog', '--to=cat'], 'not 2'),
        (['--prompt=cat', '--to=cat', '--num=1'], 'at least 2'),
        (['--prompt=cat', '--to=cat', '--seeds=1,2'], 'all pictures have one seed'),
        (['--prompt=cat', '--to=catt'], "unknown word 'catt'"),
        (['--prompt=cat', '--config.text.path=x'], 'config.text.path does not exist'),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else None,
)
def test_a_way_that_cannot_be_is_one_line(call, trained, tmp_path, flags, say):
    done = call('sample', f'--workdir={trained}', *flags, f'--out={tmp_path / "out"}')
    assert done.returncode == 2 and say in done.stderr and done.stderr.count('\n') == 1, done.stderr
    assert not (tmp_path / 'out').exists()


@pytest.mark.long
def test_an_encoder_is_needed_for_new_prompts_alone(call, data_dir, tmp_path):
    folder, cache, run = bert.write(tmp_path / 'bert'), tmp_path / 'cache', tmp_path / 'run'
    words = ['--config=configs/emoji_text.py', *SMALL, *NET, f'--config.data.data_dir={data_dir}']
    words += ['--config.text.name=encoder', f'--config.text.cache={cache}', '--config.text.length=24']
    words += ['--config.train.steps=4', '--config.preview.match=0', '--config.preview.num=4']
    done = call('train', *words, f'--config.text.path={folder}', f'--workdir={run}')
    assert done.returncode == 0, done.stderr
    other = bert.write(tmp_path / 'other', seed=1)
    done = call('train', *words, '--config.train.steps=6', f'--config.text.path={other}', f'--workdir={run}')
    assert done.returncode == 2 and 'facts.tokenizer' in done.stderr and done.stderr.count('\n') == 1
    shutil.move(folder, tmp_path / 'elsewhere')
    sample = ('sample', f'--workdir={run}', '--seeds=1', '--guidance=2')
    done = call(
        *sample, '--prompt=grinning face', '--negative-prompt=cat with sunglasses', f'--out={tmp_path / "known"}'
    )
    assert done.returncode == 0, done.stderr
    done = call(*sample, '--prompt=a smiling dog', f'--out={tmp_path / "new"}')
    assert done.returncode == 2 and 'name its folder by --config.text.path=DIR' in done.stderr
    done = call(*sample, '--prompt=a smiling dog', f'--config.text.path={other}', f'--out={tmp_path / "new"}')
    assert done.returncode == 2 and 'another text encoder' in done.stderr and done.stderr.count('\n') == 1
    found = f'--config.text.path={tmp_path / "elsewhere"}'
    done = call(*sample, '--prompt=a smiling dog', '--to=cat', '--num=2', found, f'--out={tmp_path / "new"}')
    assert done.returncode == 0, done.stderr
    assert (picture(tmp_path / 'new' / '0.png') != picture(tmp_path / 'new' / '1.png')).any()
