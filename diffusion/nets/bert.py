"""BERT (Devlin et al. 1810.04805) in numpy, on the host: captions are read once, and no accelerator holds its weights.

The weights are those of Hugging Face's layout by their names there. Post-norm blocks, learned positions, GELU by erf.
"""

import dataclasses
import math

import numpy as np

PREFIXES = ('', 'bert.')
WANTED = {'hidden_act': 'gelu', 'position_embedding_type': 'absolute'}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of the config.json of a BERT. width: features of a state; positions: tokens at most."""

    width: int
    depth: int
    heads: int
    positions: int
    epsilon: float


def sizes(config: dict) -> Sizes:
    """Raises ValueError for a model that is no BERT, or one that is computed otherwise."""
    kind = config.get('model_type', 'bert')
    if kind != 'bert':
        raise ValueError(f'a model of type {kind!r}: encoders of the type bert are read')
    for key, wanted in WANTED.items():
        if config.get(key, wanted) != wanted:
            raise ValueError(f'{key} is {config[key]!r}: {wanted!r} is read')
    try:
        found = Sizes(
            *(int(config[key]) for key in ('hidden_size', 'num_hidden_layers', 'num_attention_heads')),
            positions=int(config['max_position_embeddings']),
            epsilon=float(config.get('layer_norm_eps', 1e-12)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f'its config.json does not say {error}') from error
    if min(found.width, found.depth, found.heads, found.positions) < 1 or found.width % found.heads:
        raise ValueError(f'{found.width} features do not divide into {found.heads} heads')
    return found


def states(tensors: dict[str, np.ndarray], of: Sizes, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The last layer's states: float32 [B, L, width]. ids: int [B, L] in the vocabulary; mask: bool [B, L], what is no
    padding. Raises ValueError for weights that are missing or of another shape."""
    prefix = next((p for p in PREFIXES if f'{p}embeddings.word_embeddings.weight' in tensors), None)
    if prefix is None:
        raise ValueError('no weights of a BERT: embeddings.word_embeddings.weight is missing')
    table = tensors[f'{prefix}embeddings.word_embeddings.weight']
    if ids.max() >= len(table) or ids.shape[1] > of.positions:
        raise ValueError(f'tokens up to {ids.max()} in rows of {ids.shape[1]}: it has {len(table)} and {of.positions}')

    def part(name, *shape):
        found = tensors.get(prefix + name)
        if found is None or found.shape != shape:
            raise ValueError(
                f'no weights of a BERT: {prefix}{name} has {found is not None and found.shape}, not {shape}'
            )
        return np.asarray(found, np.float32)

    def linear(x, name, features_in, features):
        # As one product of matrices: numpy would take a stack of them one by one.
        flat = x.reshape(-1, features_in) @ part(f'{name}.weight', features, features_in).T
        return flat.reshape(*x.shape[:-1], features) + part(f'{name}.bias', features)

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        scale = 1 / np.sqrt((centred**2).mean(-1, keepdims=True) + of.epsilon)
        return centred * scale * part(f'{name}.weight', of.width) + part(f'{name}.bias', of.width)

    def split(x):
        return x.reshape(*x.shape[:2], of.heads, -1).swapaxes(1, 2)

    width = of.width
    x = (
        np.asarray(table, np.float32)[ids]
        + part('embeddings.position_embeddings.weight', of.positions, width)[: ids.shape[1]]
    )
    x = x + np.asarray(tensors[f'{prefix}embeddings.token_type_embeddings.weight'], np.float32)[0]
    x = norm(x, 'embeddings.LayerNorm')
    for layer in range(of.depth):
        name = f'encoder.layer.{layer}'
        query, key, value = (
            split(linear(x, f'{name}.attention.self.{which}', width, width)) for which in ('query', 'key', 'value')
        )
        scores = query @ key.swapaxes(2, 3) / math.sqrt(width // of.heads)
        weights = _softmax(np.where(mask[:, None, None, :], scores, -np.inf))
        seen = (weights @ value).swapaxes(1, 2).reshape(x.shape)
        x = norm(x + linear(seen, f'{name}.attention.output.dense', width, width), f'{name}.attention.output.LayerNorm')
        hidden = len(tensors[f'{prefix}{name}.intermediate.dense.bias'])
        wide = _gelu(linear(x, f'{name}.intermediate.dense', width, hidden))
        x = norm(x + linear(wide, f'{name}.output.dense', hidden, width), f'{name}.output.LayerNorm')
    return x


def _softmax(scores):
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _gelu(x):
    return 0.5 * x * (1 + _erf(x / np.float32(math.sqrt(2))))


def _erf(x):
    """Within 1.5e-7: Abramowitz & Stegun, 7.1.26. numpy has none."""
    t = 1 / (1 + 0.3275911 * np.abs(x, dtype=np.float64))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return (np.sign(x) * (1 - series * np.exp(-(x.astype(np.float64) ** 2)))).astype(np.float32)
