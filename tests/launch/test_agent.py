"""The agent in real processes: what it starts it starts once, and what it says of it is so."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from launch import agent, hosts, tree
from tests.launch import conftest


@pytest.fixture
def call(tmp_path, monkeypatch):
    """call(words of the program) prepares; call.agent(action, ...) -> its answer."""
    monkeypatch.setenv('STARTS', str(tmp_path / 'starts'))
    (tmp_path / 'starts').mkdir()
    archive = tree.archive(
        {'diffusion/__init__.py': (0o644, b'', ''), 'diffusion/cli.py': (0o644, conftest.WAITING, '')}
    )
    (tmp_path / 'tree.tar.gz').write_bytes(archive)

    class Call:
        started = tmp_path / 'starts'

        def __init__(self, *words):
            described = dict(
                name='toy', tree='abc', archive=str(tmp_path / 'tree.tar.gz'), words=list(words), install='', bucket='',
                setup='', home=str(tmp_path), python=sys.executable,
            )  # fmt: skip
            (tmp_path / 'job.json').write_text(json.dumps(described))
            assert self.agent('prepare') == {'ready': 'abc'}

        def agent(self, action, *flags, text=''):
            argv = (sys.executable, str(hosts.AGENT), action, str(tmp_path / 'job.json'), *flags)
            done = subprocess.run(argv, input=text, capture_output=True, encoding='utf-8', timeout=60, check=False)
            assert done.stdout.startswith(agent.MARK), done.stderr
            return json.loads(done.stdout.removeprefix(agent.MARK))

        def until(self, wanted, *flags):
            end = time.monotonic() + 30
            while (found := self.agent('poll', *flags))['state'] != wanted or 'ready' not in found['log']:
                if found['state'] == wanted == 'ended':
                    break
                assert time.monotonic() < end, found
                time.sleep(0.1)
            return found

    yield Call
    for path in tmp_path.glob('toy/host-*/attempt'):
        agent.send(json.loads(path.read_text())['pid'], signal.SIGKILL, True)


def test_words_and_secrets_arrive_and_the_exit_status_comes_back(call):
    words = ['end', '3', 'a b', "it's $(x);\n", '猫']
    made = call(*words)
    assert made.agent('poll', '--attempt=1')['state'] == 'none'
    made.agent('start', '--attempt=1', text=json.dumps({'TOKEN': 'very secret'}))
    found = made.until('ended', '--attempt=1')
    assert found['code'] == 3 and found['log'] == f'{words} very secret\n'
    assert made.agent('poll', '--attempt=1', f'--offset={found["offset"]}')['log'] == ''
    assert made.agent('poll', '--attempt=2')['state'] == 'none'


def test_an_attempt_is_started_once_and_never_beside_another(call):
    made = call('save')
    argv = (sys.executable, str(hosts.AGENT), 'start', str(made.started.parent / 'job.json'), '--attempt=1')
    null = subprocess.DEVNULL
    calls = [subprocess.Popen(argv, stdin=null, stdout=null) for _ in range(4)]
    assert [each.wait(60) for each in calls].count(0) >= 1
    made.until('running', '--attempt=1')
    assert made.agent('start', '--attempt=1')['state'] == 'running'
    assert made.agent('start', '--attempt=2')['state'] == 'busy'
    assert len(list(made.started.iterdir())) == 1
    assert made.agent('stop')['code'] == 75
    assert made.until('ended', '--attempt=1')['code'] == 75
    assert made.agent('start', '--attempt=2')['state'] == 'running'
    made.until('running', '--attempt=2')
    assert len(list(made.started.iterdir())) == 2


def test_one_that_does_not_listen_is_killed_after_the_grace(call):
    made = call('stubborn')
    made.agent('start', '--attempt=1')
    made.until('running', '--attempt=1')
    assert made.agent('stop', '--grace=0.5') == {'state': 'ended', 'code': -9, 'host': 0}


def test_a_killed_holder_does_not_free_the_lock_while_the_program_lives(call):
    made = call('save')
    made.agent('start', '--attempt=1')
    made.until('running', '--attempt=1')
    (path,) = made.started.parent.glob('toy/host-0/attempt')
    program = json.loads(path.read_text())['pid']
    with open(f'/proc/{program}/stat') as file:
        holder = int(file.read().rsplit(')', 1)[1].split()[1])
    os.kill(holder, signal.SIGKILL)
    assert made.agent('poll', '--attempt=1')['state'] == 'running'
    assert made.agent('start', '--attempt=2')['state'] == 'busy'
    os.kill(program, signal.SIGKILL)
    assert made.until('ended', '--attempt=1')['code'] == agent.KILLED
