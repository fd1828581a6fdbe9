import json
import pathlib

import ml_collections
import numpy as np
import pytest

from diffusion import build
from diffusion import config as configs
from diffusion.data import tokens
from diffusion.programs import opening

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((ROOT / 'configs').glob('*.py'))


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_every_shipped_config_builds_and_fits_its_data(path, data_dir, tmp_path):
    """The network takes the data's shape and conditions; data that is not there is described by its builder."""
    config = build.resolve(str(path), [])
    if 'data_dir' in config['data']:
        config['data']['data_dir'] = data_dir
    if config['data'].get('path') == '':
        # The user's own images: any will do.
        np.save(tmp_path / 'images.npy', np.zeros((3, 8, 8, 3), np.uint8))
        config['data']['path'] = str(tmp_path / 'images.npy')
    data = build.source(config)
    try:
        facts = build.facts(config, data)
    except FileNotFoundError:
        classes = tuple(data.classes) if config['train']['labels'] else ()
        facts = build.Facts(data.shape, classes, None, data.dtype, 1000, 'not there')
    run = build.experiment(config, facts)
    sigmas = np.asarray(build.sigmas(run, config))
    assert len(sigmas) == config['sample']['steps'] + 1
    assert path.read_text().startswith('"""') and f'--config=configs/{path.name}' in path.read_text()
    assert len(path.read_text().splitlines()) <= 65


def small(**changes):
    config = configs.load(str(ROOT / 'configs/toy2d.py'))
    for section, values in changes.items():
        config[section] = {**config.get(section, {}), **values}
    return config


def resolve(overrides=(), **changes):
    return configs.resolve(small(**changes), list(overrides), build.SCHEMA)


@pytest.mark.parametrize(
    'override,value',
    [
        ('train.steps=7', 7),
        ('train.labels=false', False),
        ('optimizer.lr=1', 1.0),
        ('optimizer.lr=3e-4', 3e-4),
        ('preview.unseen=a cat,two dogs', ('a cat', 'two dogs')),
        ("preview.unseen=('a, b', 'c')", ('a, b', 'c')),
        ('preview.unseen=', ()),
        ('runtime.platform=cpu', 'cpu'),
    ],
)
def test_an_override_is_read_as_its_type(override, value):
    section, key = override.split('=')[0].split('.')
    found = resolve([override])[section][key]
    assert found == value and type(found) is type(value)


def test_tuples_of_numbers_are_read_with_and_without_brackets():
    for text in ('1,2,4', '(1, 2, 4)', '[1,2,4]'):
        config = resolve(['net.name=UNet', f'net.multipliers={text}'])
        assert config['net']['multipliers'] == (1, 2, 4)
    assert resolve(['net.name=UNet', 'net.attention=1'])['net']['attention'] == (1,)


@pytest.mark.parametrize(
    'override,words',
    [
        ('train.lrr=1', ['config.train.lrr does not exist']),
        ('optimizer.lrr=1', ["did you mean 'config.optimizer.lr'"]),
        ('trian.steps=1', ["no section 'trian'", "'train'"]),
        ('train.steps=many', ["config.train.steps='many'", 'a str', 'an int is wanted']),
        ('train.steps=1.5', ['a float', 'an int is wanted']),
        ('train.labels=3', ['True or False is wanted']),
        ('net.name=Unet', ["config.net.name='Unet'", "did you mean 'UNet'"]),
        ('sampler.name=huen', ["did you mean 'heun'"]),
        ('train.name=x', ['config.train takes no name']),
        ('text.length=3', ["this config has no section 'text'"]),
        ('train=3', ['write --config.SECTION.KEY=VALUE']),
        ('net.channels=3', ['config.net.channels does not exist']),
    ],
)
def test_a_wrong_override_says_what_and_how_to_mend_it(override, words):
    with pytest.raises(configs.ConfigError) as error:
        resolve([override])
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_wrong_file_says_what(tmp_path):
    with pytest.raises(configs.ConfigError, match="did you mean 'toy2d.py'"):
        configs.load(str(ROOT / 'configs/toy2.py'))
    for text, words in (
        ('x = 1', 'no get_config'),
        ('def get_config(): return 1/0', 'ZeroDivisionError'),
        ('def get_config(): return {}', 'not an ml_collections.ConfigDict'),
        ('def get_config(', 'SyntaxError'),
    ):
        path = tmp_path / 'c.py'
        path.write_text(text)
        with pytest.raises(configs.ConfigError, match=words):
            configs.load(str(path))
    with pytest.raises(configs.ConfigError, match='config.net.widht does not exist: did you mean'):
        resolve(net={'widht': 3})
    with pytest.raises(configs.ConfigError, match='config.netz is not a section'):
        resolve(netz={'width': 3})
    with pytest.raises(configs.ConfigError, match='a string is wanted'):
        resolve(runtime={'platform': None})


def test_another_name_takes_its_own_defaults_and_keeps_what_both_know():
    config = resolve(['sampler.name=euler', 'net.name=DiT', 'net.patch=1'], sampler={'churn': 3.0})
    assert config['sampler'] == {'name': 'euler'}
    assert config['net']['width'] == 128 and config['net']['patch'] == 1 and 'mlp_ratio' in config['net']


