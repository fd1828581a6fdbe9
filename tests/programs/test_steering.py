"""The flags of guidance: what each draws follows from what the others draw, and what cannot be is one line."""

import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from diffusion import build, usage
from diffusion import config as configs
from diffusion.programs import drawing, steering, workdir
from diffusion.runtime import checkpoint, mesh, state
from tests.programs import conftest

PROMPT = '--prompt=crying cat'
OFF = {'name': 'none'}
# Makes every predicted pixel lighter, by at most 1.
WHITE = 'def log_prob(x, sigma):\n    return x.sum((1, 2, 3)) / (1 + sigma**2)\n'


@pytest.fixture(scope='module')
def drawn():
    """What was drawn already, by its flags."""
    return {}


@pytest.fixture
def draw(call, trained, tmp_path, drawn):
    """draw(*flags) -> the picture of seed 1 as numbers, and what was said."""

    def run(*flags):
        if flags not in drawn:
            out = tmp_path / f'out{len(drawn)}'
            done = call(
                'sample', f'--workdir={trained}', '--seeds=1', f'--out={out}', PROMPT, '--sampler=euler', *flags
            )
            assert done.returncode == 0, done.stderr
            drawn[flags] = np.asarray(Image.open(out / '1.png')).astype(int), done.stdout
        return drawn[flags]

    return run


@pytest.fixture(scope='module')
def another(trained, data_dir, tmp_path_factory):
    """The workdir of another run on the same data: another net, another preconditioning, no step taken."""
    folder = tmp_path_factory.mktemp('runs') / 'another'
    net = ('net.name=PointNet', 'net.width=8', 'net.depth=1', 'precond.name=v', f'data.data_dir={data_dir}')
    config = build.resolve(str(conftest.ROOT / 'configs/emoji.py'), list(net))
    facts = workdir.read(str(trained))[1]
    run = build.experiment(config, facts)
    target = state.abstract(mesh.make(jax.devices()[:1]), run.network.init, run.optimizer)
    saved = checkpoint.Checkpoints(str(folder))
    saved.save(0, state.create(target, run.network.init, run.optimizer, 0), {})
    saved.close()
    workdir.write(str(folder), workdir.describe(config, facts))
    return folder


def test_each_guidance_draws_another_picture_and_says_so(draw):
    base, said = draw('--guidance=2')
    assert 'guidance 2\n' in said
    found = [base]
    for flags, words in (
        (['--config.guidance.name=apg', '--config.guidance.rescale=0.7', '--config.guidance.sigma_high=40'], '(apg)'),
        (['--config.guidance.name=zero_star', '--config.guidance.zero_above=50'], 'guidance 2 (zero_star)'),
        (['--guidance=frequency_decoupled:4', '--grid=log_linear'], 'guidance 4 (frequency_decoupled)'),
        (['--guidance=1000'], 'guidance 1000\n'),
        (['--guidance=1000', '--config.threshold.name=dynamic', '--config.threshold.percentile=80'], 'guidance 1000\n'),
    ):
        picture, said = draw(*flags)
        assert words in said
        found.append(picture)
    assert len({picture.tobytes() for picture in found}) == len(found)


def test_moving_away_from_the_prompt_itself_is_no_guidance(draw):
    off, _ = draw('--guidance=1')
    away, said = draw('--negative-prompt=crying cat', '--guidance=5')
    assert "guidance 5, away from 'crying cat'" in said
    np.testing.assert_allclose(away, off, atol=1)
    other, _ = draw('--negative-prompt=dog face', '--guidance=5')
    assert np.abs(other - off).max() > 3


def test_further_prompts_add_up_with_the_first(draw):
    """D_null + 1 (D - D_null) + 1 (D - D_null) is guidance 2."""
    base, _ = draw('--guidance=2')
    twice, said = draw('--guidance=1', '--and=crying cat:1')
    assert "guidance 1, and 'crying cat' at 1" in said
    np.testing.assert_allclose(twice, base, atol=1)
    other, _ = draw('--guidance=2', '--and=dog face:3')
    assert np.abs(other - base).max() > 3


