"""Processes played by threads: where they stop, whoever is asked, wherever each is."""

import collections
import queue
import random
import threading
import time

import pytest

from diffusion.runtime import agreement


class Post:
    """Links of one process to the others, which hear after a while."""

    def __init__(self, process, count, boxes):
        self.process, self.count, self._boxes = process, count, boxes

    def send(self, peer, message):
        self._boxes[peer].put((self.process, message))


def job(count, seed):
    """Agreements of a job whose messages take up to 5 ms, and the list of those that left at once."""
    chance, left = random.Random(seed), []
    boxes = collections.defaultdict(queue.Queue)
    members = []
    for process in range(count):
        member = agreement.Agreement(lambda process=process: left.append(process))
        member.join(Post(process, count, boxes))
        members.append(member)

    def deliver(process):
        while (item := boxes[process].get()) is not None:
            time.sleep(chance.random() * 0.005)
            members[process].heard(*item)

    for process in range(count):
        threading.Thread(target=deliver, args=(process,), daemon=True).start()
    return members, left


@pytest.mark.parametrize('count', [1, 2, 4])
@pytest.mark.parametrize('seed', range(4))
def test_all_stop_at_one_check_point(count, seed):
    """Two processes are asked at about the same time; none may be more than one step ahead, as collectives see to."""
    members, left = job(count, seed)
    barrier, stops = threading.Barrier(count), {}

    def run(process):
        chance = random.Random(f'{seed} {process}')
        for point in range(1, 200):
            barrier.wait(5)
            time.sleep(chance.random() * 0.002)
            if members[process].reached():
                stops[process] = point
                return

    for member in members:
        member.enter(agreement.BETWEEN)
    threads = [threading.Thread(target=run, args=(process,)) for process in range(count)]
    for thread in threads:
        thread.start()
    time.sleep(0.02)
    for asked in {0, count - 1}:
        members[asked].ask()
    for thread in threads:
        thread.join(10)
    assert not left
    assert len(stops) == count and len(set(stops.values())) == 1 and stops[0] < 199


def eventually(condition):
    end = time.monotonic() + 5
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


@pytest.mark.parametrize('asked', [0, 2])
def test_before_the_first_step_all_leave_at_once(asked):
    members, left = job(3, 0)
    members[0].enter(agreement.BETWEEN)  # one has compiled already and waits for the others in its first step
    members[asked].ask()
    assert eventually(lambda: sorted(left) == [0, 1, 2])


def test_after_the_last_step_they_leave_when_all_have_saved():
    members, left = job(3, 0)
    for member in members:
        member.enter(agreement.BETWEEN)
        assert not member.reached()
    members[1].enter(agreement.END)
    members[1].ask()
    members[0].enter(agreement.END)
    time.sleep(0.1)
    assert not left
    members[2].enter(agreement.END)
    assert eventually(lambda: sorted(set(left)) == [0, 1, 2])
