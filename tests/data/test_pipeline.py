"""Batches: exact epochs whatever batch and process count, and a stream that restarts anywhere."""

import itertools
import threading

import numpy as np
import pytest

from diffusion.data import pipeline, sources, tokens


def _ids(source, steps, **arguments):
    stream = pipeline.batches(source, **arguments)
    ids = [batch['index'] for batch in itertools.islice(stream, steps)]
    stream.close()
    return np.stack(ids)


def _cases():
    rng = np.random.default_rng(0)
    for _ in range(6):
        processes = int(rng.integers(1, 5))
        yield int(rng.integers(1, 60)), processes * int(rng.integers(1, 9)), processes
    yield 1, 3, 3
    yield 7, 16, 4


@pytest.mark.parametrize(('examples', 'batch', 'processes'), list(_cases()))
def test_every_epoch_holds_every_example_once(examples, batch, processes):
    source = sources.mixture(examples=examples)
    steps = -(-3 * examples // batch)
    rows = np.random.default_rng(batch).permutation(batch) if examples % 2 else np.arange(batch)
    rows = [np.sort(share) for share in np.split(rows, processes)]
    shares = [_ids(source, steps, batch=batch, seed=5, rows=share) for share in rows]
    assert all(share.shape == (steps, batch // processes) for share in shares)
    stream = np.concatenate(shares, axis=1)[:, np.argsort(np.concatenate(rows))].reshape(-1)
    for epoch in range(3):
        assert sorted(stream[epoch * examples : (epoch + 1) * examples]) == list(range(examples))
    np.testing.assert_array_equal(stream, _ids(source, steps, batch=batch, seed=5).reshape(-1))


def test_epochs_and_seeds_differ_and_are_shuffled():
    n = 200
    one = pipeline.example_ids(np.arange(3 * n), n, seed=1)
    other = pipeline.example_ids(np.arange(3 * n), n, seed=2)
    orders = [*one.reshape(3, n), *other.reshape(3, n), np.arange(n)]
    for a, b in itertools.combinations(orders, 2):
        # Two random permutations agree in one place on average (Poisson); ten is one chance in ten million.
        assert (a == b).sum() < 10


def test_permutations_of_three_are_evenly_likely():
    """Chi-squared with 5 degrees of freedom: below 20.5 but for one chance in a thousand."""
    orders = pipeline.example_ids(np.arange(3 * 3000), 3, seed=0).reshape(-1, 3)
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 6
    assert ((counts - 500) ** 2 / 500).sum() < 20.5


def test_epochs_too_large_for_a_table_are_permutations_too(monkeypatch):
    monkeypatch.setattr(pipeline, 'TABLE', 0)
    n = 5000
    orders = pipeline.example_ids(np.arange(2 * n), n, seed=0).reshape(2, n)
    for order in orders:
        assert sorted(order) == list(range(n))
    assert (orders[0] == orders[1]).sum() < 10


def test_restart_gives_the_same_stream():
    source = sources.mixture(examples=37)
    whole = _ids(source, 20, batch=6, seed=9)
    for start in (1, 7, 13):
        np.testing.assert_array_equal(whole[start:], _ids(source, 20 - start, batch=6, seed=9, start=start))
    far = _ids(source, 1, batch=6, seed=9, start=10**12)
    assert far.min() >= 0
    assert far.max() < 37


def test_content_belongs_to_the_ids(faces):
    encoder = tokens.words(faces.captions())
    stream = pipeline.batches(faces, batch=8, seed=0, encode=encoder.encode, rows=np.arange(4, 8))
    for batch in itertools.islice(stream, 5):
        expected = faces.gather(batch['index'])
        assert sorted(batch) == ['image', 'index', 'label', 'tokens']
        assert batch['index'].dtype == np.int64
        assert batch['tokens'].dtype == np.int32
        np.testing.assert_array_equal(batch['image'], expected['image'])
        np.testing.assert_array_equal(batch['label'], expected['label'])
        np.testing.assert_array_equal(batch['tokens'], encoder.encode(expected['caption']))
    stream.close()


def test_close_ends_the_threads():
    before = threading.active_count()
    stream = pipeline.batches(sources.mixture(examples=50), batch=5, seed=0)
    next(stream)
    reading = [thread for thread in threading.enumerate() if 'grain' in thread.name]
    stream.close()
    for thread in reading:
        thread.join(timeout=5)
    assert threading.active_count() <= before


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'batch': 0}, 'at least 1'),
        ({'batch': 4, 'rows': [2, 4]}, 'places in a batch of 4'),
        ({'batch': 4, 'rows': []}, 'places in a batch of 4'),
        ({'batch': 4, 'start': -1}, 'start=-1'),
        ({'batch': 4, 'encode': len}, 'no captions'),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(ValueError, match=message):
        pipeline.batches(sources.mixture(examples=10), seed=0, **arguments)


def test_missing_data_is_said_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match='tfds build'):
        pipeline.batches(sources.tfds('cifar10', data_dir=str(tmp_path)), batch=4, seed=0)
