"""`diffusion evaluate` over a grid of cells and checkpoints, in blocks that survive what happens to it."""

import itertools
import json
import shutil

import numpy as np
import pytest

from diffusion.programs import blocks, classifying, generated

SHORT = classifying.Recipe(steps=12, batch=32)
DRAW = ('--metrics=is,fid', '--num=40', '--batch=8', '--guidance=3')


@pytest.fixture
def run(copied, data_dir, monkeypatch):
    """A run of 8 steps with checkpoints 4 and 8, to be written into; blocks of 8 samples."""
    monkeypatch.setattr(classifying, 'RECIPE', SHORT)
    monkeypatch.setattr(blocks, 'LEAST', 8)
    monkeypatch.setenv('TFDS_DATA_DIR', data_dir)
    return copied()


def values(folder):
    found = {path.name: json.loads(path.read_text()) for path in (folder / 'eval').glob('*_step_*.json')}
    return {name: (one['value'], one['standard_error']) for name, one in found.items()}


@pytest.fixture
def drawn(monkeypatch):
    """The spans of samples that are drawn, in order; where `stop` says so, it is interrupted before one."""
    seen, block = [], generated._block

    def watched(planned, weights, span, report):
        if span == drawn.stop:
            raise KeyboardInterrupt
        seen.append(span)
        return block(planned, weights, span, report)

    def drawn():
        found = list(seen)
        seen.clear()
        return found

    drawn.stop = None
    monkeypatch.setattr(generated, '_block', watched)
    return drawn


@pytest.mark.long
def test_a_stopped_drawing_goes_on_and_parts_of_machines_add_up_to_the_same_bits(call, run, drawn, copied):
    words = (*DRAW, '--step=8')
    whole = copied('whole')
    done = call('evaluate', f'--workdir={whole}', *words)
    assert done.returncode == 0, done.stderr
    every = [(start, start + 8) for start in range(0, 40, 8)]
    assert drawn() == every and len(values(whole)) == 2

    drawn.stop = (24, 32)
    stopped = call('evaluate', f'--workdir={run}', *words)
    assert stopped.returncode == 75 and 'goes on' in stopped.stderr and not values(run)
    assert drawn() == every[:3]
    drawn.stop = None
    (kept,) = (run / 'eval' / 'cache').iterdir()
    damaged = kept / '0000008-0000016.npz'
    damaged.write_bytes(damaged.read_bytes()[:-100])
    (kept / '.0000024-0000032.npz.x').write_bytes(b'half')
    on = call('evaluate', f'--workdir={run}', *words)
    assert on.returncode == 0 and '16 of 40 are in' in on.stdout and 'is damaged' in on.stderr, on.stderr
    assert drawn() == [every[1], *every[3:]]
    assert values(run) == values(whole)

    parts = [copied('a'), copied('b')]
    for part, chosen in zip(parts, ('0:20', '20:40')):
        half = call('evaluate', f'--workdir={part}', *words, f'--range={chosen}')
        assert half.returncode == 0 and 'nothing is measured before all are there' in half.stdout, half.stderr
        assert not values(part)
    assert drawn() == every
    shutil.copytree(parts[1] / 'eval' / 'cache', parts[0] / 'eval' / 'cache', dirs_exist_ok=True)
    both = call('evaluate', f'--workdir={parts[0]}', *words, '--drop-cache')
    assert both.returncode == 0 and not drawn() and values(parts[0]) == values(whole)
    assert not list((parts[0] / 'eval' / 'cache').iterdir())


