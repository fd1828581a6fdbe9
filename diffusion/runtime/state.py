"""The training state and the step that advances it."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh

from diffusion.runtime import accumulate, guard, sharding, vitals
from diffusion.runtime import ema as emas
from diffusion.runtime import mesh as meshes

ONE = emas.EMA()  # a single average


class TrainState(NamedTuple):
    """Plain nested dicts of float32 arrays; step: int32 scalar, the number of steps taken; ema: averages of params by
    name; memory: what the loss keeps from step to step, the same on every device, {} where it keeps nothing."""

    step: jax.Array
    params: dict
    ema: dict
    opt_state: Any
    memory: dict


def _initial(init, optimizer, seed, memory, ema):
    def build(given):
        params = _with(init(jax.random.key(seed)), given)
        return TrainState(jnp.zeros((), jnp.int32), params, ema.begin(params), optimizer.init(params), memory())

    return build


def _with(params, given):
    """A nested dict with those arrays of another one that it names."""
    return {
        name: _with(value, given.get(name, {})) if isinstance(value, dict) else given.get(name, value)
        for name, value in params.items()
    }


def abstract(mesh: Mesh, init, optimizer: optax.GradientTransformation, memory=dict, ema=ONE) -> TrainState:
    """The state as shapes with their shardings: what is created, compiled for and restored into.

    init: key -> params; memory: () -> the memory that the loss begins with; ema: which averages are kept.
    """
    shapes = jax.eval_shape(_initial(init, optimizer, 0, memory, ema), {})
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        sharding.shardings(mesh, shapes),
    )


def shardings_of(target: TrainState) -> TrainState:
    """The shardings alone of what `abstract` returns."""
    return jax.tree.map(lambda leaf: leaf.sharding, target)


def like(state: TrainState) -> TrainState:
    """What `abstract` said of a state that is there."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)


def create(
    target: TrainState, init, optimizer: optax.GradientTransformation, seed: int, memory=dict, ema=ONE, given=None
) -> TrainState:
    """The state before the first step, made in place as `abstract` placed it.

    given: arrays that stand in place of those of the same names in what init makes, a part of the tree of params.
    """
    return jax.jit(_initial(init, optimizer, seed, memory, ema), out_shardings=shardings_of(target))(given or {})


def step(
    loss,
    optimizer: optax.GradientTransformation,
    ema: emas.EMA,
    seed: int,
    pieces: int = 1,
    mesh: Mesh | None = None,
    probe=None,
    every: int = 0,
):
    """(state, batch) -> state, metrics, to be jitted; loss: (params, batch, key, memory) -> scalar, (metrics, memory).

    pieces: into how many the batch is cut on a mesh, to be worked on one after the other; see `accumulate.gradient`.
    probe: (params, batch, key) -> scalar metrics by name, None for none; measured, as is the distance of each average,
    of steps that `every` divides (0: never).

    The key follows from (seed, step) alone, so a resumed run draws what the undisturbed one would have drawn. The
    metrics hold the verdict of the guard besides: guard=dict(ok: bool, norms: [layers] of the gradients).
    """

    gradient = accumulate.gradient(loss, pieces, mesh)

    def advance(state: TrainState, batch):
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        with meshes.in_sight(mesh):
            (value, (metrics, memory)), grads = gradient(state.params, batch, key, state.memory)
        norms = guard.layer_norms(grads)
        ok = guard.healthy(value, norms)
        images = jax.tree.leaves(batch)[0].shape[0]

        def counted():
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
            return params, ema.advance(state.ema, params, state.step, images), opt_state, memory

        def skipped():
            return state.params, state.ema, state.opt_state, state.memory

        # A branch, not a choice number by number: fewer bytes are moved (benchmarks/overhead.py).
        params, averages, opt_state, memory = lax.cond(ok, counted, skipped)
        metrics = {**metrics, 'grad_norm': jnp.linalg.norm(norms), 'guard': {'ok': ok, 'norms': norms}}
        if every:
            metrics['changed'] = vitals.changed(state.params, params)
            measure = functools.partial(_signs, probe, averages, params, batch, key)
            metrics |= vitals.at((state.step + 1) % every == 0, measure)
        # The position in the data follows from the step, which therefore advances whatever happens.
        return TrainState(state.step + 1, params, averages, opt_state, memory), metrics

    return advance


def _signs(probe, averages, params, batch, key):
    distances = {f'{name}_distance': vitals.distance(average, params) for name, average in averages.items()}
    return {**distances, **(probe(params, batch, key) if probe else {})}


def jit_step(advance, mesh: Mesh, target: TrainState):
    """`step` jitted for a mesh; the old state's memory is reused for the new one."""
    shardings = shardings_of(target)
    return jax.jit(
        advance,
        donate_argnums=0,
        in_shardings=(shardings, meshes.batched(mesh)),
        out_shardings=(shardings, meshes.replicated(mesh)),
    )
