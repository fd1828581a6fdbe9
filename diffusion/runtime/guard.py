"""The divergence guard: a step whose loss or gradients are not finite changes nothing but the step counter.

The verdict is made and obeyed inside the jitted step, on all devices alike, without a word from the host, which reads
it a step later. What the host then does follows from `Standing`, which every process computes alike and every
checkpoint holds, so that a run that was killed in the middle of it all takes the same turns when it is started again.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.runtime import sharding

# Axes of an array of parameters by its name; one more is a stack of layers, which is scanned over.
AXES = {'kernel': (2, 4), 'bias': (1,), 'scale': (1,)}


def _layers(tree):
    """(path, array, how many layers are stacked in it, 0 for one that is no stack) of each array, in order."""
    for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
        path = sharding.path_of(keys)
        stacked = leaf.ndim - 1 in AXES.get(path.split('/')[-1], ())
        yield path, leaf, leaf.shape[0] if stacked else 0


def layer_norms(tree) -> jax.Array:
    """The norm of each array of parameters or gradients, of each layer apart where they are stacked: [layers], in the
    order of `layer_names`."""
    # Not reshaped into rows: that would gather an array that is split over devices.
    squares = [jnp.sum(leaf**2, axis=tuple(range(bool(depth), leaf.ndim))) for _, leaf, depth in _layers(tree)]
    return jnp.sqrt(jnp.concatenate([jnp.atleast_1d(square) for square in squares]))


def layer_names(tree) -> list[str]:
    """The path of each array, as 'embed/kernel', or 'blocks/mlp/up/kernel[3]' for the fourth of a stack."""
    return [
        f'{path}[{i}]' if depth else path for path, _, depth in _layers(tree) for i in (range(depth) if depth else [0])
    ]


def healthy(value, norms):
    """Whether a step may count: bool scalar. value: the loss; norms: [layers] of its gradients.

    Of the updates nothing is asked: that would take them all before the first could be applied, and so passes over the
    memory of all weights. It need not be: where a norm is finite so is each square, and with them what every optimizer
    here makes of them.
    """
    return jnp.isfinite(value) & jnp.all(jnp.isfinite(norms))


@dataclasses.dataclass(frozen=True)
class Standing:
    """How a run fares. offset: examples that were passed over, so that step s begins at example s x batch + offset;
    bad: steps in a row that were skipped, up to and with step `last`; rollbacks: how often the run went back."""

    offset: int = 0
    bad: int = 0
    last: int = 0
    rollbacks: int = 0

    def over(self, limit: int) -> bool:
        """Whether the run must go back; limit: `bad` from which on, 0: never."""
        return bool(limit) and self.bad >= limit

    def after(self, step: int, ok: bool, limit: int) -> 'Standing':
        """The standing after a step. Steps dispatched after one that must be gone back from do not count."""
        if self.over(limit):
            return self
        return dataclasses.replace(self, bad=0 if ok else self.bad + 1, last=step)

    def back(self, step: int, batch: int) -> 'Standing':
        """The standing after going back to a step, from which on the data follow that came after the bad ones."""
        return Standing((self.last - step) * batch + self.offset, 0, step, self.rollbacks + 1)


def largest(names: list[str], norms: np.ndarray, count: int = 10) -> list[list]:
    """[name, norm] of the layers with the largest gradients, those that are not finite before all others."""
    order = np.lexsort((-np.nan_to_num(norms, nan=0, posinf=0), np.isfinite(norms)))
    return [[names[i], float(norms[i])] for i in order[:count]]
