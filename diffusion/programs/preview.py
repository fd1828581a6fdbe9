"""Sheets of samples from fixed seeds over the time of a training, and how many of them show their caption."""

import dataclasses
from collections.abc import Callable

import numpy as np

from diffusion import build
from diffusion.data import sources
from diffusion.evaluation import retrieval
from diffusion.programs import drawing
from diffusion.runtime import pictures


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a sheet shows: one picture a label; the labels of unseen prompts begin with '*'."""

    seeds: np.ndarray
    cond: dict
    labels: list[str] | None


def plan(run: build.Experiment, data: sources.Source) -> Plan:
    """Captions spread over the set and the unseen prompts, or the classes in turn, or seeds alone."""
    options, facts = run.preview, run.facts
    if facts.tokenizer:
        captions = list(dict.fromkeys(data.captions()))
        _check_unseen(options.unseen, captions)
        count = max(options.num - len(options.unseen), 1)
        picked = [captions[i] for i in np.linspace(0, len(captions) - 1, min(count, len(captions))).astype(int)]
        prompts = [*picked, *options.unseen]
        labels = [*picked, *(f'*{prompt}' for prompt in options.unseen)]
        cond = drawing.conditions(run, len(prompts), prompts=prompts)
    elif facts.classes:
        labels = [facts.classes[i % len(facts.classes)] for i in range(options.num)]
        cond = drawing.conditions(run, options.num, labels=labels)
    else:
        labels, cond = None, drawing.conditions(run, options.num)
    return Plan(np.arange(len(labels) if labels else options.num), cond, labels)


def _check_unseen(unseen, captions):
    seen = [prompt for prompt in unseen if prompt in captions]
    if seen:
        raise ValueError(f'config.preview.unseen: {seen[0]!r} is a caption of the set, so it is not unseen')


def draw(
    run: build.Experiment, artist: drawing.Artist, weights, shown: Plan, interrupted: Callable[[], bool]
) -> np.ndarray | None:
    """A sheet: uint8 [height, width, 3]; None where interrupted(), asked after each call of the sampler, says so."""
    parts = []
    for drawn in artist.draw(weights, shown.seeds, shown.cond):
        parts.append(drawn.x)
        if interrupted():
            return None
    images = np.concatenate(parts)
    if run.facts.dtype == 'uint8':
        return pictures.sheet(images, shown.labels)
    return pictures.scatter(images.reshape(len(images), -1))


def caption_match(run: build.Experiment, artist: drawing.Artist, weights, data: sources.Source, num: int) -> dict:
    """Draws one picture for each of the first `num` captions and finds the nearest training image of each."""
    references = data.captions()
    captions = list(dict.fromkeys(references))[:num]
    cond = drawing.conditions(run, len(captions), prompts=captions)
    images = np.concatenate([drawn.x for drawn in artist.draw(weights, np.arange(len(captions)), cond)])
    found = retrieval.nearest(images, data.parts(retrieval.CALL))
    return {
        'caption_match': retrieval.caption_match(found.index, captions, references).value,
        'caption_match_n': len(captions),
    }
