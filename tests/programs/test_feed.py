"""The data of a training: read by processes, ahead of the steps, and what it says where steps wait for them."""

import json
import os
import threading
import types

import pytest

from diffusion.programs import feed
from tests.programs.test_checkpoint import QUICK


def losses(folder):
    lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    return [line['loss'] for line in lines], [line['data_wait'] for line in lines]


@pytest.mark.long
def test_who_reads_changes_nothing_and_waiting_is_said_once(call, tmp_path, monkeypatch):
    """One run is read by two processes, the other by threads that are made slow."""
    words = ('--config.runtime.workers=2', '--config.runtime.ahead=3')
    done = call('train', *QUICK, *words, f'--workdir={tmp_path / "processes"}')
    assert done.returncode == 0, done.stderr
    quick, pause = feed.Feed.next, threading.Event()
    monkeypatch.setattr(feed.Feed, 'next', lambda self: (pause.wait(0.15), quick(self))[1])
    done = call('train', *QUICK, f'--workdir={tmp_path / "slow"}')
    assert done.returncode == 0, done.stderr
    expected, waited = losses(tmp_path / 'slow')
    assert losses(tmp_path / 'processes')[0] == expected
    # Where a step is read as soon as it is dispatched, before a checkpoint, the next window has no step to wait for.
    assert len(waited) == 12 and max(waited) <= 1 and sorted(waited)[4] > 0.1
    assert done.stderr.count('waiting for data') == 1 and f'data bench --workdir={tmp_path / "slow"}' in done.stderr


def test_sets_in_memory_are_read_without_processes():
    def data(resident):
        return types.SimpleNamespace(open=lambda: types.SimpleNamespace(resident=resident))

    assert feed.workers(-1, data(True)) == 0
    assert feed.workers(3, data(True)) == feed.workers(3, data(False)) == 3
    assert 0 <= feed.workers(-1, data(False)) <= min(os.cpu_count(), feed.WORKERS)


@pytest.mark.parametrize('flag', ['workers=-2', 'ahead=-1'])
def test_bad_input(call, tmp_path, flag):
    done = call('train', *QUICK, f'--config.runtime.{flag}', f'--workdir={tmp_path / "run"}')
    assert done.returncode == 2 and 'workers must be at least 0' in done.stderr
    assert not (tmp_path / 'run').exists()


def test_the_read_ahead_of_a_run_follows_its_pace():
    facts = types.SimpleNamespace(shape=(32, 32, 3), dtype='uint8')
    paces = iter([None, 0.1, 0.1])
    for fixed, expected in ((0, [4, 20]), (7, [7])):
        limit = feed.limit({'runtime': {'ahead': fixed}}, facts, 64, lambda: next(paces))
        assert [limit() for _ in expected] == expected
