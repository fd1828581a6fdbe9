"""Signs of failures that the loss does not show: weights that do not move, averages that run away."""

import jax
import jax.numpy as jnp
import optax
from jax import lax

RARE = 'now_and_then'  # the scope by which a compiled program tells what it computes in few steps only


def changed(before, after):
    """The share of the numbers in the weights that a step changes: less than 1 where its updates are too small for the
    precision of the weights."""
    # As floats: the weights together may be more than 2**31.
    counts = jax.tree.map(lambda old, new: jnp.sum(old != new).astype(jnp.float32), before, after)
    return sum(jax.tree.leaves(counts)) / sum(leaf.size for leaf in jax.tree.leaves(before))


def distance(average, params):
    """|average - params| / |params|: that of a healthy run stays small and falls with the learning rate."""
    return optax.tree.norm(optax.tree.sub(average, params)) / optax.tree.norm(params)


def at(due, measure):
    """{name: [value, 1]} of measure() -> {name: scalar} in the steps where due, else [0, 0], and nothing is computed:
    the pairs that `meter.Meter` takes the mean of."""

    def yes():
        return jax.tree.map(lambda value: jnp.stack([value.astype(jnp.float32), jnp.float32(1)]), measure())

    with jax.named_scope(RARE):
        return lax.cond(due, yes, lambda: jax.tree.map(lambda leaf: jnp.zeros(2), jax.eval_shape(measure)))
