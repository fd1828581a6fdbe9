"""Every example once an epoch, for any number of examples, any batch and any number of processes: found by search."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion.data import pipeline, sources

# Derandomised, without a deadline: the same cases on every machine, however slow.
exact = settings(derandomize=True, deadline=None, max_examples=60, database=None)


@st.composite
def worlds(draw):
    """(examples, batch, processes, the rows of each, seed): rows in any deal, as a mesh of several axes deals them."""
    processes = draw(st.integers(1, 8))
    batch = processes * draw(st.integers(1, 6))
    order = draw(st.permutations(range(batch)))
    rows = [np.sort(share) for share in np.split(np.array(order), processes)]
    return draw(st.integers(1, 200)), batch, processes, rows, draw(st.integers(0, 2**31 - 1))


def ids(examples, batch, seed, rows, start, steps, offset=0):
    """What one process reads: int64 [steps, rows]."""
    items = pipeline.Batches(sources.mixture(examples=examples), batch, seed, None, rows, start, offset)
    return np.stack([items[step]['index'] for step in range(steps)])


@exact
@given(worlds())
def test_each_epoch_holds_each_example_once_over_all_processes(world):
    examples, batch, _, rows, seed = world
    steps = -(-3 * examples // batch)
    shares = [ids(examples, batch, seed, share, 0, steps) for share in rows]
    # Dealt disjointly: in every step each place of the global batch belongs to one process.
    whole = np.full((steps, batch), -1)
    for share, read in zip(rows, shares):
        assert (whole[:, share] == -1).all()
        whole[:, share] = read
    stream = whole.reshape(-1)
    for epoch in range(3):
        np.testing.assert_array_equal(np.sort(stream[epoch * examples : (epoch + 1) * examples]), np.arange(examples))


@exact
@given(worlds(), st.integers(0, 10**6), st.integers(0, 500), st.integers(1, 8), st.integers(1, 20))
def test_a_position_is_taken_over_by_other_processes(world, start, offset, others, steps):
    """The stream is one sequence of examples; step s of any batch begins at s x batch + offset of it."""
    examples, batch, _, rows, seed = world
    one = np.empty((steps, batch), np.int64)
    for share in rows:
        one[:, share] = ids(examples, batch, seed, share, start, steps, offset)
    position = start * batch + offset
    np.testing.assert_array_equal(
        one.reshape(-1), pipeline.example_ids(np.arange(position, position + steps * batch), examples, seed)
    )
    # Another number of processes, with a batch of its own, goes on from the same integer.
    new = others * 3
    begin, rest = divmod(position, new)
    shares = np.split(np.arange(new), others)
    count = -(-steps * batch // new)
    other = np.concatenate([ids(examples, new, seed, share, begin, count, rest) for share in shares], axis=1)
    np.testing.assert_array_equal(other.reshape(-1)[: steps * batch], one.reshape(-1))
