"""The training state and the step that advances it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from diffusion.runtime import ema as emas
from diffusion.runtime import mesh as meshes
from diffusion.runtime import sharding


class TrainState(NamedTuple):
    """Plain nested dicts of float32 arrays; step: int32 scalar, the number of steps taken."""

    step: jax.Array
    params: dict
    ema: dict
    opt_state: Any


def _initial(init, optimizer, seed):
    def build():
        params = init(jax.random.key(seed))
        return TrainState(jnp.zeros((), jnp.int32), params, jax.tree.map(jnp.copy, params), optimizer.init(params))

    return build


def abstract(mesh: Mesh, init, optimizer: optax.GradientTransformation) -> TrainState:
    """The state as shapes with their shardings: what is created, compiled for and restored into."""
    shapes = jax.eval_shape(_initial(init, optimizer, 0))
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        sharding.shardings(mesh, shapes),
    )


def shardings_of(target: TrainState) -> TrainState:
    """The shardings alone of what `abstract` returns."""
    return jax.tree.map(lambda leaf: leaf.sharding, target)


def create(target: TrainState, init, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    """The state before the first step, made in place as `abstract` placed it."""
    return jax.jit(_initial(init, optimizer, seed), out_shardings=shardings_of(target))()


def step(loss, optimizer: optax.GradientTransformation, ema: emas.EMA, seed: int):
    """(state, batch) -> state, metrics, with loss: (params, batch, key) -> scalar, metrics; to be jitted.

    The key follows from (seed, step) alone, so a resumed run draws what the undisturbed one would have drawn.
    """

    def advance(state: TrainState, batch):
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        (_, metrics), grads = jax.value_and_grad(loss, has_aux=True)(state.params, batch, key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        images = jax.tree.leaves(batch)[0].shape[0]
        average = ema.update(state.ema, params, state.step, images)
        metrics = {**metrics, 'grad_norm': optax.tree.norm(grads)}
        return TrainState(state.step + 1, params, average, opt_state), metrics

    return advance


def jit_step(advance, mesh: Mesh, target: TrainState):
    """`step` jitted for a mesh; the old state's memory is reused for the new one."""
    shardings = shardings_of(target)
    return jax.jit(
        advance,
        donate_argnums=0,
        in_shardings=(shardings, meshes.batched(mesh)),
        out_shardings=(shardings, meshes.replicated(mesh)),
    )