def test_a_model_held_against_itself_is_no_guidance_and_another_run_is_some(draw, trained, another, tmp_path):
    off, _ = draw('--guidance=1')
    shutil.copytree(trained, tmp_path / 'twin')
    twin, _ = draw(f'--guide-workdir={tmp_path / "twin"}', '--guidance=4')
    np.testing.assert_allclose(twin, off, atol=1)
    earlier, _ = draw(f'--guide-workdir={tmp_path / "twin"}', '--guide-step=4', '--guidance=4')
    own, said = draw('--guide-step=4', '--guidance=4')
    assert f'guidance 4 (auto), held against step 4 of {trained}' in said
    assert np.abs(own - off).max() > 0
    np.testing.assert_array_equal(earlier, own)
    other, said = draw(f'--guide-workdir={another}')
    assert f'held against step 0 of {another}' in said
    assert np.abs(other - off).max() > 3


def test_a_classifier_from_a_file_is_climbed(draw, tmp_path):
    path = tmp_path / 'white.py'
    path.write_text(WHITE)
    base, _ = draw('--guidance=2')
    up, said = draw(f'--classifier={path}')
    down, _ = draw(f'--classifier={path}', '--classifier-scale=-1')
    assert f', up {path}' in said
    assert down.mean() < base.mean() < up.mean()


