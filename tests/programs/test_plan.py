"""`diffusion plan`: what it refuses before a compiler is asked, how it reckons, and its search for what fits."""

import dataclasses
import json
import subprocess
import sys
import types

import jax
import pytest

from diffusion import build
from diffusion.programs.planning import compiling, figures, fitting, printed
from diffusion.programs.reporting import planned, record, view
from diffusion.runtime import chips, hlo, roofline, topology
from tests.programs import conftest

SMALL = ('plan', *(word for word in conftest.TINY if 'runtime' not in word))


@pytest.mark.parametrize(
    'words,said',
    [
        (('--topology=v5e:4x3',), 'v5e:2x4, v5e:4x4'),
        (('--topology=v9:2x2',), 'v5e, v5p'),
        (('--topology=v5p:2x2',), 'v5p:2x2x1'),
        (('--topology=h100:9',), 'h100:16'),
        (('--topology=h100:8', '--slices=2'), 'h100:16'),
        (('--topology=v5e:2x2', '--slices=0'), 'at least 1'),
        (('--topology=h100:4', '--quick'), 'for the compiler of TPUs'),
        (('--topology=h100:4', '--price=-1'), 'at least 0'),
        (('--topology=h100:4', '--mfu=40'), 'a share'),
        (('--topology=h100:4', '--image=32x32'), 'channels'),
        (('--topology=h100:4', '--classes=3'), '--image'),
        (('--topology=h100:4', '--image=32x32x3'), 'captions'),
        (('--topology=h100:4', '--config.train.batch=6'), '4 and 8'),
        (('--topology=h100:4', '--config.runtime.fsdp=3'), 'does not divide the 4 devices'),
        (('--topology=h100:4', '--config.runtime.devices=2'), 'leave it out'),
        (('--topology=h100:4', '--out=docs'), 'folder'),
    ],
)
def test_what_is_refused(call, words, said):
    done = call(*SMALL, *words)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count('\n') == 1


def test_without_the_compiler_a_line_says_what_to_install(call, monkeypatch):
    monkeypatch.setattr(topology, '_version', lambda package: '')
    done = call(*SMALL, '--topology=v5e:2x2')
    assert done.returncode == 2 and "pip install '.[plan]'" in done.stderr


@pytest.mark.long
def test_gpus_whose_compiler_is_not_installed_are_estimated_and_the_report_shows_the_plan(call, copied, monkeypatch):
    monkeypatch.setattr(topology, 'CUDA', ())
    folder = copied()
    done = call(*SMALL, '--topology=h100:4', f'--out={folder / "plan.json"}')
    assert done.returncode == 0 and 'ESTIMATED' in done.stdout
    section = planned.section(view.View(record.read(str(folder))))
    assert 'ESTIMATED' in section.body[0] and 'h100:4' in section.body[0]
    (folder / 'plan.json').write_text('{"chip": 3}')
    assert 'no plan' in planned.section(view.View(record.read(str(folder)))).body[0]


@pytest.mark.parametrize(
    'message,said',
    [
        ('Used 29.88G of 15.75G hbm. Exceeded hbm capacity by 14.13G.', 'needs 29.88GiB of the 15.75GiB'),
        ('required for HLO temporaries (131.31G) exceeds available HBM (15.75G).', 'needs 131.31GiB of the 15.75GiB'),
    ],
)
def test_what_the_compiler_says_of_memory_is_read(message, said):
    found = compiling.refusal(jax.errors.JaxRuntimeError(message))
    assert found.startswith(said)
    built = compiling.Built('train', 1.0, {}, None, found)
    assert compiling.needed(built) == pytest.approx(float(said.split()[1].removesuffix('GiB')) * 2**30)
    with pytest.raises(jax.errors.JaxRuntimeError, match='INTERNAL'):
        compiling.refusal(jax.errors.JaxRuntimeError('INTERNAL: a bug'))


def test_machines_without_a_tpu_do_not_look_for_one(tmp_path):
    """With the TPU compiler installed, plain JAX would write pages before it falls back to the CPU."""
    done = subprocess.run(
        [sys.executable, '-m', 'diffusion.cli', 'doctor'],
        capture_output=True,
        text=True,
        check=False,
        cwd=conftest.ROOT,
    )
    assert done.returncode == 0 and done.stderr == ''


def test_sizes_are_written_as_people_read_them():
    assert printed.size(3.06 * 2**30) == '3.06 GiB' and printed.size(1023.9) == '1.00 KiB' and printed.size(0) == '0 B'
    assert printed.quantity(2.5e12, 'FLOP') == '2.50 TFLOP' and printed.quantity(0.0456, 's') == '45.6 ms'
    assert printed.quantity(0.9999, 's') == '1.00 s'


def test_the_shapes_of_slices():
    assert [str(topology.read(name)) for name in ('v5e:4x4', 'v5p:4x4x12', 'l4:2', 'a100:16')] == [
        'v5e:4x4',
        'v5p:4x4x12',
        'l4:2',
        '2 x a100:8',
    ]
    assert topology.read('tpu7x:2x2x1').devices == 8  # two a chip
    assert topology.read('v6e:8x8', 2).chips == 128


