"""The sheets of samples that a training draws of itself."""

from collections.abc import Callable
from pathlib import Path

from diffusion.programs import drawing, logbook, pictured, preview
from diffusion.runtime import distributed, pictures, status, watchdog


def path(folder: str, step: int) -> Path:
    return Path(folder) / 'samples' / f'step_{step:07}.png'


class Sheets:
    """The sheets of a run; the sampler is compiled when the first is drawn, or by `prepare`."""

    def __init__(self, setup, book: logbook.Logbook, line: status.Status):
        """setup: `train.Setup`."""
        self._setup, self._book, self._line = setup, book, line
        config = setup.run.config
        self._artist = drawing.artist(setup.run, config, setup.mesh, config['sample']['batch'])

    def prepare(self, weights: dict) -> None:
        """Compiles the sampler, while there is nothing to lose yet and nobody waits for steps."""
        self._artist = self._artist.prepared(weights, self._setup.shown.cond)

    def due(self, step: int) -> bool:
        """Whether a sheet is drawn after this step, which is not the last."""
        every = self._setup.run.preview.every
        return bool(every) and step % every == 0 and step < self._setup.run.train.steps

    def draw(self, step: int, weights: dict, interrupted: Callable[[], bool], dog: watchdog.Watchdog) -> Path | None:
        """None where interrupted(), asked between the calls of the sampler, says so."""
        drawn = preview.draw(
            self._setup.run, self._artist, weights, self._setup.shown, _between(interrupted, dog, step)
        )
        if drawn is None:
            return None
        sheet, adherence = drawn
        if adherence:
            self._book.write(step, adherence)
            self._line.say(f'step {step}: {pictured.said(adherence)}')
        if distributed.leads():
            pictures.save(path(self._setup.folder, step), sheet)
        self._book.picture(step, 'samples', sheet)
        return path(self._setup.folder, step)

    def finish(self, step: int, weights: dict, dog: watchdog.Watchdog) -> None:
        """The last sheet, and the share of captions whose picture is the right one where that is asked for."""
        setup = self._setup
        if not setup.run.preview.num:
            return
        dog.beat(f'samples of step {step}')
        self._line.say(f'samples: {self.draw(step, weights, lambda: False, dog)}')
        num = setup.run.preview.match
        if num and setup.run.facts.tokenizer:
            dog.beat(f'caption match of step {step}')
            found = preview.caption_match(setup.run, self._artist, weights, setup.data, num)
            self._book.write(step, found)
            share, drawn = found['caption_match'], found['caption_match_n']
            self._line.say(
                f'caption match: {share:.1%} of {drawn} captions gave a picture whose nearest training image is theirs'
            )


def _between(interrupted, dog, step):
    def asked():
        dog.beat(f'samples of step {step}')
        return interrupted()

    return asked
