"""Killed and started again, a run is the run that was never killed: bit for bit, in real processes."""

import json

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from diffusion.programs import prove
from diffusion.runtime import digest, manifest, store
from tests.programs.test_checkpoint import QUICK

AVERAGES = ('--config.ema.others=64', '--config.ema.profiles=0.05,0.1', '--config.ema.snapshot_every=25')
# Memory of the loss, conditions that are dropped and dropout of the network are restored too.
MORE = ('--config.train.adaptive=8', '--config.train.uncertainty=True', '--config.train.cond_dropout=0.2')


def restored(folder, part):
    """Leaves of a part of the last checkpoint, by Orbax alone."""
    reader, place = ocp.PyTreeCheckpointer(), (folder / part).resolve()
    plain = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), reader.metadata(place).item_metadata.tree)
    return jax.tree.leaves(reader.restore(place, args=ocp.args.PyTreeRestore(restore_args=plain)))


def chaos(call, folder, steps, kills, processes=1, signals='KILL,TERM'):
    flags = (
        f'--steps={steps}',
        f'--kills={kills}',
        f'--processes={processes}',
        f'--signals={signals}',
        '--moments=start,step,save',
        '--seed=3',
    )
    words = (*(word for word in QUICK if 'train.steps' not in word), *AVERAGES, *MORE, '--config.train.save_every=7')
    done = call('checkpoint', 'prove', *words, *flags, f'--workdir={folder}')
    assert done.returncode == 0, done.stdout + done.stderr
    killed = [line for line in done.stdout.splitlines() if line.startswith('  SIG')]
    assert len(killed) == kills and 'DIFFERENT' not in done.stdout
    paths = [folder / run / 'checkpoints' / str(steps) for run in ('undisturbed', 'killed')]
    parts = manifest.read(paths[0])['items']
    assert set(parts) == {'params', 'optimizer', 'counters', 'ema', 'ema_64', 'power_0.05', 'power_0.1'}
    for part in parts:
        one, other = (restored(path, part) for path in paths)
        assert len(one) == len(other) == parts[part]['arrays']
        for a, b in zip(one, other):
            np.testing.assert_array_equal(a, b)
    snapshots = [store.steps(folder / run / 'snapshots') for run in ('undisturbed', 'killed')]
    assert snapshots[0] == snapshots[1] == list(range(25, steps + 1, 25))
    logs = [(folder / run / 'metrics.jsonl').read_text().splitlines() for run in ('undisturbed', 'killed')]
    losses = [[(line['step'], line['loss']) for line in map(json.loads, log)] for log in logs]
    assert losses[0] == losses[1] and [step for step, _ in losses[0]] == list(range(1, steps + 1))
    return done.stdout


@pytest.mark.pods
def test_a_run_killed_four_times_is_the_undisturbed_run(call, tmp_path):
    said = chaos(call, tmp_path / 'proof', 120, 4)
    for row in ('params', 'optimizer', 'ema_64', 'power_0.1', 'data position', 'next 20 ids', 'losses of 120 steps'):
        assert any(line.startswith('equal') and row in line for line in said.splitlines())


@pytest.mark.pods
def test_two_processes_of_which_one_is_killed_are_the_undisturbed_run(call, tmp_path):
    chaos(call, tmp_path / 'proof', 50, 1, processes=2, signals='KILL')


@pytest.mark.slow
def test_a_run_killed_thirty_times_is_the_undisturbed_run(call, tmp_path):
    chaos(call, tmp_path / 'proof', 1500, 30)


@pytest.mark.slow
def test_two_processes_killed_ten_times_are_the_undisturbed_run(call, tmp_path):
    chaos(call, tmp_path / 'proof', 600, 10, processes=2)


def test_one_bit_in_any_array_is_another_hash():
    tree = {'a': {'kernel': np.arange(6, dtype=np.float32).reshape(2, 3)}, 'b': np.int32(4)}
    plain = digest.of_arrays(tree)
    assert digest.of_arrays({'b': tree['b'], 'a': {'kernel': tree['a']['kernel'].copy()}}) == plain
    flipped = tree['a']['kernel'].copy()
    flipped.view(np.uint32)[1, 2] ^= 1
    others = (
        {**tree, 'a': {'kernel': flipped}},
        {**tree, 'a': {'kernel': tree['a']['kernel'].reshape(3, 2)}},
        {**tree, 'a': {'bias': tree['a']['kernel']}},
        {**tree, 'b': np.int64(4)},
    )
    assert len({plain, *map(digest.of_arrays, others)}) == 5


def test_what_differs_is_named_and_the_answer_is_no(capsys):
    assert prove.compared({'params': 'aa', 'ema': 'bb'}, {'params': 'aa', 'ema': 'cc'}) == 1
    said = capsys.readouterr().out
    assert 'equal     params' in said and 'DIFFERENT ema' in said and 'cc' in said


@pytest.mark.parametrize(
    'words,say',
    [
        (['--signals=HUP'], 'of KILL, TERM'),
        (['--moments=lunch'], 'of start, step, save'),
        (['--steps=1'], 'at least 2 steps'),
        (['--config.train.steeps=3'], "did you mean 'config.train.steps'"),
        (['--workdir={full}'], 'is there already'),
    ],
)
def test_a_wrong_call_is_one_line(call, tmp_path, words, say):
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'x').write_text('mine')
    words = [f'--workdir={tmp_path / "new"}', *(word.format(full=tmp_path / 'full') for word in words)]
    done = call('checkpoint', 'prove', *QUICK, *words)
    assert done.returncode == 2 and say in done.stderr and done.stderr.count('\n') == 1
