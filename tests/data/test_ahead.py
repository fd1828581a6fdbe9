"""The read-ahead: items in order, never more than the limit, errors in their place."""

import itertools
import threading

import pytest

from diffusion.data import ahead


def test_depth_follows_the_pace_within_its_bounds():
    assert ahead.depth(None, 1) == ahead.FEWEST
    assert ahead.depth(0.1, 1) == 20  # two seconds of steps
    assert ahead.depth(10.0, 1) == ahead.FEWEST
    assert ahead.depth(1e-6, 1) == ahead.depth(0.0, 1) == ahead.MOST
    assert ahead.depth(0.1, 2**27) == 8  # a gibibyte of batches
    assert ahead.depth(0.1, 2**40) == ahead.FEWEST


def test_items_come_in_order_and_the_limit_holds_and_may_grow():
    taken, limit = [], [3]
    reached = threading.Event()

    def stream():
        for i in itertools.count():
            taken.append(i)
            if len(taken) == limit[0] + given:
                reached.set()
            yield i

    given = 0
    reader = ahead.Ahead(stream(), lambda: limit[0], lambda: None)
    assert reached.wait(60)
    assert not any(reader._thread.join(0.1) for _ in range(2)) and len(taken) == 3
    reached.clear()
    limit[0], given = 5, 1
    assert reader.next() == 0
    assert reached.wait(60) and len(taken) == 6
    assert [reader.next() for _ in range(20)] == list(range(1, 21))
    reader.close()
    assert not reader._thread.is_alive()
    with pytest.raises(RuntimeError, match='closed'):
        reader.next()


def test_an_error_comes_after_the_items_before_it():
    def stream():
        yield from (1, 2)
        raise ValueError('the third')

    reader = ahead.Ahead(stream(), lambda: 10, lambda: None)
    assert [reader.next(), reader.next()] == [1, 2]
    for _ in range(2):
        with pytest.raises(ValueError, match='the third'):
            reader.next()
    reader.close()