@pytest.mark.long
def test_a_grid_is_one_call_one_table_and_one_file_a_cell(call, run, drawn, monkeypatch, tmp_path):
    plans, make = [], generated.plans
    monkeypatch.setattr(generated, 'plans', lambda *args: plans.append(make(*args)) or plans[-1])
    words = ('evaluate', f'--workdir={run}', '--metrics=is', '--num=20', '--batch=20', '--step=all')
    grid = ('--guidance=2,3', '--steps=2,3', '--weights=ema,raw')
    done = call(*words, *grid, f'--json={tmp_path / "all.json"}')
    assert done.returncode == 0, done.stderr
    assert len(drawn()) == 16
    # One program for both scales, weights and checkpoints; another number of steps is another shape of it.
    functions = {plan.artist.calls.function for plan in plans[0]}
    assert len(functions) == 1 and functions.pop()._cache_size() == 2

    files = values(run)
    plain = {f'is_classifier{weights}_step_{step}.json' for weights in ('', '_raw') for step in (4, 8)}
    assert len(files) == 16 and plain < set(files)  # the run's own steps and guidance have the plain name
    rows = json.loads((tmp_path / 'all.json').read_text())
    cells = {(row['step'], row['weights'], row['steps'], row['guidance']) for row in rows}
    assert len(cells) == 16 == len(rows)
    own = next(row for row in rows if row['step'] == 8 and row['weights'] == 'ema' and row['steps'] == '3')
    assert own['guidance'] == '2' and own['is_classifier']['value'] == files['is_classifier_step_8.json'][0]
    lines = done.stdout.splitlines()[-18:-1]
    assert lines[0].split() == ['step', 'weights', 'steps', 'guidance', 'is_classifier'] and len(lines) == 17
    assert f'{own["is_classifier"]["value"]:.4g} ± ' in done.stdout

    # What is there is not drawn again; a cell more is drawn alone, with the numbers of a call of its own.
    more = call(*words, '--guidance=3', '--steps=2,3', '--sampler=euler,heun', '--weights=raw')
    assert more.returncode == 0 and len(drawn()) == 4 and more.stdout.count('measured before') == 4
    alone = call(*words[:-1], '--step=4', '--guidance=3', '--steps=2', '--sampler=heun', '--weights=raw', '--overwrite')
    assert alone.returncode == 0 and not drawn()
    assert {name: value for name, value in values(run).items() if name in files} == files


@pytest.mark.parametrize(
    'flags,say',
    [
        (['--guidance=1,2,1'], 'each once'),
        (['--guidance=1,1.0'], 'are the same'),
        (['--steps=2,,3'], 'values with commas'),
        (['--steps=2,0'], 'at least 1'),
        (['--sampler=heun,hunn'], "did you mean 'heun'"),
        (['--sampler=heun,dopri5', '--steps=2'], 'chooses its own steps'),
        (['--guidance=2,strong'], 'guidance.scale'),
        (['--weights=ema,slow'], 'there are ema, raw'),
        (['--step=4,7'], 'no checkpoint of step 7: there are 4, 8'),
        (['--step=4,4'], 'each once'),
        (['--step=last'], "or 'all'"),
        (['--range=0:41'], '0 <= FIRST < END <= 40'),
        (['--range=8:8'], 'FIRST:END is wanted'),
        (['--range=5'], 'FIRST:END is wanted'),
        (['--range=9:15'], 'holds the beginning of no block of 8'),
        (['--json=README.md'], 'is there already'),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_and_draws_nothing(call, run, drawn, flags, say):
    done = call('evaluate', f'--workdir={run}', '--metrics=is', '--num=40', '--batch=8', *flags)
    assert done.returncode == 2, done.stdout + done.stderr
    assert say in done.stderr and done.stderr.splitlines()[-1].startswith('diffusion: '), done.stderr
    assert not drawn() and not (run / 'eval').exists()


def test_blocks_do_not_depend_on_the_range(tmp_path):
    for batch in (8, 12, 300):
        every = blocks.Blocks(tmp_path, 1000, blocks.size(batch), {})
        assert blocks.size(batch) % batch == 0 and blocks.size(batch) >= blocks.LEAST
        for cuts in ([0, 1000], [0, 500, 1000], [0, 1, 257, 700, 1000]):
            parts = [span for ends in itertools.pairwise(cuts) for span in every.spans(ends)]
            assert parts == every.spans()
            assert np.concatenate([np.arange(*span) for span in parts]).tolist() == list(range(1000))
