"""Training the small classifier whose features stand in where no pretrained network can be had."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.data import pipeline, sources
from diffusion.evaluation import protocol
from diffusion.nets import classifier, functional
from diffusion.runtime import optimizer, status


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a classifier is made by: another one makes other features, and has another name in the cache."""

    steps: int = 400
    batch: int = 128
    lr: float = 2e-3
    held_out: float = 0.1
    shift: int = 1  # pixels that a picture is moved by at most
    version: int = 1


RECIPE = Recipe()


def network(size: int, channels: int, classes: int) -> functional.Network:
    return functional.functional(lambda rngs: classifier.Classifier(size, channels, classes, rngs=rngs))


def unit(images):
    """uint8 [0, 255] to float32 [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1


def train(data: sources.Source, recipe: Recipe) -> tuple[dict, dict[str, str]]:
    """The parameters and what is to be said of them. The same data and recipe give the same on the same hardware.

    A share of the examples is held out, on which the accuracy is taken. Raises ValueError.
    """
    net = network(max(data.shape[:2]), data.shape[2], len(data.classes))
    order = pipeline.example_ids(np.arange(len(data)), len(data), 0)
    held = max(1, int(recipe.held_out * len(order)))
    tested, learned = order[:held], order[held:]
    optimum = optimizer.adam(recipe.lr, decay_images=recipe.steps * recipe.batch)(recipe.batch)

    def loss(params, images, labels):
        logs = jax.nn.log_softmax(net.apply(params, images)[1])
        # Examples without a label count nothing.
        own = jnp.take_along_axis(logs, jnp.maximum(labels, 0)[:, None], 1)[:, 0]
        return -(own * (labels >= 0)).sum() / jnp.maximum((labels >= 0).sum(), 1)

    @jax.jit
    def step(params, state, images, labels, key):
        by = jax.random.randint(key, (len(images), 2), -recipe.shift, recipe.shift + 1)
        moved = jax.vmap(lambda image, shift: jnp.roll(image, shift, (0, 1)))(unit(images), by)
        updates, state = optimum.update(jax.grad(loss)(params, moved, labels), state, params)
        return jax.tree.map(jnp.add, params, updates), state

    params = net.init(jax.random.key(0))
    state = optimum.init(params)
    keys = jax.random.split(jax.random.key(1), recipe.steps)
    with status.Status('classifier', recipe.steps) as line:
        for i in range(recipe.steps):
            places = np.arange(i * recipe.batch, (i + 1) * recipe.batch)
            batch = data.gather(learned[pipeline.example_ids(places, len(learned), 1)])
            params, state = step(params, state, batch['image'], batch['label'], keys[i])
            line.update(i + 1)
    accuracy = _accuracy(net, params, data, tested)
    return params, {
        'format': 'diffusion classifier',
        'size': str(max(data.shape[:2])),
        'channels': str(data.shape[2]),
        'classes': str(len(data.classes)),
        'data': data.fingerprint,
        'recipe': protocol.digest(dataclasses.asdict(recipe)),
        'accuracy': f'{accuracy:.4f} of {held}',
    }


def _accuracy(net, params, data, ids):
    apply, right, told = jax.jit(lambda params, images: net.apply(params, unit(images))[1]), 0, 0
    for start in range(0, len(ids), 256):
        batch = data.gather(ids[start : start + 256])
        guessed = np.asarray(apply(params, batch['image'])).argmax(1)
        right += int((guessed == batch['label']).sum())
        told += int((batch['label'] >= 0).sum())
    return right / max(told, 1)
