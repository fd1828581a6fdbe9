"""A pure function of weights and examples, compiled once and called on any number of examples in calls of one size."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from diffusion.runtime import mesh as meshes


@dataclasses.dataclass(frozen=True)
class Calls:
    """function: (weights, dict of [batch, ...]) -> a tree of [batch, ...], split over the mesh."""

    function: Any
    mesh: Mesh
    batch: int

    def prepared(self, weights, row: dict) -> 'Calls':
        """Compiled now and not by the first call, for weights and examples like these. row: dict of numpy [...]."""
        split = meshes.batched(self.mesh)
        shapes = {
            name: jax.ShapeDtypeStruct((self.batch, *np.shape(value)), np.asarray(value).dtype, sharding=split)
            for name, value in row.items()
        }
        return dataclasses.replace(self, function=self.function.lower(weights, shapes).compile())

    def over(self, weights, inputs: Callable[[np.ndarray], dict], count: int) -> Iterator:
        """The results as numpy arrays, a call's worth at a time, in order.

        inputs: rows, int [b] in [0, count), to a dict of numpy [b, ...]. Where there are several processes all of them
        must call it, and all have the results.
        """
        own = meshes.rows(self.mesh, self.batch)
        for start in range(0, count, self.batch):
            rows = np.arange(start, min(start + self.batch, count))
            # The last call is filled up with repetitions: one shape, one compilation.
            every = np.resize(rows, self.batch)
            found = self.function(weights, meshes.put(self.mesh, inputs(every[own])))
            yield _first(len(rows), meshes.fetch(found))


def _first(count, tree):
    return jax.tree.map(lambda array: np.asarray(array)[:count], tree)


def compiled(function, mesh: Mesh, batch: int, most: int) -> Calls:
    """batch: examples a call, rounded up to a multiple of the shards; most: how many there are, if fewer."""
    shards = meshes.shards(mesh)
    size = -(-min(batch, most) // shards) * shards
    split = meshes.batched(mesh)
    return Calls(jax.jit(function, in_shardings=(None, split), out_shardings=split), mesh, size)


def padded(count: int) -> int:
    """The power of two from count on: `compiled` for at most as many, calls on other numbers of examples share one
    program."""
    return 1 << (count - 1).bit_length()


def precise(function):
    """function with matrix products in full float32, also where the hardware's default is less (TPU)."""

    def traced(*args):
        with jax.default_matmul_precision('highest'):
            return function(*args)

    return traced
