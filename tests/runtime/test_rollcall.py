"""The roll call, its processes played by threads with real connections."""

import socket
import threading
import time

import pytest

from diffusion import ports
from diffusion.runtime import rollcall, watchdog


def call(reports, present=None, deadline=20.0):
    """What each of the present processes is told: Links, or the message of its RollCallError."""
    port, told = ports.free_pair(), {}

    def one(process):
        try:
            told[process] = rollcall.assemble(f'localhost:{port}', process, len(reports), reports[process], deadline)
        except rollcall.RollCallError as error:
            told[process] = str(error)

    threads = [threading.Thread(target=one, args=(process,)) for process in present or range(len(reports))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return told


def test_all_alike_are_connected_and_miss_the_one_that_goes():
    links = call([{'jaxlib': '1'}] * 3)
    again = [threading.Thread(target=links[p].compare, args=({'data': 'x'}, 10)) for p in (1, 2)]
    for thread in again:
        thread.start()
    links[0].compare({'data': 'x'}, 10)
    for thread in again:
        thread.join(10)
    heard, lost = [], []
    for process in range(3):
        links[process].listen(lambda *item: heard.append(item), lost.append)
    links[1].send(0, {'ask': True})
    links[2].close(farewell=False)
    end = time.monotonic() + 5
    while not (heard and lost) and time.monotonic() < end:
        time.sleep(0.01)
    assert heard == [(1, {'ask': True})] and lost == [2]
    links[1].close()
    time.sleep(0.1)
    assert lost == [2]
    links[0].close()


def test_a_missing_one_is_named_to_all_within_the_deadline():
    begin = time.monotonic()
    told = call([{}] * 4, present=(0, 1, 2), deadline=1.0)
    assert time.monotonic() - begin < 5
    assert all(said.startswith('host 3 of 4 has not reported after 1 s') for said in told.values()), told
    assert 'hosts 1, 3 of 4 have not' in rollcall.absent([1, 3], 4, 60)


def test_without_the_first_one_the_others_say_so():
    told = call([{}] * 2, present=(1,), deadline=1.0)
    assert 'host 0 cannot be reached at localhost:' in told[1] and 'after 1 s' in told[1]


@pytest.mark.parametrize('odd', [0, 1])
def test_a_different_one_is_named_to_all(odd):
    reports = [{'jaxlib': '0.10.2', 'config': 'a'} for _ in range(4)]
    reports[odd] = {'jaxlib': '0.9.1', 'config': 'a'}
    told = call(reports)
    assert len(set(told.values())) == 1
    assert f'host {odd} ({socket.gethostname() if not odd else ""}'[:8] in told[0]
    assert 'runs jaxlib 0.9.1, the others 0.10.2' in told[2] and 'config' not in told[2]


def test_what_is_no_member_is_sent_away():
    """A stranger, who says nothing sensible, and a process number given twice."""
    port, told = ports.free_pair(), {}

    def one(name, process):
        try:
            told[name] = rollcall.assemble(f'localhost:{port}', process, 3, {}, 10.0)
        except rollcall.RollCallError as error:
            told[name] = str(error)

    first = threading.Thread(target=one, args=('first', 0))
    first.start()
    time.sleep(0.2)
    with socket.create_connection(('localhost', port)) as stranger:
        stranger.sendall(b'GET / HTTP/1.1\r\n\r\n')
        threads = [threading.Thread(target=one, args=(name, 1)) for name in ('second', 'copy')]
        for thread in threads:
            thread.start()
            time.sleep(0.2)
        threads.append(threading.Thread(target=one, args=('third', 2)))
        threads[-1].start()
        for thread in (first, *threads):
            thread.join(30)
    assert 'process 1 has reported already' in told['copy']
    assert all(isinstance(told[name], rollcall.Links) for name in ('first', 'second', 'third'))
    for name in ('third', 'second', 'first'):
        told[name].close()


def test_the_watchdog_barks_once_and_only_when_nothing_moves():
    alarms = []
    with watchdog.Watchdog(0.3, alarms.append) as dog:
        for step in range(6):
            time.sleep(0.1)
            dog.beat(f'step {step}')
        assert not alarms
        time.sleep(1.0)
    assert len(alarms) == 1 and alarms[0].endswith('at: step 5') and '0.3 s' in alarms[0]
    with watchdog.Watchdog(0, alarms.append):
        time.sleep(0.1)
    assert len(alarms) == 1
