"""A Flax NNX module as a pair of pure functions over a plain nested dict of arrays."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import nnx


class Network(NamedTuple):
    """init: key -> params, a nested dict of float32 arrays; apply: (params, *args) -> output. Both are pure."""

    init: Callable[[jax.Array], dict]
    apply: Callable[..., Any]


def functional(construct: Callable[..., nnx.Module]) -> Network:
    """The network that construct(rngs=...) builds. Nothing is allocated here: only shapes are traced."""
    graphdef, abstract = nnx.split(nnx.eval_shape(lambda: construct(rngs=nnx.Rngs(0))))

    def init(key):
        return nnx.to_pure_dict(nnx.state(construct(rngs=nnx.Rngs(key))))

    def apply(params, *args):
        state = jax.tree.map(lambda leaf: leaf, abstract)
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(graphdef, state)(*args)

    return Network(init, apply)