def test_a_config_survives_json():
    config = resolve(['net.name=UNet', 'net.multipliers=1,2'])
    assert configs.restore(json.loads(json.dumps(config)), build.SCHEMA) == config
    assert isinstance(configs.load(str(ROOT / 'configs/toy2d.py')), dict)
    assert ml_collections.ConfigDict(config).to_dict() == config


def test_differences_name_each_key():
    a, b = resolve(), resolve(['train.steps=9', 'optimizer.lr=1'])
    assert configs.differences(a, b) == {'optimizer.lr': (2e-3, 1.0), 'train.steps': (2000, 9)}


def test_guidance_on_a_model_trained_without_dropout_is_refused():
    config = resolve(['train.cond_dropout=0', 'guidance.name=classifier_free', 'guidance.scale=2'])
    with pytest.raises(configs.ConfigError, match='condition dropout'):
        build.experiment(config, build.facts(config, build.source(config)))
    config = resolve(['train.labels=false', 'guidance.name=classifier_free', 'guidance.scale=2'])
    with pytest.raises(configs.ConfigError, match='no condition to be guided by'):
        build.experiment(config, build.facts(config, build.source(config)))


def both(**train):
    """A model of labels and text, guided; its data are never opened."""
    config = build.override(
        configs.load(str(ROOT / 'configs/emoji.py')),
        ['train.labels=true', 'train.cond_dropout=0', *(f'train.{key}={value}' for key, value in train.items())],
    )
    return config, build.Facts((16, 16, 3), ('a', 'b'), tokens.words(captions=['a cat']), 'uint8', 10, 'none')


@pytest.mark.parametrize(
    'train,never',
    [
        (dict(), 'its label and its text'),
        (dict(label_dropout=0.1), 'its text'),
        (dict(text_dropout=0.1), 'its label'),
        (dict(text_dropout=0.1, label_dropout=0.1), None),
        (dict(cond_dropout=0.1), None),
    ],
)
def test_guidance_needs_every_condition_to_have_been_dropped(train, never):
    config, facts = both(**train)
    if never:
        with pytest.raises(configs.ConfigError, match=f'condition dropout .* never without {never}:'):
            build.experiment(config, facts)
        config['guidance'] = {'name': 'none'}
    run = build.experiment(config, facts)
    assert (run.probe is None) == bool(never)
    names = {'label': '--label', 'tokens': '--prompt'}
    kept = run.train.never_without(run.null)
    for given in ((), ('label',), ('tokens',), ('label', 'tokens')):
        wanted = [names[name] for name in kept if name not in given]
        words = {'prompts': ['a'] * ('tokens' in given), 'labels': ['a'] * ('label' in given)}
        if not wanted:
            opening.check_conditioned(run, **words)
            continue
        with pytest.raises(ValueError, match='never trained without its condition: add .*' + wanted[0]):
            opening.check_conditioned(run, **words)


def test_a_dropout_of_what_is_no_condition_is_refused():
    config = resolve(['train.text_dropout=0.1'])
    with pytest.raises(configs.ConfigError, match='train.text_dropout=0.1 has no effect: text is no condition'):
        build.experiment(config, build.facts(config, build.source(config)))
    with pytest.raises(configs.ConfigError, match=r'label_dropout=1.0: must be in \[0, 1\)'):
        build.override(small(), ['train.label_dropout=1'])


def test_a_net_that_cannot_take_the_images_is_refused():
    config = resolve(['net.name=DiT', 'net.patch=3', 'net.width=32', 'net.depth=1', 'net.heads=2'])
    with pytest.raises(configs.ConfigError, match='config.net does not fit the data'):
        build.experiment(config, build.facts(config, build.source(config)))


def test_an_augmentation_that_cannot_be_is_refused(faces, data_dir):
    config = resolve(['augment.name=flip'])
    with pytest.raises(configs.ConfigError, match='augment.name=flip: these data are points'):
        build.experiment(config, build.facts(config, build.source(config)))
    pixels = ['data.name=emoji', f'data.data_dir={data_dir}']
    config = resolve([*pixels, 'augment.name=edm'])
    with pytest.raises(configs.ConfigError, match='PointNet cannot be told .* use UNet or DiT'):
        build.experiment(config, build.facts(config, build.source(config)))
    with pytest.raises(configs.ConfigError, match='config.augment: p=2.0'):
        build.override(small(), ['augment.name=edm', 'augment.p=2'])
    config = resolve([*pixels, 'augment.name=flip', 'augment.p=0.2'])
    build.experiment(config, build.facts(config, build.source(config)))


@pytest.mark.parametrize('name', ['karras', 'trailing'])
def test_an_adaptive_sampler_gets_the_ends_of_a_grid_whatever_its_steps(name):
    config = resolve(['sampler.name=dopri5', f'grid.name={name}', 'process.name=Flow'])
    run = build.experiment(config, build.facts(config, build.source(config)))
    few, many = (build.sigmas(run, {**config, 'sample': {'steps': steps, 'batch': 1}}) for steps in (1, 50))
    np.testing.assert_array_equal(few, many)
    np.testing.assert_allclose(few, [999, 1e-3, 0], rtol=0.01)
