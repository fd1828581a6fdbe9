"""An experiment: everything that a config and the facts of its data define."""

import dataclasses
import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp

from diffusion import config as configs
from diffusion.core import adaptive, dependence, loss, precond, uncertainty, variance
from diffusion.nets import condition, functional
from diffusion.runtime import ema
from diffusion.wiring import pictured, schema, steering
from diffusion.wiring.known import Facts


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that a config and the facts of its data define, as pure functions.

    network: with the parameters of a learned uncertainty among its own, which it does not see; denoiser: of
    `precond.denoiser`; moments: of `variance.moments`, None where no variance is learned; memory: () -> what the loss
    begins with; probe: (params, batch, key) -> further metrics of a batch, None where there are none; conditioning: of
    `core.conditioning`, None where the network is told no picture.
    """

    config: configs.Config
    facts: Facts
    process: Any
    network: functional.Network
    denoiser: Any
    moments: Any
    null: dict
    loss: Any
    probe: Any
    memory: Any
    optimizer: Any
    ema: ema.EMA
    train: schema.Train
    preview: schema.Preview
    conditioning: Any = None

    def inputs(self, batch: dict) -> dict:
        """What the training step takes of a batch of the data: the images and the conditions in use."""
        return {name: batch[name] for name in ('image', *self.null)}

    def batch_shapes(self, shape=None) -> dict:
        """Shapes and types of `inputs` for a global batch; shape: of the images, one of `Facts.shapes`."""
        batch = self.train.batch
        image = jax.ShapeDtypeStruct((batch, *(shape or self.facts.shape)), self.facts.dtype)
        cond = {k: jax.ShapeDtypeStruct((batch, *v.shape), v.dtype) for k, v in self.null.items()}
        return {'image': image, **cond}


@dataclasses.dataclass(frozen=True)
class BatchLoss:
    """The loss in terms of a batch of the data, whole or in parts: see `loss.Loss` and `runtime.accumulate`."""

    denoising: loss.Loss
    conditions: tuple[str, ...]

    def _split(self, batch):
        return loss.to_unit(batch['image']), {name: batch[name] for name in self.conditions}

    def __call__(self, params, batch, key, memory):
        return self.denoising(params, *self._split(batch), key, memory)

    def part(self, params, batch, key, memory, place):
        return self.denoising.part(params, *self._split(batch), key, memory, place)

    def remember(self, memory, seen):
        return self.denoising.remember(memory, seen)


def experiment(config: configs.Config, known: Facts) -> Experiment:
    """Wires a resolved config. Nothing is computed and no device touched but to trace shapes."""
    make = functools.partial(configs.construct, config, schema=schema.SCHEMA)
    train = make('train')
    length = known.tokenizer.length if known.tokenizer else 0
    vocabulary = known.tokenizer.size if known.tokenizer else 0
    states = 0 if vocabulary or not known.tokenizer else known.tokenizer.width
    conditions = {'classes': len(known.classes), 'length': length, 'states': states}
    augmentation = _augmentation(config, known)
    shape = {'channels': known.shape[-1]} | ({'outputs': 2 * known.shape[-1]} if train.variance_steps else {})
    shape |= {'augment': augmentation.labels} if augmentation and augmentation.labels else {}
    conditioning = pictured.conditioning(config, known)
    shape |= {'picture': conditioning.width} if conditioning else {}
    network = functional.functional(lambda rngs: make('net', vocabulary=vocabulary, rngs=rngs, **shape, **conditions))
    network = pictured.with_null(network, conditioning.null) if conditioning else network
    network = _with_uncertainty(network) if train.uncertainty else network
    null = condition.null(**conditions)
    steering.check_guidance(config, known, null, train, steering.UNSTEERED)
    _check_dropouts(train, null)
    check_variance(config, train)
    forward, target = make('process'), make('precond')
    _check_grid(config, forward)
    steering.check_reach(config, forward, None)
    denoiser = precond.denoiser(target, network.apply)
    moments = variance.moments(target, network.apply) if train.variance_steps else None
    mean = (lambda *args: moments(*args)[0]) if moments else denoiser
    denoising = loss.denoising(
        moments or denoiser,
        target,
        forward,
        make('density'),
        null,
        train.cond_dropout,
        weighting=make('weighting') if 'weighting' in config else None,
        adapt=bool(train.adaptive),
        uncertain=train.uncertainty,
        variance_steps=train.variance_steps,
        augmentation=augmentation,
        dropouts=train.dropouts(),
        pictures=conditioning.pictures if conditioning else None,
    )

    def memory():
        return {'adaptive': adaptive.initial(train.adaptive)} if train.adaptive else {}

    built = make('optimizer')(train.batch)
    for one in known.shapes:
        _check_shape(network, one, null)
    return Experiment(
        config,
        known,
        forward,
        network,
        mean,
        moments,
        null,
        BatchLoss(denoising, tuple(null)),
        _probe(mean, forward, make('density'), null, train),
        memory,
        built,
        make('ema'),
        train,
        make('preview'),
        conditioning,
    )


def nearest_size(run: Experiment, height: int, width: int) -> tuple[int, int]:
    """The size nearest to this one that the network can take: itself, with sides that divide by 2, 4, 8 ..., or that of
    the training."""
    for stride in (1, 2, 4, 8, 16, 32, 64):
        size = tuple(max(round(side / stride), 1) * stride for side in (height, width))
        try:
            _check_shape(run.network, (*size, run.facts.shape[-1]), run.null)
        except configs.ConfigError:
            continue
        return size
    return run.facts.shape[:2]


def _probe(denoiser, forward, density, null, train):
    """What a batch shows beside its loss, from the share of its examples that costs little: the gap that the condition
    makes, where the model learns to do without it too."""
    if not null or train.never_without(null):
        return None
    gap = dependence.condition_gap(denoiser, forward, density, null)
    # Spread over the batch, so that every device has its part; no more than fit beside accumulated gradients.
    stride = min(max(4, train.accumulate), train.batch)

    def probe(params, batch, key):
        some = {name: rows[::stride] for name, rows in batch.items()}
        return {'condition_gap': gap(params, loss.to_unit(some['image']), {name: some[name] for name in null}, key)}

    return probe


def _augmentation(config, known):
    """None without the section. Refuses what has no sides to turn, and nets that cannot be told."""
    if 'augment' not in config:
        return None
    name = config['augment']['name']
    if min(known.shape[:2]) < 2:
        raise configs.ConfigError(
            f'config.augment.name={name}: these data are points, not pictures: leave the section out'
        )
    augmentation = configs.construct(config, 'augment', schema.SCHEMA)
    nets = schema.SCHEMA['net'].constructors
    told = [net for net, made in nets.items() if 'augment' in inspect.signature(made.__init__).parameters]
    if augmentation.labels and config['net']['name'] not in told:
        raise configs.ConfigError(
            f'config.augment.name={name}: {config["net"]["name"]} cannot be told how an image was augmented, so its '
            f'samples would be: use {" or ".join(told)}, or --config.augment.name=flip'
        )
    return augmentation


def _check_dropouts(train, null):
    for name, key, what in (('label', 'label_dropout', 'class labels'), ('tokens', 'text_dropout', 'text')):
        if getattr(train, key) and name not in null:
            raise configs.ConfigError(
                f'config.train.{key}={getattr(train, key)} has no effect: {what} is no condition of this model'
            )


def check_variance(config, train):
    if config['sampler'].get('learned') and not train.variance_steps:
        raise configs.ConfigError(
            'config.sampler.learned needs a model that learned the variance (train.variance_steps, e.g. 1000), '
            'this one did not: leave it out'
        )


def _check_grid(config, forward):
    """A grid that cannot have so many steps says so before anything is compiled."""
    try:
        jax.eval_shape(lambda: configs.construct(config, 'grid', schema.SCHEMA)(forward, config['sample']['steps']))
    except ValueError as error:
        raise configs.ConfigError(f'config.sample.steps: {error}') from error


def _with_uncertainty(network):
    return functional.Network(
        lambda key: {**network.init(key), **uncertainty.initial()},
        lambda params, *args: network.apply(uncertainty.without(params), *args),
    )


def _check_shape(network, shape, null):
    """One abstract call: a net that cannot take these images says so before anything is compiled."""

    def call(key):
        cond = {name: value[None] for name, value in null.items()}
        return network.apply(network.init(key), jnp.zeros((1, *shape)), jnp.zeros(1), cond, None)

    try:
        jax.eval_shape(call, jax.eval_shape(lambda: jax.random.key(0)))
    except ValueError as error:
        raise configs.ConfigError(f'config.net does not fit the data: {error}') from error
