"""Processes that read: the batches of one thread bit for bit, and nothing left behind however it ends."""

import itertools
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from diffusion.data import pipeline, tokens

ROOT = pathlib.Path(__file__).parents[2]
PATIENCE = 60  # seconds until a process that has to end is taken to be left behind


def taken(source, count, **arguments):
    stream = pipeline.batches(source, batch=12, seed=3, **arguments)
    batches = list(itertools.islice(stream, count))
    stream.close()
    return batches


def same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype
            np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.long
def test_batches_are_those_without_workers_from_any_step_on(faces):
    encode = tokens.words(faces.captions()).encode
    rows = np.array([0, 3, 5, 11])
    plain = taken(faces, 12, encode=encode, rows=rows)
    same(plain, taken(faces, 12, encode=encode, rows=rows, workers=2))
    same(plain[5:], taken(faces, 7, encode=encode, rows=rows, workers=3, start=5))


def test_an_error_in_a_worker_is_raised_and_ends_all(faces):
    stream = pipeline.batches(faces, batch=4, seed=0, encode=_refuse, workers=1)
    with pytest.raises(ValueError, match='not these'):
        next(stream)
    stream.close()


def _refuse(captions):
    raise ValueError('not these')


PARENT = """
import signal, sys, time
from diffusion.data import pipeline, sources
if __name__ == '__main__':
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in the background
    stream = pipeline.batches(sources.mixture(examples=100), batch=10, seed=0, workers=2)
    next(stream)
    next(stream)
    print('reading', flush=True)
    if sys.argv[1] == 'fault':
        raise RuntimeError('a fault')
    time.sleep(600)
"""


def _family(group):
    """The processes of a group that still run."""
    found = []
    for entry in pathlib.Path('/proc').iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / 'stat').read_text().rpartition(')')[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != 'Z':
                found.append(int(entry.name))
    return found


@pytest.mark.skipif(not pathlib.Path('/proc/self/stat').exists(), reason='counts processes in /proc, which Linux has')
@pytest.mark.parametrize('ending', ['SIGINT', 'SIGKILL', pytest.param('fault', marks=pytest.mark.pods)])
def test_no_process_is_left_behind(tmp_path, ending):
    """SIGINT goes to the whole group, as a terminal sends it; the others to the parent alone."""
    script = tmp_path / 'parent.py'
    script.write_text(PARENT)
    before = set(os.listdir('/dev/shm'))
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    words = [sys.executable, str(script), ending]
    process = subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == 'reading\n'
    assert len(_family(process.pid)) >= 3
    if ending == 'SIGINT':
        os.killpg(process.pid, signal.SIGINT)
    elif ending == 'SIGKILL':
        process.kill()
    said = process.stderr.read()
    process.wait(PATIENCE)
    assert ('a fault' in said) == (ending == 'fault') and ('KeyboardInterrupt' in said) == (ending == 'SIGINT'), said
    deadline = time.monotonic() + PATIENCE
    while _family(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _family(process.pid)
    # Those of other tests that run beside this one are among them; these vanish too, when they have been read.
    there = set(os.listdir('/dev/shm')) - before
    while (left := there & set(os.listdir('/dev/shm'))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left
