"""Drawing samples in calls of one fixed size, whatever number is asked for."""

import dataclasses
import json
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from diffusion import build
from diffusion import config as configs
from diffusion.core import chain
from diffusion.programs import calls
from diffusion.runtime import mesh as meshes


@dataclasses.dataclass(frozen=True)
class Artist:
    """A compiled sampler: `draw` it with weights as often as wanted; another scale or sigmas compile nothing.

    beside: see `build.sampling`; where guidance is held against a weaker model, `against` adds its parameters.
    """

    calls: calls.Calls
    sigmas: np.ndarray
    scale: np.ndarray
    beside: dict

    def against(self, weak: dict) -> 'Artist':
        """The same sampler with the parameters of the weaker model of its guidance."""
        return dataclasses.replace(self, beside={**self.beside, 'weak': weak})

    def about(self, task: build.Task) -> 'Artist':
        """The same sampler for another task of its kind and shapes."""
        return dataclasses.replace(self, beside={**self.beside, 'task': task.arrays})

    def prepared(self, weights, cond: dict) -> 'Artist':
        """The same sampler compiled for weights like these, and conditions like cond: dict of numpy [N, ...]."""
        chosen = jax.device_put((self.sigmas, self.scale, self.beside), meshes.replicated(self.calls.mesh))
        row = {**{name: value[0] for name, value in cond.items()}, 'seed': np.int32(0)}
        return dataclasses.replace(self, calls=self.calls.prepared((weights, *chosen), row))

    def draw(self, weights, seeds, cond: dict) -> Iterator[chain.Sampled]:
        """Images x: [n, H, W, C] and their costs as numpy arrays, in the order of seeds, a call's worth at a time.

        seeds: N ints in [0, 2**31); cond: dict of numpy [N, ...].
        """
        chosen = jax.device_put((self.sigmas, self.scale, self.beside), meshes.replicated(self.calls.mesh))
        every = {**cond, 'seed': np.asarray(seeds, np.int32)}
        return self.calls.over((weights, *chosen), lambda rows: {k: v[rows] for k, v in every.items()}, len(seeds))


def artist(
    run: build.Experiment,
    config: configs.Config,
    mesh: Mesh,
    most: int,
    steering: build.Steering = build.UNSTEERED,
    task: build.Task | None = None,
) -> Artist:
    """The sampler of a config on a mesh. most: images wanted, where they are fewer than a call's worth; task: of an
    edit."""
    sampling = build.sampling(run, config, steering, task=task)

    def draw(fixed, inputs):
        weights, *chosen = fixed
        with meshes.in_sight(mesh):
            return sampling(weights, inputs.pop('seed'), inputs, *chosen)

    compiled = calls.compiled(draw, mesh, config['sample']['batch'], most)
    scale = np.float32(config['guidance'].get('scale', 1.0))
    sigmas = np.asarray(build.sigmas(run, config, task.strength if task else 1.0))
    beside = steering.arrays(run) | ({'task': task.arrays} if task else {})
    return Artist(compiled, sigmas, scale, beside)


def artists(run: build.Experiment, chosen: list[configs.Config], mesh: Mesh, most: int) -> list[Artist]:
    """One a config. Those that differ in the guidance scale or the noise levels alone share what is compiled."""
    shared: dict[str, calls.Calls] = {}
    found = []
    for config in chosen:
        one = artist(run, config, mesh, most)
        guided = config['guidance'].get('scale', 1.0) != 1
        rest = {key: value for key, value in config['guidance'].items() if key != 'scale'}
        program = json.dumps([config['sampler'], rest, guided, config.get('threshold'), config['sample']['batch']])
        found.append(dataclasses.replace(one, calls=shared.setdefault(program, one.calls)))
    return found


def check_paced(config: configs.Config, overrides: list[str]) -> None:
    """Refuses a number of steps for a sampler that chooses its own."""
    if build.paces_itself(config) and any(override.startswith('sample.steps=') for override in overrides):
        name = config['sampler']['name']
        raise ValueError(f'the sampler {name!r} chooses its own steps: leave out --steps, or set --config.sampler.rtol')


def conditions(run: build.Experiment, count: int, prompts=(), labels=()) -> dict:
    """The condition arrays of `count` images: prompts and labels are repeated in turn; none given is the null one.

    prompts: strings; labels: names of classes or their numbers. Raises ValueError for what the model cannot know. A
    model that is told a picture finds the null one in it, to be replaced.
    """
    tokenizer, classes = run.facts.tokenizer, run.facts.classes
    if prompts and not tokenizer:
        raise ValueError('this model was not trained on text: it takes no --prompt')
    if labels and not classes:
        raise ValueError('this model was not trained on classes: it takes no --label')
    cond = {name: np.broadcast_to(np.asarray(value), (count, *value.shape)) for name, value in run.null.items()}
    if run.conditioning:
        null = run.conditioning.null
        cond['picture'] = np.broadcast_to(null, (count, *run.facts.shape[:2], null.shape[-1]))
    if prompts:
        rows = tokenizer.encode(list(prompts))
        cond['tokens'] = np.resize(rows, (count, *rows.shape[1:]))
    if labels:
        cond['label'] = np.resize(np.asarray([_label(label, classes) for label in labels], np.int32), count)
    return cond


def _label(label, classes) -> int:
    if str(label) in classes:
        return classes.index(str(label))
    if str(label).isdecimal() and int(label) < len(classes):
        return int(label)
    raise ValueError(f'no class {label!r}: {configs.nearest(str(label), classes[:1000])}')
