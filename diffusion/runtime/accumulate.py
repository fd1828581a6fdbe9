"""Gradients of a global batch taken in pieces, for a batch whose activations do not fit at once."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh

from diffusion.runtime import mesh as meshes


def gradient(loss, pieces: int = 1, mesh: Mesh | None = None):
    """(params, batch, key, memory) -> (value, (metrics, memory)), gradients: as jax.value_and_grad(loss, has_aux=True).

    loss: (params, batch, key, memory) -> value, (metrics, memory), a mean over the batch; for more pieces than one with
    loss.part: (params, rows, key, memory, (places, total)) -> value, (metrics, seen), the same of some rows of the
    global batch that stand at places: int [b] of total, and loss.remember: (memory, sum of seen) -> memory. A metric is
    a mean, or a pair [sum, weight]. pieces divides the rows of every shard of the mesh.
    """
    if pieces == 1:
        return jax.value_and_grad(loss, has_aux=True)
    of_part = jax.value_and_grad(loss.part, has_aux=True)

    def accumulated(params, batch, key, memory):
        total = jax.tree.leaves(batch)[0].shape[0]
        cut = jax.tree.map(lambda rows: _cut(rows, pieces, mesh), (batch, jnp.arange(total)))

        def one(part):
            rows, places = part
            (value, (metrics, seen)), grads = of_part(params, rows, key, memory, (places, total))
            means = {name: metric / pieces for name, metric in metrics.items() if metric.ndim == 0}
            return value / pieces, {**metrics, **means}, seen, jax.tree.map(lambda g: g / pieces, grads)

        first = jax.tree.map(lambda rows: rows[0], cut)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(one, first))
        sums, _ = lax.scan(lambda sums, part: (jax.tree.map(jnp.add, sums, one(part)), None), zeros, cut)
        value, metrics, seen, grads = sums
        return (value, (metrics, loss.remember(memory, seen))), grads

    return accumulated


def _cut(rows, pieces, mesh):
    """[B, ...] -> [pieces, B / pieces, ...]: every device cuts the rows that it holds, so that none moves."""
    apart = rows.reshape(meshes.shards(mesh), pieces, -1, *rows.shape[1:]).swapaxes(0, 1)
    return lax.with_sharding_constraint(apart.reshape(pieces, -1, *rows.shape[1:]), meshes.batched(mesh, before=1))
