"""Being stopped in every phase of a program, in real processes."""

import json
import re
import signal
import socket
import time

import pytest

from diffusion import ports
from tests.programs import test_divergence

pytestmark = pytest.mark.pods

TOY = (*test_divergence.TOY[:2], *test_divergence.TOY[3:])  # as many devices as there are cores
STEPS = '--config.train.steps=100000'


def wait_for(process, said, condition, seconds=120):
    """Reads what a process says into `said` until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, said
        line = process.stdout.readline()
        assert line or process.poll() is None, said
        said.append(line)


def finish(process, said, seconds=60):
    rest = process.communicate(timeout=seconds)[0]
    return process.returncode, ''.join(said) + rest


def says(said, words):
    return lambda: any(words in line for line in said)


def under_way(said):
    """Whether a job has ended its first step, which takes all its processes: two may be begun by one of them."""
    return lambda: any(re.search(r'train ([3-9]|\d\d+)/', line) for line in said)


def steps_logged(folder, at_least):
    path = folder / 'metrics.jsonl'
    return lambda: path.exists() and len(path.read_text().splitlines()) >= at_least


def saved(folder):
    return sorted(int(path.name) for path in (folder / 'checkpoints').iterdir() if path.name.isdecimal())


def test_while_it_compiles_there_is_nothing_to_save(diffusion, tmp_path):
    """Python itself would not hear of the signal before the compiler is done."""
    flags = ('--config=configs/emoji.py', '--config.runtime.platform=cpu', '--config.preview.every=0')
    process, said = diffusion('train', *flags, f'--workdir={tmp_path / "run"}', start=True, **uncached(tmp_path)), []
    wait_for(process, said, says(said, 'weights;'))
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    begin = time.monotonic()
    code, told = finish(process, said)
    assert code == 75 and time.monotonic() - begin < 5
    assert 'SIGTERM: nothing to save, no step was taken' in told and 'compiled the training step' not in told


def uncached(tmp_path):
    return {'JAX_ENABLE_COMPILATION_CACHE': 'false'}


def test_while_it_draws_samples_it_stops_between_two_calls_and_draws_them_later(diffusion, tmp_path):
    folder = tmp_path / 'run'
    flags = (*TOY, f'--workdir={folder}', '--config.preview.every=4', '--config.train.log_every=1')
    # 5000 calls of the sampler, which take many times as long as the test may.
    process, said = diffusion('train', *flags, STEPS, '--config.preview.num=80000', start=True), []
    wait_for(process, said, says(said, 'compiled'))
    end = time.monotonic() + 60
    while not steps_logged(folder, 3)() and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    begin = time.monotonic()
    code, told = finish(process, said)
    assert code == 75 and 'stopped at step 4 of 100000, all saved' in told and time.monotonic() - begin < 10
    assert saved(folder) == [4] and not (folder / 'samples').exists()
    small = ('--config.preview.num=16', '--config.train.steps=5', '--allow-config-change=preview.num')
    done = diffusion('train', *flags, *small)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (folder / 'samples').iterdir()) == ['step_0000004.png', 'step_0000005.png']


def test_after_its_last_step_everything_is_saved(diffusion, tmp_path):
    folder = tmp_path / 'run'
    flags = (*TOY, f'--workdir={folder}', '--config.train.steps=4', '--config.preview.num=80000')
    process, said = diffusion('train', *flags, start=True), []
    wait_for(process, said, says(said, 'compiled'))
    end = time.monotonic() + 60
    while not (folder / 'checkpoints' / '4').exists() and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    code, told = finish(process, said)
    assert code == 75 and 'SIGTERM: all 4 steps are saved' in told


@pytest.mark.parametrize('words', [('sample', '--steps=1000'), ('evaluate', '--metrics=nll', '--num=50000')])
def test_a_program_that_keeps_no_state_says_so(diffusion, points, tmp_path, words):
    out = ('--num=200000', f'--out={tmp_path / "out"}') if words[0] == 'sample' else ()
    process, said = diffusion(*words, *out, f'--workdir={points}', start=True), []
    wait_for(process, said, says(said, 'weights of step'))
    process.send_signal(signal.SIGTERM)
    begin = time.monotonic()
    code, told = finish(process, said)
    assert code == 75 and 'SIGTERM: nothing to save' in told and time.monotonic() - begin < 5


@pytest.fixture
def job(diffusion):
    """job(count, *flags, own) -> the processes of a job, all but the last `missing`; own: flags of one alone."""
    started = []

    def start(count, *words, own=None, missing=0):
        together = (f'--coordinator=localhost:{ports.free_pair()}', f'--processes={count}')
        flags = (*TOY, *words, *together, f'--config.runtime.devices={count}')
        here = range(count - missing)
        found = [diffusion('train', *flags, f'--process={i}', *(own or {}).get(i, ()), start=True) for i in here]
        started.extend(found)
        return found

    yield start
    for process in started:
        process.kill()
        process.communicate()


def stopped_at(told):
    found = re.search(r'stopped at step (\d+) of', told)
    assert found, told
    return int(found[1])


@pytest.mark.parametrize('count,asked', [pytest.param(2, 0, marks=pytest.mark.slow), (2, 1), (4, 3)])
def test_all_processes_stop_at_one_step_whichever_is_asked(job, tmp_path, count, asked):
    folder = tmp_path / 'run'
    flags = ('--config.train.save_every=100000', f'--workdir={folder}')
    started = job(count, STEPS, *flags)
    said = [[] for _ in started]
    wait_for(started[0], said[0], under_way(said[0]))
    started[asked].send_signal(signal.SIGTERM)
    ends = [finish(*each) for each in zip(started, said)]
    assert [code for code, _ in ends] == [75] * count, ends
    step = stopped_at(ends[0][1])
    assert saved(folder) == [step]
    again = job(count, f'--config.train.steps={step + 3}', *flags)
    ends = [finish(each, []) for each in again]
    assert [code for code, _ in ends] == [0] * count, ends
    assert f'goes on where it stopped: step {step} of' in ends[0][1]
    position = json.loads((folder / 'metrics.jsonl').read_text().splitlines()[-1])
    assert position['step'] == step + 3


HERE = socket.gethostname()
HANGS = (signal.SIGSTOP, ('--config.runtime.watchdog=15',), 'nothing has finished for 15 s (runtime.watchdog) at: ', 70)


@pytest.mark.parametrize(
    'count,number,flags,named,other',
    [
        (2, signal.SIGKILL, (), f'host 1 of 2 ({socket.gethostname()}) is gone', -9),
        pytest.param(
            4, signal.SIGKILL, (), f'host 1 of 4 ({socket.gethostname()}) is gone', -9, marks=pytest.mark.slow
        ),
        pytest.param(2, *HANGS, marks=pytest.mark.slow),
    ],
    ids=['killed', 'one of four killed', 'hangs'],
)
def test_one_that_is_killed_or_hangs_is_named_by_the_others(job, tmp_path, count, number, flags, named, other):
    first, hurt, *more = job(count, STEPS, f'--workdir={tmp_path / "run"}', *flags)
    said = []
    wait_for(first, said, under_way(said))
    hurt.send_signal(number)
    begin = time.monotonic()
    code, told = finish(first, said)
    ends = [finish(each, []) for each in more]
    hurt.send_signal(signal.SIGCONT)
    assert code == 70 and time.monotonic() - begin < 45
    assert named in told, told
    assert all(code == 70 and named in told for code, told in ends), ends
    # The stacks of all threads, the main one among them.
    assert 'most recent call first' in told and 'programs/train.py' in told
    assert hurt.wait(30) == other


def test_a_job_that_is_not_whole_or_not_alike_does_not_begin(job, tmp_path):
    folder = f'--workdir={tmp_path / "run"}'
    begin = time.monotonic()
    alone = job(3, folder, '--config.runtime.startup=4', missing=2)
    code, told = finish(alone[0], [])
    assert code == 70 and time.monotonic() - begin < 45
    assert 'hosts 1, 2 of 3 have not reported after 4 s' in told and told.count('\n') == 1
    both = job(2, folder, own={1: ('--config.optimizer.lr=0.5',)})
    for process in both:
        code, told = finish(process, [])
        assert code == 70 and f'host 1 ({socket.gethostname()}) runs config ' in told
    assert not (tmp_path / 'run').exists()
