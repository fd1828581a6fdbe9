"""The sections of a config, and the constructors whose signatures they follow."""

import dataclasses

from diffusion import config as configs
from diffusion.core import (
    augment,
    conditioning,
    density,
    discrete,
    editing_guided,
    editing_stepped,
    editing_trained,
    grids,
    guidance,
    multistep,
    ode,
    precond,
    process,
    samplers,
    stochastic,
    threshold,
    weighting,
)
from diffusion.data import sources, tokens
from diffusion.nets import dit, mlp, unet
from diffusion.runtime import ema, optimizer
from diffusion.wiring import encoder


@dataclasses.dataclass(frozen=True)
class Train:
    """batch: images a step over all devices and hosts; accumulate: pieces in which a batch is worked on one after the
    other, to save memory, and which change nothing else; cond_dropout: share of examples trained without any
    condition, what guidance needs; label_dropout, text_dropout: share of those that lose this one besides, whatever
    becomes of the others; labels: whether class labels are a condition; uncertainty: whether each noise level
    counts by the inverse of its learned loss (`core.uncertainty`); adaptive: bins of noise levels that are drawn by
    their loss (`core.adaptive`), 0: drawn as the density says; variance_steps: levels of the chain whose reverse
    variance is learned for sampler.learned (`core.variance`), 0: not learned; *_every: in steps; keep: newest
    checkpoints kept, keep_every: besides these, those of steps that it divides (0: none), keep_best: and so many of the
    best by best_metric, a name in metrics.jsonl or of `diffusion evaluate`, the lowest or, with best_highest, the
    highest; skips: steps in a row without a finite loss and gradient after which a run goes back to its last good
    checkpoint and passes over these data (0: never); rollbacks: how often, before it gives up; incidents: how many such
    steps are kept as evidence."""

    steps: int = 1000
    batch: int = 64
    accumulate: int = 1
    seed: int = 0
    cond_dropout: float = 0.0
    label_dropout: float = 0.0
    text_dropout: float = 0.0
    labels: bool = True
    uncertainty: bool = False
    adaptive: int = 0
    variance_steps: int = 0
    log_every: int = 50
    save_every: int = 1000
    keep: int = 2
    keep_every: int = 0
    keep_best: int = 0
    best_metric: str = 'loss'
    best_highest: bool = False
    skips: int = 10
    rollbacks: int = 3
    incidents: int = 20

    def __post_init__(self):
        for key in ('steps', 'batch', 'accumulate', 'log_every', 'save_every', 'keep'):
            if getattr(self, key) < 1:
                raise ValueError(f'{key}={getattr(self, key)}: must be at least 1')
        for key in ('keep_every', 'keep_best', 'skips', 'rollbacks', 'incidents'):
            if getattr(self, key) < 0:
                raise ValueError(f'{key}={getattr(self, key)}: must be at least 0')
        for key in ('cond_dropout', 'label_dropout', 'text_dropout'):
            if not 0 <= getattr(self, key) < 1:
                raise ValueError(f'{key}={getattr(self, key)}: must be in [0, 1)')
        if self.adaptive < 0 or self.adaptive == 1:
            raise ValueError(f'adaptive={self.adaptive}: a number of bins, at least 2, or 0 for none')
        if self.variance_steps < 0 or self.variance_steps == 1:
            raise ValueError(f'variance_steps={self.variance_steps}: steps of a chain, at least 2, or 0 for none')

    def dropouts(self) -> dict[str, float]:
        """The conditions that are dropped by themselves, and how often."""
        rates = {'label': self.label_dropout, 'tokens': self.text_dropout}
        return {name: rate for name, rate in rates.items() if rate}

    def never_without(self, null: dict) -> list[str]:
        """Of the conditions in null those that no example is trained without."""
        return [] if self.cond_dropout else [name for name in null if name not in self.dropouts()]