@pytest.mark.parametrize(
    'flags,say',
    [
        (['--config.guidance.name=auto'], '--guide-step=N'),
        (['--guide-step=4', '--guidance=1'], 'a weaker model has no effect at guidance 1'),
        (['--guide-step=8'], '--guide-step must be earlier; there are 4, 8'),
        (['--guide-step=5'], 'no checkpoint of step 5: there are 4, 8'),
        (['--guide-step=4', '--config.guidance.name=apg'], 'not for apg'),
        (['--guide-step=4', '--negative-prompt=dog face'], 'one condition'),
        (['--guide-workdir=nowhere'], "no workdir 'nowhere'"),
        (['--guide-workdir=.'], 'is not a run'),
        (['--negative-prompt=dog face', '--guidance=1'], 'a negative prompt has no effect at guidance 1'),
        (['--negative-prompt='], 'holds no words'),
        (['--negative-prompt=dgo face'], "unknown word 'dgo'"),
        (['--and=dog face'], 'a prompt and its scale are wanted'),
        (['--and=dog face:much'], 'a prompt and its scale are wanted'),
        (['--and=:2'], 'a prompt and its scale are wanted'),
        (['--and=dog face:2', '--config.guidance.name=apg'], '--config.guidance.name=classifier_free, not apg'),
        (['--guidance=1', '--config.guidance.rescale=0.7'], 'config.guidance.rescale has no effect at guidance 1'),
        (['--guidance=2', '--config.guidance.scale=3'], 'give one of them'),
        (['--guidance=1e999'], 'a finite number is wanted'),
        (['--guidance=agp:3'], "did you mean 'apg'"),
        (['--guidance=apg:3', '--config.guidance.name=apg'], 'give one of them'),
        (['--grid=karas'], "did you mean 'karras'"),
        (['--config.guidance.rescale=2'], 'must be in [0, 1]'),
        (['--config.guidance.sigma_low=90'], 'no step lies between'),
        (['--config.guidance.sigma_high=0.001'], 'no step lies between'),
        (['--config.guidance.sigma_low=2', '--config.guidance.sigma_high=1'], 'above sigma_low=2.0'),
        (['--config.guidance.name=zero_star', '--config.guidance.zero_above=80'], 'zeroes every step or none'),
        (['--config.guidance.norm=2'], 'config.guidance.norm does not exist'),
        (['--config.threshold.name=dynamc'], "did you mean 'dynamic'"),
        (['--config.threshold.name=dynamic', '--config.threshold.percentile=0'], 'must be in (0, 100]'),
        (['--classifier=none.py'], 'no file --classifier=none.py'),
        (['--classifier-scale=2'], 'no effect without --classifier'),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_and_draws_nothing(call, trained, tmp_path, flags, say):
    done = call('sample', f'--workdir={trained}', f'--out={tmp_path / "out"}', PROMPT, *flags)
    assert done.returncode == 2, done.stderr
    assert say in done.stderr and done.stderr.count('\n') == 1, done.stderr
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'text,say',
    [
        ('x = 1', 'defines no log_prob'),
        ('def log_prob(', 'does not run: SyntaxError'),
        ('def log_prob(x, sigma): return x.sum()', 'one float32 a picture'),
        ('def log_prob(x): return x.sum((1, 2, 3))', 'does not run: TypeError'),
    ],
)
def test_a_bad_classifier_is_one_line(call, trained, tmp_path, text, say):
    (tmp_path / 'c.py').write_text(text)
    done = call('sample', f'--workdir={trained}', f'--out={tmp_path / "out"}', f'--classifier={tmp_path / "c.py"}')
    assert done.returncode == 2 and say in done.stderr and done.stderr.count('\n') == 1, done.stderr


def test_a_run_on_other_data_is_no_weaker_model(call, trained, another, tmp_path):
    shutil.copytree(another, tmp_path / 'changed')
    path = tmp_path / 'changed' / 'config.json'
    stored = json.loads(path.read_text())
    stored['facts']['examples'] += 1
    path.write_text(json.dumps(stored))
    done = call('sample', f'--workdir={trained}', f'--out={tmp_path / "out"}', f'--guide-workdir={path.parent}')
    assert done.returncode == 2 and 'facts that differ: examples' in done.stderr


def plane(*overrides):
    config = build.resolve(str(conftest.ROOT / 'configs/toy2d.py'), ['net.width=8', 'net.depth=1', *overrides])
    return build.experiment(config, build.facts(config, build.source(config)))


def choose(run, *overrides):
    return build.override(run.config, list(overrides))


def test_autoguidance_needs_neither_condition_dropout_nor_a_condition():
    for overrides in (('train.cond_dropout=0',), ('train.labels=false',)):
        run = plane(*overrides)
        for name in ('classifier_free', 'apg'):
            with pytest.raises(configs.ConfigError, match='autoguidance'):
                build.sampling(run, choose(run, f'guidance.name={name}', 'guidance.scale=2'))
        config = choose(run, 'guidance.name=auto', 'guidance.scale=2', 'sample.steps=2', 'sampler.name=euler')
        artist = drawing.artist(run, config, mesh.make(jax.devices()[:1]), 4, build.Steering(weak=run))
    weights = run.network.init(jax.random.key(0))
    (found,) = artist.against(weights).draw(weights, np.arange(4), drawing.conditions(run, 4))
    assert np.isfinite(found.x).all()


def test_a_negative_prompt_stands_in_for_a_null_condition_that_was_never_trained(trained):
    config, facts = workdir.read(str(trained))
    run = build.experiment({**config, 'train': {**config['train'], 'cond_dropout': 0.0}, 'guidance': OFF}, facts)
    negative = {name: rows[0] for name, rows in drawing.conditions(run, 1, prompts=['dog face']).items()}
    with pytest.raises(configs.ConfigError, match='condition dropout'):
        build.sampling(run, config)
    build.sampling(run, config, build.Steering(negative))


def test_what_does_not_fit_the_model_is_refused():
    run = plane()
    with pytest.raises(configs.ConfigError, match='config.threshold.name=static: a threshold is for pictures'):
        build.sampling(run, choose(run, 'threshold.name=static'))
    with pytest.raises(configs.ConfigError, match='choose another config.guidance.name'):
        plane('guidance.name=auto', 'guidance.scale=2')
    with pytest.raises(configs.ConfigError, match='no step lies between'):
        plane('guidance.name=classifier_free', 'guidance.scale=2', 'guidance.sigma_low=21')
    weaker = plane('process.sigma_max=10')
    with pytest.raises(configs.ConfigError, match='trained up to sigma 10'):
        build.sampling(run, choose(run, 'guidance.name=auto', 'guidance.scale=2'), build.Steering(weak=weaker))


def test_classes_are_further_conditions_where_there_is_no_text():
    run, parser = plane(), usage.Parser('sample', 'x')
    steering.add_flags(parser)
    args, _ = parser.parse(['--and=3:1.5', '--and=5:-0.5'])
    found = steering.read(args, run)
    assert [int(cond['label']) for cond in found.also] == [3, 5] and found.scales == (1.5, -0.5)
    args, _ = parser.parse(['--negative-prompt=x'])
    with pytest.raises(ValueError, match='not trained on text'):
        steering.read(args, run)
    args, _ = parser.parse(['--and=3:1'])
    with pytest.raises(ValueError, match='has no condition'):
        steering.read(args, plane('train.labels=false'))
