"""Which checkpoints stay: the last ones, one every so many steps, the best by a measure."""

import dataclasses
from collections.abc import Callable, Collection


def _unmeasured(steps):
    return {}


@dataclasses.dataclass(frozen=True)
class Rule:
    """last: the newest that stay (0: all); every: those of steps that it divides stay (0: none for that); best: how
    many of the lowest `values` stay; values: steps -> {step: number} of those that were measured; spared: these stay
    whatever the rest says."""

    last: int = 0
    every: int = 0
    best: int = 0
    values: Callable[[list[int]], dict[int, float]] = _unmeasured
    spared: Collection[int] = ()

    def kept(self, steps: Collection[int]) -> set[int]:
        """The steps that stay of those there are. Of equal values the newer one is the better."""
        ordered = sorted(steps)
        stay = set(ordered[-self.last :]) | set(self.spared).intersection(ordered)
        if self.every:
            stay |= {step for step in ordered if step % self.every == 0}
        if self.best and len(stay) < len(ordered):
            values = self.values(ordered)
            stay |= set(sorted(values, key=lambda step: (values[step], -step))[: self.best])
        return stay

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        """The rule as Orbax asks it."""
        stay = self.kept([info.step for info in checkpoints])
        return [info.step in stay for info in checkpoints]