@dataclasses.dataclass(frozen=True)
class InitFrom:
    """What a run that begins takes its weights from. path: a workdir, or one of its checkpoints, '' for none; weights:
    ema, raw or another average; step: of a workdir, 0 for the newest."""

    path: str = ''
    weights: str = ema.MAIN
    step: int = 0

    def __post_init__(self):
        if self.step < 0:
            raise ValueError(f'step={self.step}: at least 1, or 0 for the newest')


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

    num: pictures on a sheet, 0: no sheets at all; unseen: prompts besides, that the set does not hold; match: how many
    captions are drawn at the end to measure the share whose nearest training image carries the caption (0: none).
    """

    every: int = 0
    num: int = 36
    unseen: tuple[str, ...] = ()
    match: int = 0

    def __post_init__(self):
        if min(self.num, self.every, self.match) < 0:
            raise ValueError('num, every and match must be at least 0')
        if not self.num and (self.every or self.match):
            raise ValueError('num=0 draws no sheets: every and match must then be 0 too')


@dataclasses.dataclass(frozen=True)
class Runtime:
    """platform: 'auto', 'cpu', 'gpu' or 'tpu'; devices: 0 for all, on a CPU one a core; fsdp: over how many devices
    parameters are split; tensor: over how many each layer's features and heads are; slices: groups of devices with a
    slow network between them, 0: as the hardware says. What these leave of the devices splits the batch, as fsdp and
    slices do. workers: processes of each host that read the data, -1: none for a set in memory or on fewer than
    four cores, else all cores but one; ahead: batches read ahead, 0: as many as the steps of two seconds take. Where
    a run computes, not what: it may change from start to start.

    Deadlines in s: startup, until all processes have reported; watchdog, in which something must finish, a step, the
    compilation, a call of the sampler, a checkpoint (0: no watchdog); grace, from a signal to the end with everything
    saved, beyond which it is a fault (0: as long as it takes)."""

    platform: str = 'auto'
    devices: int = 0
    fsdp: int = 1
    tensor: int = 1
    slices: int = 0
    workers: int = -1
    ahead: int = 0
    startup: int = 300
    watchdog: int = 3600
    grace: int = 0

    def __post_init__(self):
        if self.startup < 1 or self.watchdog < 0 or self.grace < 0:
            raise ValueError('startup must be at least 1 s, watchdog and grace at least 0')
        if self.workers < -1 or self.ahead < 0:
            raise ValueError('workers must be at least 0, or -1 to leave it to the data, and ahead at least 0')
        if self.devices < 0 or self.slices < 0 or self.fsdp < 1 or self.tensor < 1:
            raise ValueError('devices and slices must be at least 0, fsdp and tensor at least 1')


def _named(*modules):
    return {name: getattr(module, name) for module in modules for name in module.__all__}


_DERIVED = frozenset({'channels', 'outputs', 'classes', 'vocabulary', 'length', 'states', 'augment', 'picture', 'rngs'})

SCHEMA = {
    'data': configs.Section(_named(sources)),
    'text': configs.Section({**_named(tokens), encoder.KIND: encoder.encoder}, frozenset({'captions'}), optional=True),
    'init_from': configs.Section({'': InitFrom}),
    'augment': configs.Section(_named(augment), optional=True),
    'conditioning': configs.Section(_named(conditioning), frozenset({'channels'}), optional=True),
    'process': configs.Section(_named(process, discrete)),
    'precond': configs.Section(_named(precond)),
    'density': configs.Section(_named(density)),
    'weighting': configs.Section(_named(weighting), optional=True),
    'net': configs.Section(_named(unet, dit, mlp), _DERIVED),
    'optimizer': configs.Section(_named(optimizer)),
    'ema': configs.Section({'': ema.EMA}),
    'train': configs.Section({'': Train}),
    'sampler': configs.Section(_named(samplers, multistep, stochastic, ode)),
    'grid': configs.Section(_named(grids)),
    'guidance': configs.Section(_named(guidance)),
    'threshold': configs.Section(_named(threshold), optional=True),
    'edit': configs.Section(_named(editing_stepped, editing_guided, editing_trained), optional=True),
    'sample': configs.Section({'': Sample}),
    'preview': configs.Section({'': Preview}),
    'runtime': configs.Section({'': Runtime}),
}

# What may be chosen anew each time samples are drawn; the rest is fixed by the training.
SAMPLING = ('sampler', 'grid', 'guidance', 'threshold', 'sample', 'runtime', 'text.path', 'text.cache')
EDITING = (*SAMPLING, 'edit')


def resolve(path: str, overrides: list[str]) -> configs.Config:
    """The checked and completed config of a file. Raises `config.ConfigError`."""
    return override(configs.load(path), overrides)


def override(config: configs.Config, overrides: list[str]) -> configs.Config:
    """`resolve` for sections that are already read."""
    config = configs.resolve(config, overrides, SCHEMA)
    for section in set(config) - {'data', 'text', 'net'}:  # these need the data
        configs.construct(config, section, SCHEMA)
    return config
