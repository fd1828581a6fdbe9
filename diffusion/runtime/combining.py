"""A weighted sum of trees of arrays that need not be in memory together."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np


def weighted_sum(terms: Iterable[tuple[float, dict]]):
    """The sum of weight * tree over (weight, tree of float32 arrays), added up in float64, as a tree of float32 arrays.

    Each array stays where it lies: sharded trees give a sharded sum, and only one of them is held beside the total.
    """
    with jax.enable_x64(True):
        add = jax.jit(
            lambda total, tree, weight: jax.tree.map(lambda a, x: a + weight * x.astype(jnp.float64), total, tree),
            donate_argnums=0,
        )
        total = None
        for weight, tree in terms:
            if total is None:
                total = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float64, device=x.sharding), tree)
            total = add(total, tree, np.float64(weight))
        return jax.tree.map(lambda x: x.astype(jnp.float32), total)
