"""Snapshots: the power-profile averages of a run at steps of their own, from which others can be made afterwards."""

from pathlib import Path

from diffusion.runtime import checkpoint, ema, profiles, store

FOLDER = 'snapshots'


class Snapshots:
    """The snapshots of a run, none where the config asks for none. They are kept all: rotation is for checkpoints."""

    def __init__(self, workdir: str, averages: ema.EMA, start: int):
        """start: the step the run goes on from; what a stopped run stored of later ones is computed again."""
        self._every = averages.snapshot_every
        self._names = [profiles.name(length) for length in averages.profiles]
        self._store = store.Store(Path(workdir) / FOLDER) if self._every else None
        self.forget_after(start)

    def forget_after(self, step: int) -> None:
        """Removes the snapshots after `step`: the run has gone back to it."""
        if self._store:
            self._store.forget_after(step)

    def due(self, step: int) -> bool:
        """Whether the averages of this step are to be stored."""
        return bool(self._every) and step % self._every == 0

    def take(self, step: int, averages: dict, meta: dict, saved: checkpoint.Checkpoints) -> None:
        """Stores averages in the background; meta: JSON values.

        Only one save is on its way at a time, so that all processes write in the same order: it waits for `saved`.
        """
        saved.wait()
        self._store.save(step, {name: averages[name] for name in self._names}, meta)

    def wait(self) -> None:
        """Returns when everything is on disk. Raises RuntimeError where a save failed."""
        if self._store:
            self._store.wait()

    def check(self) -> None:
        """Raises RuntimeError where a save in the background has failed."""
        if self._store:
            self._store.check()

    def close(self) -> None:
        if self._store:
            self._store.close()
