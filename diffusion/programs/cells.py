"""What one call of `diffusion evaluate` measures of each checkpoint: a grid of weights and ways of drawing."""

import dataclasses
import itertools
from collections.abc import Callable

import jax

from diffusion import build
from diffusion import config as configs
from diffusion.programs import blocks, opening, results

# The flags that take several values, and the keys of the config that they are short for.
GRID = {'sampler': 'sampler.name', 'steps': 'sample.steps', 'guidance': 'guidance.scale'}


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """One way of measuring a checkpoint.

    kind: of what it computes, by which progress is counted; said: its values of the grid by flag; what: the same for a
    reader; run, grid: what its weights are read for; context: JSON values for its files; blocks: taken -> where what is
    computed is kept; measure: (taken, blocks, names of results, place among those of its kind) -> these results, None
    where the range of this call does not complete them.
    """

    kind: str
    place: results.Place
    said: dict[str, str]
    what: str
    run: build.Experiment
    grid: jax.sharding.Mesh
    context: dict
    blocks: Callable[[opening.Taken], blocks.Blocks]
    measure: Callable[[opening.Taken, blocks.Blocks, list[str], tuple[int, int]], list[results.Result] | None]

    def row(self, step: int) -> dict:
        """Of the table: the results that are there of a step."""
        found = {slug: self.place.read(slug, step) for slug in self.place.requests}
        return {'step': step, 'weights': self.place.weights, **self.said, **found}


def listed(flag: str, text: str) -> list[str]:
    """Values with commas. Raises ValueError for an empty one, or one that is there twice."""
    values = [value.strip() for value in text.split(',')]
    if not all(values) or len(set(values)) < len(values):
        raise ValueError(f'--{flag}={text}: values with commas, each once')
    return values


def drawings(args, choose: Callable[[list[str]], configs.Config]) -> list[tuple[dict[str, str], configs.Config]]:
    """Every combination of the flags of GRID, as what is said of it and its config. choose: overrides -> the config.
    Raises ValueError for two that are the same."""
    given = {flag: listed(flag, getattr(args, flag)) for flag in GRID if getattr(args, flag) is not None}
    found: list[tuple[dict[str, str], configs.Config]] = []
    for values in itertools.product(*given.values()):
        said = dict(zip(given, values))
        config = choose([f'{GRID[flag]}={value}' for flag, value in said.items()])
        same = next((other for other, known in found if known == config), None)
        if same:
            names = [' '.join(f'--{flag}={value}' for flag, value in one.items()) for one in (same, said)]
            raise ValueError(f'{names[0]} and {names[1]} are the same')
        found.append((said, config))
    return found
