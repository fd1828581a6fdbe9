"""`diffusion train` as several real processes on this machine."""

import json
import re
import socket

import numpy as np
import pytest
from PIL import Image

from diffusion import ports
from tests.programs import conftest

pytestmark = pytest.mark.pods

WORDS = (
    *conftest.TINY,
    '--config.data.subset=faces',
    '--config.preview.every=4',
    '--config.runtime.fsdp=2',
    '--config.train.accumulate=2',
)


@pytest.fixture
def together(diffusion):
    """together(processes, *words) -> (exit status, what it said) of each of that many `diffusion train WORDS`."""

    def run(processes, *words):
        flags = (f'--coordinator=localhost:{ports.free_pair()}', f'--processes={processes}')
        started = [diffusion('train', *words, *flags, f'--process={i}', start=True) for i in range(processes)]
        said = [process.communicate(timeout=300)[0].splitlines() for process in started]
        # The library that joins the processes of a CPU writes to stderr as it likes.
        ours = ['\n'.join(line for line in lines if not line.startswith('[Gloo]')) for lines in said]
        return [(process.returncode, text) for process, text in zip(started, ours)]

    return run


def losses(folder):
    lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    assert len({line['step'] for line in lines if 'loss' in line}) == sum('loss' in line for line in lines)
    return {line['step']: line['loss'] for line in lines if 'loss' in line}


def test_two_processes_train_as_one_then_four_go_on_where_they_stopped_and_then_one(
    diffusion, together, trained, tmp_path
):
    folder = tmp_path / 'run'
    half = ('--config.train.steps=4', f'--workdir={folder}')
    for status, said in together(2, *WORDS, '--config.runtime.devices=2', *half):
        assert status == 0, said
    first, *others = together(4, *WORDS, '--config.runtime.devices=4', f'--workdir={folder}')
    assert [status for status, _ in (first, *others)] == [0] * 4, (first, others)
    assert '4 cpu device(s) of 4 processes' in first[1] and 'step 4 of 8' in first[1]
    assert [said for _, said in others] == [''] * 3
    # Restored from a cache, these programs run their collectives in another order on each process.
    assert re.search(r'compile: \d+ missed, 0 from the cache, .* \(nothing is kept: XLA cannot restore', first[1]), (
        first[1]
    )
    found, wanted = losses(folder), losses(trained)
    assert list(found) == list(wanted)
    np.testing.assert_allclose(list(found.values()), list(wanted.values()), rtol=1e-4)
    assert len(list(folder.glob('events.out.tfevents.*'))) == 2
    sheets = [np.asarray(Image.open(path / 'samples' / 'step_0000008.png'), int) for path in (folder, trained)]
    assert np.mean(np.abs(sheets[0] - sheets[1]) > 8) < 0.01
    more = diffusion(
        'train', *conftest.TINY, '--config.train.steps=10', f'--workdir={folder}', '--allow-config-change=preview.every'
    )
    assert more.returncode == 0 and 'step 8 of 10' in more.stderr, more.stderr
    drawn = diffusion('sample', f'--workdir={folder}', '--prompt=cat face', '--num=2', f'--out={tmp_path / "out"}')
    assert drawn.returncode == 0, drawn.stderr


def test_what_is_wrong_ends_every_process(together, tmp_path):
    for status, said in together(2, *WORDS, '--config.train.batch=10', f'--workdir={tmp_path / "run"}'):
        assert status == 2 and 'does not divide' in said
    assert not (tmp_path / 'run').exists()


def test_a_port_that_another_program_listens_on_is_named_at_once(diffusion, tmp_path):
    port = ports.free_pair()
    assert port % 2 == 0 and not ports.taken(port)
    with socket.create_server(('', port + 1)):
        assert ports.taken(port + 1)
        flags = (f'--coordinator=localhost:{port}', '--processes=2', '--process=0')
        done = diffusion('train', *WORDS, *flags, f'--workdir={tmp_path / "run"}')
    assert done.returncode == 70 and done.stderr.count('\n') == 1, done.stderr
    assert f'port {port + 1} of this host is taken by another program' in done.stderr
    assert not (tmp_path / 'run').exists()
