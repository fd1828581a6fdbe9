"""`diffusion evaluate --watch`: every checkpoint of a training once, whole, whatever happens beside it."""

import fcntl
import json
import shutil

import pytest
from tensorboard.backend.event_processing import event_accumulator

from diffusion import usage
from diffusion.programs import classifying, generated, watching
from diffusion.runtime import manifest

SHORT = classifying.Recipe(steps=12, batch=32)
WATCH = ('--watch', '--metrics=is', '--num=20', '--batch=20')


@pytest.fixture
def run(copied, data_dir, monkeypatch):
    """A run of 8 steps with checkpoints 4 and 8, to be written into."""
    monkeypatch.setattr(classifying, 'RECIPE', SHORT)
    monkeypatch.setenv('TFDS_DATA_DIR', data_dir)
    return copied()


def results(folder):
    return {path.name: path.read_bytes() for path in (folder / 'eval').glob('*.json')}


def refuse(*args):
    raise AssertionError('drawn again')


@pytest.mark.long
def test_each_checkpoint_is_measured_once_and_again_only_when_asked(call, run, monkeypatch):
    words = ('evaluate', f'--workdir={run}', *WATCH)
    done = call(*words)
    assert done.returncode == 0, done.stderr
    found = results(run)
    assert set(found) == {'is_classifier_step_4.json', 'is_classifier_step_8.json'}
    for step in (4, 8):
        value = json.loads(found[f'is_classifier_step_{step}.json'])
        assert value['step'] == step and value['checkpoint'] == manifest.identity(
            run / 'checkpoints' / str(step), 'ema'
        )
    events = event_accumulator.EventAccumulator(str(run / 'eval')).Reload()
    values = {step: json.loads(found[f'is_classifier_step_{step}.json'])['value'] for step in (4, 8)}
    curve = {one.step: one.value for one in events.Scalars('eval/is_classifier')}
    assert curve == pytest.approx(values, rel=1e-6)
    # Started again it draws nothing, and after a stop only what is missing.
    monkeypatch.setattr(generated, '_block', refuse)
    again = call(*words)
    assert again.returncode == 0 and again.stdout.count('measured before') == 2 and results(run) == found
    monkeypatch.undo()
    monkeypatch.setattr(classifying, 'RECIPE', SHORT)
    (run / 'eval' / 'is_classifier_step_8.json').unlink()
    shutil.rmtree(run / 'eval' / 'cache')
    last = call(*words)
    assert last.returncode == 0 and last.stdout.count('measured before') == 1 and '20 samples' in last.stdout
    assert (
        set(results(run)) == set(found)
        and results(run)['is_classifier_step_4.json'] == found['is_classifier_step_4.json']
    )


def test_two_watchers_and_other_weights_are_refused(call, run):
    (run / 'eval').mkdir()
    with open(run / 'eval' / watching.LOCK, 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = call('evaluate', f'--workdir={run}', *WATCH)
    assert second.returncode == 2 and 'watched by another process' in second.stderr and second.stderr.count('\n') == 1
    for flags, say in (
        (['--step=4'], 'leave out --step'),
        (['--range=0:20'], 'leave out --step and --range'),
        (['--weights=slow'], 'there are ema, raw'),
    ):
        done = call('evaluate', f'--workdir={run}', *WATCH, *flags)
        assert done.returncode == 2 and say in done.stderr and done.stderr.count('\n') == 1, done.stderr
    assert not results(run)


class Training:
    """A training beside a watch: what happens to its folder at each look that found nothing."""

    def __init__(self, folder, monkeypatch, *events):
        self.folder, self.events, self.measured = folder, list(events), []
        monkeypatch.setattr(watching.time, 'sleep', self.go_on)
        monkeypatch.setattr(watching.workdir, 'read', lambda folder: ({'train': {'steps': 30}}, None))

    def go_on(self, seconds):
        self.events.pop(0)()

    def save(self, step, text='weights'):
        place = self.folder / 'checkpoints' / str(step)
        (place / 'ema').mkdir(parents=True, exist_ok=True)
        (place / 'ema' / 'array').write_text(text)
        manifest.write(place, {})

    def half(self, step):
        """A copy that somebody is making: files, and no manifest yet."""
        place = self.folder / 'checkpoints' / str(step)
        (place / 'ema').mkdir(parents=True)
        (place / 'ema' / 'array').write_text('wei')

    def damage(self, step):
        (self.folder / 'checkpoints' / str(step) / 'ema' / 'array').write_text('Weights')

    def remove(self, step):
        shutil.rmtree(self.folder / 'checkpoints' / str(step))

    def measure(self, step):
        with usage.checked():
            wrong = manifest.problems(self.folder / 'checkpoints' / str(step))
            if wrong:
                raise manifest.Damaged(wrong[0])
        self.measured.append(step)


def test_half_written_and_damaged_ones_are_never_measured(tmp_path, monkeypatch, capsys):
    beside = Training(
        tmp_path,
        monkeypatch,
        lambda: beside.half(10),
        lambda: None,
        lambda: (beside.save(20), beside.damage(20)),
        lambda: None,
        lambda: beside.save(10),
        lambda: beside.save(20),
        lambda: beside.save(30),
    )
    assert watching.follow(tmp_path, beside.measure)
    assert beside.measured == [10, 20, 30] and not beside.events
    said = capsys.readouterr().err
    assert said.count('step 20 is passed over until its files change') == 1 and 'other contents' in said
    assert 'waits for a checkpoint after step 0 of 30' in said and 'after step 20 of 30' in said


def test_a_checkpoint_that_goes_while_it_is_read_is_passed_over(tmp_path, monkeypatch, capsys):
    beside = Training(tmp_path, monkeypatch, lambda: beside.save(30))
    beside.save(10)
    beside.save(20)

    def measure(step):
        beside.measured.append(step)
        if step == 10:
            beside.remove(10)
            raise FileNotFoundError('ema/array')

    assert watching.follow(tmp_path, measure)
    assert beside.measured == [10, 20, 30]
    assert 'step 10 is passed over: the training removed it while it was read' in capsys.readouterr().err


def test_what_cannot_be_measured_does_not_end_the_watch_and_shows_in_its_status(tmp_path, monkeypatch, capsys):
    beside = Training(tmp_path, monkeypatch)
    beside.save(10)
    beside.save(30)

    def measure(step):
        if step == 30:
            raise usage.UsageError('1 of 8 samples is not finite')
        beside.measured.append(step)

    assert not watching.follow(tmp_path, measure)
    assert beside.measured == [10] and 'step 30 is passed over: 1 of 8' in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        watching.follow(tmp_path, lambda step: 1 // 0)


def test_a_run_that_is_not_there_yet_is_waited_for_and_nothing_is_written_into_it(tmp_path, monkeypatch, capsys):
    folder = tmp_path / 'later'
    beside = Training(
        folder,
        monkeypatch,
        lambda: folder.mkdir(),
        lambda: (folder / 'config.json').write_text('{}'),
        lambda: beside.save(10),
    )
    watching.arrive(str(folder))
    assert not beside.events and {path.name for path in folder.iterdir()} == {'config.json', 'checkpoints'}
    said = capsys.readouterr().err
    assert said.count('waits for a training to begin') == 1 and said.count('waits for the first checkpoint') == 1
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / 'notes.txt').write_text('mine')
    with pytest.raises(ValueError, match='it is not a run'):
        watching.arrive(str(tmp_path / 'other'))
