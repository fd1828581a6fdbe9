"""Checkpoints: the training state and what goes with it, by step, in `checkpoints/` of a workdir."""

import os
from pathlib import Path

import jax

from diffusion.runtime import manifest, rotation, store
from diffusion.runtime import state as states

FOLDER = 'checkpoints'
# The parts of a checkpoint that are no average.
PARTS = ('params', 'optimizer', 'counters')
# Where checkpoints go that turned out damaged: evidence, which nothing reads again.
ASIDE = 'damaged'


class Checkpoints:
    """The checkpoints of a workdir. Parts: 'params', 'optimizer', 'counters' and each average under its name.

    Writing is asynchronous; a folder appears under its step only when complete, with its manifest.
    """

    def __init__(self, workdir: str, keep: int = 2, create: bool = True, *, every: int = 0, best: int = 0, values=None):
        """keep, every, best, values: see `rotation.Rule`."""
        self._workdir = Path(os.path.abspath(workdir))
        self.spared: set[int] = set()  # steps that stay however old they are; it may grow
        rule = rotation.Rule(keep, every, best, *([values] if values else []), spared=self.spared)
        self._store = store.Store(self._workdir / FOLDER, rule, create)
        self.latest, self.steps, self.meta = self._store.latest, self._store.steps, self._store.meta
        self.newest_good = self._store.newest_good
        self.forget_after, self.weights = self._store.forget_after, self._store.weights
        self.check, self.wait, self.close = self._store.check, self._store.wait, self._store.close

    def settle(self) -> tuple[int, list[str]]:
        """The step to go on from (0: none was ever saved), after setting damaged ones aside, and what to say of it.

        Raises ValueError where there are checkpoints and none of them is good.
        """
        folder, aside = self._store.folder, self._workdir / ASIDE
        step, said = self.newest_good()
        if step is None and store.numbered(folder):
            raise ValueError(
                f'{folder} holds no checkpoint that is whole ({"; ".join(said) or "see process 0"}): put a copy '
                'back, or name another --workdir to begin anew'
            )
        self.forget_after(step or 0, aside)
        return step or 0, [*said, *([f'falls back to step {step}; the rest is now in {aside}'] if said else [])]

    def save(self, step: int, state: states.TrainState, meta: dict) -> None:
        """Saves in the background; meta: JSON values (config, facts of the data, data position)."""
        self._store.save(step, _items(state), meta)

    def restore(self, step: int, abstract: states.TrainState) -> states.TrainState:
        """The state of a step, placed as `abstract` says (see `state.abstract`); averages it does not name are left."""
        restored = self._store.restore(step, _items(abstract))
        memory = dict(restored['counters'])
        averages = {name: restored[name] for name in abstract.ema}
        return states.TrainState(memory.pop('step'), restored['params'], averages, restored['optimizer'], memory)


def check_averages(workdir: str, names: tuple[str, ...]) -> None:
    """Refuses by ValueError averages that the newest checkpoint of a run lacks."""
    folder = Path(workdir) / FOLDER
    for step in store.steps(folder)[-1:]:
        lacking = [name for name in names if name not in manifest.read(folder / str(step))['items']]
        if lacking:
            raise ValueError(
                f'the checkpoint of step {step} holds no average {", ".join(lacking)}: a run that has begun can do '
                'without some of its averages but take no others on (config.ema.others, config.ema.profiles)'
            )


def open_existing(workdir: str) -> Checkpoints:
    """The checkpoints of a run that is there to be used. Raises FileNotFoundError where it holds none."""
    if not os.path.isdir(workdir):
        raise FileNotFoundError(f'there is no workdir {workdir!r}: `diffusion train --workdir={workdir}` makes one')
    if store.steps(Path(workdir) / FOLDER):
        return Checkpoints(workdir, keep=0, create=False)
    raise FileNotFoundError(f'{workdir!r} holds no complete checkpoint: train longer, or name another --workdir')


def _items(state: states.TrainState) -> dict:
    return {
        'params': state.params,
        **state.ema,
        'optimizer': state.opt_state,
        'counters': {'step': state.step, **state.memory},
    }


def abstract_weights(abstract: states.TrainState, place: jax.sharding.Sharding) -> dict:
    """Shapes of the parameters with every array placed alike."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), abstract.params)
