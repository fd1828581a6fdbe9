"""Checkpoints: state, data position and config of a step, in one folder that is complete or absent."""

import os
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from diffusion.runtime import state as states


class Checkpoints:
    """The checkpoints of a workdir. Writing is asynchronous; a folder appears under its step only when complete."""

    def __init__(self, workdir: str, keep: int = 2, create: bool = True):
        self.folder = Path(os.path.abspath(workdir)) / 'checkpoints'
        options = ocp.CheckpointManagerOptions(max_to_keep=keep or None, create=create)
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def latest(self) -> int | None:
        """The newest complete step."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """All complete steps, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: states.TrainState, meta: dict) -> None:
        """Saves in the background; meta: JSON values (config, facts of the data, data position)."""
        arguments = {name: ocp.args.StandardSave(tree) for name, tree in _items(state).items()}
        self._manager.save(step, args=ocp.args.Composite(meta=ocp.args.JsonSave(meta), **arguments))

    def restore(self, step: int, abstract: states.TrainState) -> states.TrainState:
        """The state of a step, placed as `abstract` says (see `state.abstract`)."""
        arguments = {name: ocp.args.StandardRestore(tree) for name, tree in _items(abstract).items()}
        restored = self._manager.restore(step, args=ocp.args.Composite(**arguments))
        memory = dict(restored.counters)
        return states.TrainState(memory.pop('step'), restored.params, restored.ema, restored.optimizer, memory)

    def weights(self, step: int, name: str, abstract: dict) -> dict:
        """One set of weights alone: name is 'ema' or 'params'."""
        arguments = {name: ocp.args.StandardRestore(abstract)}
        return self._manager.restore(step, args=ocp.args.Composite(**arguments))[name]

    def meta(self, step: int) -> dict:
        """What `save` was given as meta."""
        return self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta

    def wait(self) -> None:
        """Returns when everything is on disk; raises the error of a save that failed."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def open_existing(workdir: str) -> Checkpoints:
    """The checkpoints of a run that is there to be used. Raises FileNotFoundError where it holds none."""
    if not os.path.isdir(workdir):
        raise FileNotFoundError(f'there is no workdir {workdir!r}: `diffusion train --workdir={workdir}` makes one')
    if os.path.isdir(os.path.join(workdir, 'checkpoints')):
        checkpoints = Checkpoints(workdir, keep=0, create=False)
        if checkpoints.latest() is not None:
            return checkpoints
        checkpoints.close()
    raise FileNotFoundError(f'{workdir!r} holds no complete checkpoint: train longer, or name another --workdir')


def _items(state: states.TrainState) -> dict:
    return {
        'params': state.params,
        'ema': state.ema,
        'optimizer': state.opt_state,
        'counters': {'step': state.step, **state.memory},
    }


def abstract_weights(abstract: states.TrainState, place: jax.sharding.Sharding) -> dict:
    """Shapes of the parameters with every array placed alike."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), abstract.params)