def test_a_roofline_by_hand():
    """A product, a sum of gradients within a slice and one between slices, on a v5e."""
    near = hlo.Collective('all-reduce', 400, 3, ((0, 1, 2, 3), (4, 5, 6, 7)))
    far = hlo.Collective('all-gather', 100, 1, ((0, 4), (1, 5), (2, 6), (3, 7)))
    cost = hlo.Cost(flops=1000, work=2000, bytes=500, collectives=(near, far))
    found = roofline.bound(cost, chips.CHIPS['v5e'], 'float32', neighbours=4)
    assert found.matrix == pytest.approx(2000 / 197e12) and found.memory == pytest.approx(500 / 819e9)
    assert found.links == pytest.approx(3 * 400 * 2 * 3 / 4 / 200e9)
    assert found.network == pytest.approx(100 / 2 / 3.125e9) and found.limit == 'network'
    # A sum over all: each of four first sums a quarter with its neighbours, then with its like in the other slice.
    both = hlo.Collective('all-reduce', 400, 1, (tuple(range(8)),))
    assert both.sent(4) == pytest.approx((2 * 400 * 3 / 4, 2 * 100 / 2)) and both.sent(8) == (2 * 400 * 7 / 8, 0)


@pytest.mark.parametrize('name', chips.CHIPS)
def test_chips_are_known_by_what_jax_calls_them(name):
    for kind in chips.CHIPS[name].kinds:
        assert chips.of_device(kind)[0] == name
    assert chips.of_device('cpu') is None and chips.of_device('NVIDIA L40S') is None


def test_a_training_says_its_mfu_on_a_chip_that_is_known(call, monkeypatch, tmp_path):
    """Here a CPU of 1 GFLOP/s by our table. The layers of the toy are products: one forwards, two backwards."""
    monkeypatch.setitem(chips.CHIPS, 'toy', chips.Chip(1e9, 1e9, 2**30, 1e9, 1e9, 1e9, ('cpu',)))
    words = (
        '--config.train.steps=4',
        '--config.train.log_every=2',
        '--config.preview.num=0',
        '--config.train.batch=16',
    )
    done = call('train', '--config=configs/toy2d.py', *words, f'--workdir={tmp_path / "run"}')
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
    devices = json.loads((tmp_path / 'run' / 'starts.jsonl').read_text())['devices']['count']
    weights = int(done.stderr.split(' weights')[0].split()[-1].replace(',', ''))
    for row in rows:
        # Six for each weight and image; biases, the table of classes and the first layer's input take none.
        assert row['mfu'] == pytest.approx(row['images_per_s'] * 6 * weights / (1e9 * devices), rel=0.1)


@pytest.mark.parametrize('room,least', [(64, 'none'), (20, 'none'), (3.4, 'full')])
def test_the_search_finds_a_setting_that_fits(monkeypatch, room, least):
    """On a compiler of our own, whose memory and time are known for every setting."""
    config = build.resolve(str(conftest.ROOT / 'configs/imagenet256_dit.py'), ['runtime.fsdp=1'])
    where = topology.read('v5e:4x4')
    kept = {'none': 40, 'dots_saveable': 30, 'dots_with_no_batch_dims_saveable': 24, 'full': 10}
    again = {'none': 1.0, 'dots_saveable': 1.05, 'dots_with_no_batch_dims_saveable': 1.2, 'full': 1.34}
    tried = []

    def needs(asked):
        return 2**30 * (12 / asked.fsdp + 2 + kept[asked.remat] / asked.pieces)

    def make(changes):
        chosen = build.override(config, changes)
        runtime, train = chosen['runtime'], chosen['train']
        run = types.SimpleNamespace(remat=chosen['net']['remat'], fsdp=runtime['fsdp'], pieces=train['accumulate'])
        run.seconds = again[run.remat] * (1 + 0.01 * run.fsdp) * (1 + 0.02 * (run.pieces - 1))
        return types.SimpleNamespace(run=run, grid=None, limit=room * 2**30, **vars(run))

    def training(run, grid, where):
        tried.append(run)
        need = needs(run)
        fits = need <= room * 2**30
        memory, refused = ({'peak': need}, '') if fits else ({}, f'needs {need / 2**30:.4f}GiB of the {room}GiB')
        return [types.SimpleNamespace(run=run, memory=memory, refused=refused, cost=fits)]

    monkeypatch.setattr(compiling, 'training', training)
    monkeypatch.setattr(figures, 'parts', lambda asked: {'all': 2**30 * 12 / asked.fsdp})
    monkeypatch.setattr(figures, 'bound', lambda asked, built: roofline.Bound(asked.seconds, 0, 0, 0))
    monkeypatch.setitem(chips.CHIPS, 'v5e', dataclasses.replace(chips.CHIPS['v5e'], memory=room * 2**30))
    found = fitting.search(config, where, make, lambda line: None)
    assert len(tried) <= fitting.MOST
    assert (tried[0].remat, tried[0].fsdp, tried[0].pieces) == ('dots_saveable', 1, 1), 'the config as it is'
    assert found is not None
    chosen = make(found)
    assert needs(chosen) <= room * 2**30 and chosen.remat == least
    assert chosen.seconds == min(run.seconds for run in tried if needs(run) <= room * 2**30)


def test_the_search_gives_up(monkeypatch):
    config = build.resolve(str(conftest.ROOT / 'configs/imagenet256_dit.py'), [])
    refused = types.SimpleNamespace(memory={}, refused='needs 99TiB of the 15GiB')
    monkeypatch.setattr(compiling, 'training', lambda *_: [refused])
    monkeypatch.setattr(figures, 'parts', lambda asked: {'all': 2**45})
    said = []
    make = lambda changes: types.SimpleNamespace(run=None, grid=None, limit=2**34)  # noqa: E731
    assert fitting.search(config, topology.read('v5e:4x4'), make, said.append) is None
    assert 1 <= len(said) <= fitting.MOST and all('does not fit' in line for line in said)
