"""The wiring: the only code that reads a config, and the only place where the rooms meet."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from diffusion import config as configs
from diffusion.core import chain, density, grids, guidance, loss, ode, precond, process, randomness, samplers
from diffusion.data import sources, tokens
from diffusion.nets import condition, dit, functional, mlp, unet
from diffusion.runtime import ema, optimizer


@dataclasses.dataclass(frozen=True)
class Train:
    """batch: images a step over all devices and hosts; cond_dropout: share of examples trained without their
    condition, what guidance needs; labels: whether class labels are a condition; *_every: in steps; keep: newest
    checkpoints kept."""

    steps: int = 1000
    batch: int = 64
    seed: int = 0
    cond_dropout: float = 0.0
    labels: bool = True
    log_every: int = 50
    save_every: int = 1000
    keep: int = 2

    def __post_init__(self):
        for key in ('steps', 'batch', 'log_every', 'save_every', 'keep'):
            if getattr(self, key) < 1:
                raise ValueError(f'{key}={getattr(self, key)}: must be at least 1')
        if not 0 <= self.cond_dropout < 1:
            raise ValueError(f'cond_dropout={self.cond_dropout}: must be in [0, 1)')


@dataclasses.dataclass(frozen=True)
class Sample:
    """How samples are drawn where nothing else is said: network steps, and images a call."""

    steps: int = 18
    batch: int = 64

    def __post_init__(self):
        if self.steps < 1 or self.batch < 1:
            raise ValueError('steps and batch must be at least 1')


@dataclasses.dataclass(frozen=True)
class Preview:
    """Sheets of samples from fixed seeds, every `every` steps (0: only at the end) and at the end.

    num: pictures on a sheet; unseen: prompts besides, that the set does not hold; match: how many captions are
    drawn at the end to measure the share whose nearest training image carries the caption (0: not measured).
    """

    every: int = 0
    num: int = 36
    unseen: tuple[str, ...] = ()
    match: int = 0

    def __post_init__(self):
        if self.num < 1 or self.every < 0 or self.match < 0:
            raise ValueError('num must be at least 1, every and match at least 0')


@dataclasses.dataclass(frozen=True)
class Runtime:
    """platform: 'auto', 'cpu', 'gpu' or 'tpu'; devices: 0 for all, on a CPU one a core; fsdp: over how many devices
    parameters are split. Where a run computes, not what: it may change from start to start."""

    platform: str = 'auto'
    devices: int = 0
    fsdp: int = 1


def _named(*modules):
    return {name: getattr(module, name) for module in modules for name in module.__all__}


_DERIVED = frozenset({'channels', 'classes', 'vocabulary', 'length', 'rngs'})

SCHEMA = {
    'data': configs.Section(_named(sources)),
    'text': configs.Section(_named(tokens), frozenset({'captions'}), optional=True),
    'process': configs.Section(_named(process)),
    'precond': configs.Section(_named(precond)),
    'density': configs.Section(_named(density)),
    'net': configs.Section(_named(unet, dit, mlp), _DERIVED),
    'optimizer': configs.Section(_named(optimizer)),
    'ema': configs.Section({'': ema.EMA}),
    'train': configs.Section({'': Train}),
    'sampler': configs.Section(_named(samplers, ode)),
    'grid': configs.Section(_named(grids)),
    'guidance': configs.Section(_named(guidance)),
    'sample': configs.Section({'': Sample}),
    'preview': configs.Section({'': Preview}),
    'runtime': configs.Section({'': Runtime}),
}

# What may be chosen anew each time samples are drawn; the rest is fixed by the training.
SAMPLING = ('sampler', 'grid', 'guidance', 'sample', 'runtime')


@dataclasses.dataclass(frozen=True)
class Facts:
    """What follows from the data. shape: (H, W, C) of an image; classes: their names; tokenizer: None without text;
    dtype: 'uint8' for pictures in [0, 255], 'float32' for numbers that are taken as they are."""

    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    tokenizer: Any
    dtype: str
    examples: int
    fingerprint: str

    def to_json(self) -> dict:
        tokenizer = self.tokenizer.to_json() if self.tokenizer else None
        return {**dataclasses.asdict(dataclasses.replace(self, tokenizer=None)), 'tokenizer': tokenizer}


def facts_from_json(stored: dict) -> Facts:
    tokenizer = stored['tokenizer'] and tokens.from_json(stored['tokenizer'])
    return Facts(
        **{
            **stored,
            'shape': tuple(stored['shape']),
            'classes': tuple(stored['classes']),
            'tokenizer': tokenizer,
        }
    )


def resolve(path: str, overrides: list[str]) -> configs.Config:
    """The checked and completed config of a file. Raises `config.ConfigError`."""
    return override(configs.load(path), overrides)


def override(config: configs.Config, overrides: list[str]) -> configs.Config:
    """`resolve` for sections that are already read."""
    config = configs.resolve(config, overrides, SCHEMA)
    for section in set(config) - {'data', 'text', 'net'}:  # these need the data
        configs.construct(config, section, SCHEMA)
    return config


def source(config: configs.Config) -> sources.Source:
    """The training data."""
    return configs.construct(config, 'data', SCHEMA)


def facts(config: configs.Config, data: sources.Source) -> Facts:
    """What the networks must know of the data; captions are read where the config conditions on text."""
    tokenizer = None
    if 'text' in config:
        if not data.captioned:
            raise configs.ConfigError('config.text: this data set has no captions; leave the section out')
        tokenizer = configs.construct(config, 'text', SCHEMA, captions=data.captions())
    classes = tuple(data.classes) if config['train']['labels'] else ()
    return Facts(tuple(data.shape), classes, tokenizer, data.dtype, len(data), data.fingerprint)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that a config and the facts of its data define, as pure functions."""

    config: configs.Config
    facts: Facts
    process: Any
    network: functional.Network
    denoiser: Any
    null: dict
    loss: Any
    optimizer: Any
    ema: ema.EMA
    train: Train
    preview: Preview

    def inputs(self, batch: dict) -> dict:
        """What the training step takes of a batch of the data: the images and the conditions in use."""
        return {name: batch[name] for name in ('image', *self.null)}

    def batch_shapes(self) -> dict:
        """Shapes and types of `inputs` for a global batch."""
        batch = self.train.batch
        image = jax.ShapeDtypeStruct((batch, *self.facts.shape), self.facts.dtype)
        cond = {k: jax.ShapeDtypeStruct((batch, *v.shape), v.dtype) for k, v in self.null.items()}
        return {'image': image, **cond}


