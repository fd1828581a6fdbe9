"""Sheets of samples from fixed seeds over the time of a training, and how many of them show their caption."""

import dataclasses
from collections.abc import Callable

import numpy as np

from diffusion import build
from diffusion.data import sources
from diffusion.evaluation import retrieval
from diffusion.programs import drawing, pictured
from diffusion.runtime import pictures


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a sheet shows: one picture a label; the labels of unseen prompts begin with '*'. given: what cond holds of
    pictures, None where the model is told none; alone: how many of the first are told nothing else."""

    seeds: np.ndarray
    cond: dict
    labels: list[str] | None
    given: pictured.Given | None = None
    alone: int = 0


def plan(run: build.Experiment, data: sources.Source) -> Plan:
    """Captions spread over the set and the unseen prompts, or the classes in turn, or seeds alone."""
    found = _plan(run, data)
    if run.conditioning is None or not run.preview.num:
        return found
    images = _images(run, data, found)
    given = pictured.made(run, images, found.seeds)
    cond = {**found.cond, 'picture': given.pictures}
    # Words may tell all that the picture tells, so that nobody could see whether that is heeded.
    alone, labels = len(found.seeds) - (len(run.preview.unseen) if run.facts.tokenizer else 0), found.labels
    if run.null and not run.train.never_without(run.null):
        nothing = drawing.conditions(run, alone)
        cond |= {name: np.concatenate([nothing[name], cond[name][alone:]]) for name in run.null}
        labels = [*(f'({label})' for label in labels[:alone]), *labels[alone:]]
    return dataclasses.replace(found, cond=cond, labels=labels, given=given, alone=alone)


def _images(run, data, plan):
    """The training images of the captions (or classes) that are shown; of what has none, some spread over the set."""
    count = len(plan.seeds)
    ids = np.linspace(0, len(data) - 1, count).round().astype(np.int64)
    if run.facts.tokenizer:
        first: dict[str, int] = {}
        for place, caption in enumerate(data.captions()):
            first.setdefault(caption, place)
        ids = np.asarray([first.get(label, other) for label, other in zip(plan.labels, ids)])
    return data.gather(ids, run.facts.shape[:2])['image']


def _plan(run, data):
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
) -> tuple[np.ndarray, dict[str, float]] | None:
    """A sheet: uint8 [height, width, 3], and how well it keeps to the pictures that it was told, {} where there are
    none; None where interrupted(), asked after each call of the sampler, says so."""
    parts = []
    for drawn in artist.draw(weights, shown.seeds, shown.cond):
        parts.append(drawn.x)
        if interrupted():
            return None
    images = np.concatenate(parts)
    if shown.given:
        found = pictured.adherence(run, shown.given.first(shown.alone), images[: shown.alone])
        if images.dtype == np.uint8:
            return pictured.sheet(run, shown.cond['picture'], images, shown.labels), found
        return _scattered(images), found
    return (pictures.sheet(images, shown.labels) if images.dtype == np.uint8 else _scattered(images)), {}


def _scattered(images):
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
