"""What the PyTorch networks of the benchmarks share, and how our weights get into them."""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class MLP(nn.Module):
    """Two dense layers with a SiLU between."""

    def __init__(self, features_in, features):
        super().__init__()
        self.up, self.down = nn.Linear(features_in, features), nn.Linear(features, features)

    def forward(self, x):
        return self.down(functional.silu(self.up(x)))


class TextBag(nn.Module):
    """ids: [B, L], 0 is padding -> a map of the sum of the words' vectors and a start: [B, pooled]."""

    def __init__(self, vocabulary, width, pooled):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.start = nn.Parameter(torch.zeros(1, width))
        self.pool = nn.Linear(width, pooled)

    def forward(self, ids):
        words = torch.where((ids > 0)[..., None], self.embed(ids), 0)
        return self.pool(words.sum(1) + self.start)


class Condition(nn.Module):
    """The noise level, and the text or the class, as one vector. cond: {'tokens': [B, L]} or {'label': [B]}."""

    def __init__(self, features, *, vocabulary=0, text_width=0, classes=0):
        super().__init__()
        self.noise = MLP(features, features)
        self.text = TextBag(vocabulary, text_width, features) if vocabulary else None
        self.label = nn.Embedding(classes + 1, features) if classes else None
        frequency = 2 * math.pi * np.geomspace(0.1, 16, features // 2)
        self.register_buffer('frequency', torch.tensor(frequency, dtype=torch.float32), persistent=False)

    def forward(self, noise, cond):
        phase = noise[:, None] * self.frequency
        vector = self.noise(torch.cat([phase.cos(), phase.sin()], 1))
        if self.text is not None:
            vector = vector + self.text(cond['tokens'])
        if self.label is not None:
            vector = vector + self.label(cond['label'] + 1)
        return functional.silu(vector)


def copy_weights(network: nn.Module, params: dict) -> None:
    """Our weights, nested dict of arrays, into network; each must find its place and its shape.

    Module names follow ours, so this is a renaming; stacked blocks are taken apart."""
    weights = dict(_renamed(params))
    network.load_state_dict({name: torch.tensor(value) for name, value in weights.items()}, strict=True)


def _renamed(params, path=()):
    for key, value in params.items():
        if isinstance(value, dict):
            yield from _renamed(value, (*path, key))
        elif path and path[0] == 'blocks':
            for index, one in enumerate(np.asarray(value)):
                yield _named((path[0], str(index), *path[1:]), key, one)
        else:
            yield _named(path, key, np.asarray(value))


def _named(path, key, value):
    names = [name for name in path if name != 'block']  # ours wraps a ResBlock in a stage that may attend
    if key == 'kernel':
        value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
        value = value[..., None, None] if names[-1] == 'skip' else value  # a 1 x 1 convolution there
    key = {'kernel': 'weight', 'scale': 'weight', 'embedding': 'weight'}.get(key, key)
    return '.'.join((*names, key)), value
