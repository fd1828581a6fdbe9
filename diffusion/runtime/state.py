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
    """Plain nested dicts of float32 arrays; step: int32 scalar, the number of steps taken; memory: what the loss keeps
    from step to step, the same on every device, {} where it keeps nothing."""

    step: jax.Array
    params: dict
    ema: dict
    opt_state: Any
    memory: dict


def _initial(init, optimizer, seed, memory):
    def build():
        params = init(jax.random.key(seed))
        average = jax.tree.map(jnp.copy, params)
        return TrainState(jnp.zeros((), jnp.int32), params, average, optimizer.init(params), memory())

    return build


def abstract(mesh: Mesh, init, optimizer: optax.GradientTransformation, memory=dict) -> TrainState:
    """The state as shapes with their shardings: what is created, compiled for and restored into.

    init: key -> params; memory: () -> the memory that the loss begins with.
    """
    shapes = jax.eval_shape(_initial(init, optimizer, 0, memory))
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        sharding.shardings(mesh, shapes),
    )


def shardings_of(target: TrainState) -> TrainState:
    """The shardings alone of what `abstract` returns."""
    return jax.tree.map(lambda leaf: leaf.sharding, target)


def create(target: TrainState, init, optimizer: optax.GradientTransformation, seed: int, memory=dict) -> TrainState:
    """The state before the first step, made in place as `abstract` placed it."""
    return jax.jit(_initial(init, optimizer, seed, memory), out_shardings=shardings_of(target))()


def step(loss, optimizer: optax.GradientTransformation, ema: emas.EMA, seed: int):
    """(state, batch) -> state, metrics, to be jitted; loss: (params, batch, key, memory) -> scalar, (metrics, memory).

    The key follows from (seed, step) alone, so a resumed run draws what the undisturbed one would have drawn.
    """

    def advance(state: TrainState, batch):
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        gradient = jax.value_and_grad(loss, has_aux=True)
        (_, (metrics, memory)), grads = gradient(state.params, batch, key, state.memory)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        images = jax.tree.leaves(batch)[0].shape[0]
        average = ema.update(state.ema, params, state.step, images)
        metrics = {**metrics, 'grad_norm': optax.tree.norm(grads)}
        return TrainState(state.step + 1, params, average, opt_state, memory), metrics

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
