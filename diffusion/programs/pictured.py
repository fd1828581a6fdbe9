"""Conditions that are pictures (`core.conditioning`): made of examples, shown beside what was drawn, and held against
it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import build
from diffusion.core import loss, randomness
from diffusion.data import pipeline
from diffusion.runtime import pictures

CONDITIONED = 'conditioned'  # the method of editing that uses them
LEVELS = 127.5  # 8-bit levels in a unit of the model's pictures
NAME = 'adherence_{}'  # of a metric


@dataclasses.dataclass(frozen=True)
class Given:
    """What some samples are told. images: [N, H, W, C] that the conditions were made of, as the data have them;
    pictures: float32 [N, H, W, K]."""

    images: np.ndarray
    pictures: np.ndarray

    def first(self, count: int) -> 'Given':
        return Given(self.images[:count], self.pictures[:count])


def made(run: build.Experiment, images: np.ndarray, seeds) -> Given:
    """The conditions of images, each by its own seed: what the training makes, from other keys."""

    def make(images, seeds):
        keys = randomness.examples(randomness.stream(jax.random.key(0), 'condition'), seeds)
        return run.conditioning.pictures(keys, loss.to_unit(images))

    return Given(images, np.asarray(jax.jit(make)(images, np.asarray(seeds, np.int32))))


def of_examples(run: build.Experiment, data, seeds) -> tuple[Given, dict]:
    """The conditions of one example a seed, the same whatever other seeds there are, and the batch they are of."""
    ids = pipeline.example_ids(np.asarray(seeds, np.int64) % len(data), len(data), 0)
    batch = data.gather(ids, run.facts.shape[:2])
    return made(run, batch['image'], seeds), batch


def shown(run: build.Experiment, told: np.ndarray) -> np.ndarray:
    """Conditions [N, H, W, K] as the data's kind of picture: [N, H, W, C]."""
    found = run.conditioning.shown(jnp.asarray(told))
    return np.asarray(loss.to_uint8(found) if run.facts.dtype == 'uint8' else found)


def adherence(run: build.Experiment, given: Given, drawn: np.ndarray) -> dict[str, float]:
    """How well samples [N, H, W, C] keep to what they were told; colours of pictures in 8-bit levels."""
    images = (loss.to_unit(jnp.asarray(values)) for values in (given.images, drawn))
    found = jax.device_get(run.conditioning.adherence(jnp.asarray(given.pictures), *images))
    scale = LEVELS if run.facts.dtype == 'uint8' else 1.0
    return {NAME.format(name): float(value) * (scale if name == 'colour' else 1) for name, value in found.items()}


def said(found: dict[str, float]) -> str:
    """One line of `adherence`."""
    words = {'agreement': 'agreement {:.1%}', 'colour': 'colour off by {:.3g}', 'edge_f1': 'edge F1 {:.3f}'}
    known = {name: words[name.removeprefix(NAME.format(''))] for name in found}
    return 'adherence to the conditions: ' + ', '.join(known[name].format(value) for name, value in found.items())


def sheet(run: build.Experiment, told: np.ndarray, drawn: np.ndarray, labels=None) -> np.ndarray:
    """Each condition and, beside it, what was drawn: uint8 [height, width, 3]."""
    pairs = np.stack([shown(run, told), drawn], 1).reshape(-1, *drawn.shape[1:])
    names = None if labels is None else [name for label in labels for name in ('given', label)]
    columns = 2 * max(round((len(drawn) / 2) ** 0.5), 1)
    return pictures.sheet(pairs, names, columns)


def default(action: str, args, run: build.Experiment) -> None:
    """The method of an edit where none is named: the model's own condition where it is for this action."""
    if run.conditioning and action in run.conditioning.serves and not args.method:
        args.method = CONDITIONED


def asked(action: str, run: build.Experiment, task: build.Task, change) -> np.ndarray:
    """The condition [1, H, W, K] of an edit whose method is `conditioned`. Raises ValueError where the model has none
    for it."""
    if run.conditioning is None:
        raise ValueError(
            '--method=conditioned: this model was not trained for it (configs/emoji_inpaint.py is one that is): leave '
            'it out'
        )
    if action not in run.conditioning.serves:
        name, kinds = run.config['conditioning']['name'], ', '.join(run.conditioning.serves)
        raise ValueError(f'--method=conditioned: this model was trained with {name}, for edit {kinds}')
    value = jnp.asarray(task.arrays['value'])
    hidden = None if change is None else jnp.asarray(change)[None, ..., None]
    found = np.asarray(run.conditioning.given(value, hidden, float(task.arrays['noise'])))
    if found.shape[1:3] != task.shape[:2]:
        factor = run.config['conditioning']['factor']
        raise ValueError(f'this model was trained to enlarge by {factor}: --factor={factor}')
    return found
