"""What a machine reaches at most, measured: matrix products and copies of its memory on all devices at once."""

import dataclasses
import time

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

SECONDS = 0.5  # of each measurement


@dataclasses.dataclass(frozen=True)
class Ceilings:
    """products: FLOP/s by type, of JAX's default precision; copy: bytes/s, what is read and what is written."""

    products: dict[str, float]
    copy: float


def measure(devices: list[jax.Device], seconds: float = SECONDS) -> Ceilings:
    """The best of the rounds that fit into so many seconds each."""
    cpu = devices[0].platform == 'cpu'
    side, length = (768, 2**26) if cpu else (8192, 2**28)
    mesh = jax.make_mesh((len(devices),), ('all',), (jax.sharding.AxisType.Auto,), devices=devices)
    split = NamedSharding(mesh, PartitionSpec('all'))

    def ones(shape, dtype):
        return jax.jit(lambda: jnp.ones((len(devices), *shape), dtype), out_shardings=split)()

    products = {}
    for dtype in ('float32',) if cpu else ('float32', 'bfloat16'):
        both = ones((side, side), dtype), ones((side, side), dtype)
        best = _best(jax.jit(jnp.matmul, out_shardings=split), both, seconds)
        products[dtype] = 2 * side**3 * len(devices) / best
    added = jax.jit(lambda x: x + 1, donate_argnums=0, out_shardings=split)
    best = _copied(added, ones((length,), 'float32'), seconds)
    return Ceilings(products, 8 * length * len(devices) / best)


def _copied(function, x, seconds) -> float:
    """Seconds of the fastest call, each into the memory of its argument: new memory is slow at first."""
    x = jax.block_until_ready(function(x))
    best, end = float('inf'), time.monotonic() + seconds
    while time.monotonic() < end:
        begin = time.perf_counter()
        x = jax.block_until_ready(function(x))
        best = min(best, time.perf_counter() - begin)
    return best


def _best(function, arguments, seconds) -> float:
    """Seconds of the fastest call."""
    jax.block_until_ready(function(*arguments))
    best, end = float('inf'), time.monotonic() + seconds
    while time.monotonic() < end:
        begin = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        best = min(best, time.perf_counter() - begin)
    return best
