"""Randomness belongs to examples, not to batches.

Every random number is drawn from a key of its own example, so that it is the same whatever the batch size, the
device count and the host count, and so that it needs no communication.
"""

import math
import zlib

import jax


def stream(key, name: str):
    """The key of one named use of `key`; names make each use distinct without counting splits."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def examples(key, indices):
    """One key an example. indices: [B] int, global positions or seeds. Returns keys: [B]."""
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(indices)


def substream(keys, name: str):
    """`stream` for keys: [B]."""
    return jax.vmap(lambda key: stream(key, name))(keys)


def at_step(keys, step):
    """The keys: [B] of one step of a loop."""
    return jax.vmap(lambda key: jax.random.fold_in(key, step))(keys)


def normal(keys, shape, dtype='float32'):
    """Standard normal noise [B, *shape], one independent draw for each of keys: [B]."""
    # Drawn in a row, whose numbers are the same: compilers for CPUs make vectors along the last axis, and the three
    # channels of a picture make none (benchmarks/NOTES.md).
    drawn = jax.vmap(lambda key: jax.random.normal(key, (math.prod(shape),), dtype))(keys)
    return drawn.reshape(*keys.shape, *shape)


def uniform(keys):
    """Uniform numbers [B] in [0, 1)."""
    return jax.vmap(jax.random.uniform)(keys)
