"""JAX's random bits on CPUs: the same bits, in programs that compile in a tenth of the time.

JAX lowers Threefry-2x32 (Salmon et al. 2011, 20 rounds) to a loop on CPUs, each of which XLA compiles by itself: over a
second of a core for one array of random numbers, half a minute for the initialisation of a U-Net. In straight code XLA
fuses all of it into one kernel. Where there is a key an example, keys are made of keys, and straight code would be
computed again for every use of them: there the loop stays (benchmarks/NOTES.md).
"""

import jax
import jax.extend.random
import numpy as np
from jax import lax
from jax.interpreters import mlir

ROTATIONS = np.uint32([13, 15, 26, 6]), np.uint32([17, 29, 16, 24])
PARITY = np.uint32(0x1BD11BDA)


def words(key0, key1, count0, count1):
    """Threefry-2x32 with 20 rounds: uint32 arrays, which broadcast -> two uint32 arrays."""
    keys = key1, key0 ^ key1 ^ PARITY, key0
    state = count0 + key0, count1 + key1, keys, ROTATIONS
    if key0.ndim:
        return lax.fori_loop(0, 5, _four_rounds, state)[:2]
    for group in range(5):
        state = _four_rounds(group, state)
    return state[:2]


def _four_rounds(group, state):
    word0, word1, keys, rotations = state
    for i in range(4):
        bits = rotations[0][i]
        word0 = word0 + word1
        word1 = word0 ^ ((word1 << bits) | (word1 >> (np.uint32(32) - bits)))
    word0, word1 = word0 + keys[0], word1 + keys[1] + jax.numpy.uint32(group + 1)
    return word0, word1, (*keys[1:], keys[0]), rotations[::-1]


def quicken() -> None:
    """From now on programs for CPUs are made so. Call before anything is compiled."""
    rule = mlir.lower_fun(words, multiple_results=True)
    mlir.register_lowering(jax.extend.random.threefry2x32_p, rule, platform='cpu')