def experiment(config: configs.Config, known: Facts) -> Experiment:
    """Wires a resolved config. Nothing is computed and no device touched but to trace shapes."""
    make = functools.partial(configs.construct, config, schema=SCHEMA)
    train = make('train')
    length = known.tokenizer.length if known.tokenizer else 0
    conditions = {'classes': len(known.classes), 'length': length}
    vocabulary = known.tokenizer.size if known.tokenizer else 0
    network = functional.functional(
        lambda rngs: make('net', channels=known.shape[-1], vocabulary=vocabulary, rngs=rngs, **conditions)
    )
    null = condition.null(**conditions)
    scale = config['guidance'].get('scale', 1.0)
    _check_guidance(scale, null, train.cond_dropout)
    forward, target = make('process'), make('precond')
    denoiser = precond.denoiser(target, network.apply)
    denoising = loss.denoising(denoiser, target, forward, make('density'), null, train.cond_dropout)

    def batch_loss(params, batch, key):
        return denoising(params, loss.to_unit(batch['image']), {name: batch[name] for name in null}, key)

    built = make('optimizer')(train.batch)
    _check_shape(network, known.shape, null)
    return Experiment(
        config,
        known,
        forward,
        network,
        denoiser,
        null,
        batch_loss,
        built,
        make('ema'),
        train,
        make('preview'),
    )


def _check_guidance(scale, null, cond_dropout):
    if scale != 1 and not null:
        raise configs.ConfigError(f'guidance {scale}: this model has no condition to be guided by; use --guidance=1')
    if scale != 1 and not cond_dropout:
        raise configs.ConfigError(
            f'guidance {scale} needs a model trained with condition dropout (train.cond_dropout, e.g. 0.1), '
            'this one was not: use --guidance=1'
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


def sampling(run: Experiment, config: configs.Config):
    """(params, seeds: [B], cond: dict of [B, ...], sigmas: [N + 1], scale) -> `chain.Sampled`, to be jitted.

    config: the run's own, or with other values in the sections of `SAMPLING`. The images are of the data's dtype.
    Image i depends on its own seed alone, not on the batch.
    """
    sampler = configs.construct(config, 'sampler', SCHEMA)
    _check_guidance(config['guidance'].get('scale', 1.0), run.null, run.train.cond_dropout)
    guided = config['guidance'].get('scale', 1.0) != 1
    values = {key: value for key, value in config['guidance'].items() if key != 'name'}
    guide = SCHEMA['guidance'].constructors[config['guidance']['name']]

    def draw(params, seeds, cond, sigmas, scale):
        keys = randomness.examples(randomness.stream(jax.random.key(0), 'sample'), seeds)
        conditional = functools.partial(_conditional, run.denoiser, params)
        null = {name: jnp.broadcast_to(value, cond[name].shape) for name, value in run.null.items()}
        rule = guide(**{**values, 'scale': scale}) if guided else guidance.none()
        drawn = chain.generate(rule(conditional, cond, null), sampler, sigmas, keys, run.facts.shape)
        return drawn._replace(x=loss.to_uint8(drawn.x)) if run.facts.dtype == 'uint8' else drawn

    return draw


def _conditional(denoiser, params, x, sigma, cond):
    return denoiser(params, x, sigma, cond, None)


def denoise(run: Experiment, params, cond: dict, scale: float = 1.0):
    """The Denoise of a run's model under cond: dict of [B, ...]; classifier-free guidance where scale is not 1."""
    null = {name: jnp.broadcast_to(value, cond[name].shape) for name, value in run.null.items()}
    rule = guidance.none() if scale == 1 else guidance.classifier_free(scale)
    return rule(functools.partial(_conditional, run.denoiser, params), cond, null)


def adaptive(config: configs.Config) -> bool:
    """Whether the config's sampler chooses its own steps, so that sample.steps means nothing to it."""
    return config['sampler']['name'] in ode.__all__


def sigmas(run: Experiment, config: configs.Config):
    """The noise levels [N + 1] that a config's grid and sample.steps give.

    An adaptive sampler gets the two ends alone: of a fine grid, since the last level of some depends on the steps.
    """
    grid = configs.construct(config, 'grid', SCHEMA)
    if adaptive(config):
        return grid(run.process, 1000)[jnp.asarray([0, -2, -1])]
    return grid(run.process, config['sample']['steps'])
