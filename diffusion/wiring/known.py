"""What the networks must know of the data."""

import dataclasses
from typing import Any

from diffusion import config as configs
from diffusion.data import sources, tokens
from diffusion.wiring import encoder
from diffusion.wiring.schema import SCHEMA


@dataclasses.dataclass(frozen=True)
class Facts:
    """What follows from the data. shape: (H, W, C) of an image; classes: their names; tokenizer: None without text;
    dtype: 'uint8' for pictures in [0, 255], 'float32' for numbers that are taken as they are; shapes: all that images
    have in training where they lie in buckets, of which shape is the commonest."""

    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    tokenizer: Any
    dtype: str
    examples: int
    fingerprint: str
    shapes: tuple[tuple[int, int, int], ...] = ()

    def __post_init__(self):
        if not self.shapes:
            object.__setattr__(self, 'shapes', (self.shape,))

    def to_json(self) -> dict:
        tokenizer = self.tokenizer.to_json() if self.tokenizer else None
        return {**dataclasses.asdict(dataclasses.replace(self, tokenizer=None)), 'tokenizer': tokenizer}


def facts_from_json(stored: dict, config: configs.Config) -> Facts:
    """config: the run's, which names the places of what is too large for its facts."""
    told = stored['tokenizer']
    encoded = told and told.get('kind') == encoder.KIND
    tokenizer = encoder.from_json(told, config['text']) if encoded else told and tokens.from_json(told)
    return Facts(
        **{
            **stored,
            'shape': tuple(stored['shape']),
            'shapes': tuple(map(tuple, stored.get('shapes', ()))),
            'classes': tuple(stored['classes']),
            'tokenizer': tokenizer,
        }
    )


def moved(facts: Facts, config: configs.Config) -> Facts:
    """The facts with the places that a call names anew for the text encoder."""
    if not encoder.configured(config):
        return facts
    places = {key: config['text'][key] for key in ('path', 'cache')}
    return dataclasses.replace(facts, tokenizer=dataclasses.replace(facts.tokenizer, **places))


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
    facts = Facts(shape(data), classes, tokenizer, data.dtype, len(data), data.fingerprint)
    found = data.buckets
    return dataclasses.replace(facts, shapes=tuple((*size, data.shape[2]) for size in found.sizes)) if found else facts


def shape(data: sources.Source) -> tuple[int, int, int]:
    """What images are gathered as where no bucket is named."""
    return (*data.buckets.commonest, data.shape[2]) if data.buckets else tuple(data.shape)
