"""The batches of a run: from a step on, and from another one when it goes back."""

from diffusion.data import pipeline
from diffusion.programs import badfiles
from diffusion.runtime import mesh


class Feed:
    """What this process needs of each global batch."""

    def __init__(self, setup, step: int, offset: int, bad: badfiles.BadFiles):
        """setup: `train.Setup`; step: whose batches came before; offset: examples passed over; bad: is told of images
        that could not be read."""
        self._setup, self._bad = setup, bad
        self._open(step, offset)

    def _open(self, step, offset):
        facts, options = self._setup.run.facts, self._setup.run.train
        self._batches = pipeline.batches(
            self._setup.data,
            batch=options.batch,
            seed=options.seed,
            encode=facts.tokenizer.encode if facts.tokenizer else None,
            rows=mesh.rows(self._setup.mesh, options.batch),
            start=step,
            offset=offset,
        )

    def go_to(self, step: int, offset: int) -> None:
        self.close()
        self._open(step, offset)

    def next(self) -> dict:
        return self._bad.see(next(self._batches))

    def close(self) -> None:
        self._batches.close()
