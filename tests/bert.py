"""A tiny BERT of random weights as a folder of Hugging Face's layout, and what BERT computes, written out by loops."""

import json
import math
import pathlib

import numpy as np

from diffusion.nets import safetensors

PIECES = ('a', 'cat', 'dog', 'face', 'with', 'un', '##hap', '##py', '##s', 'smiling', ',', '!', '-', 'eyes', 'heart')
WORDS = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', *PIECES]
WIDTH, DEPTH, HEADS, HIDDEN, POSITIONS = 16, 2, 4, 24, 24


def write(folder: pathlib.Path, seed: int = 0, width: int = WIDTH) -> pathlib.Path:
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}

    def norm(name):
        tensors[f'{name}.weight'] = 1 + 0.2 * random.standard_normal(width)
        tensors[f'{name}.bias'] = 0.2 * random.standard_normal(width)

    def dense(name, features_in, features):
        tensors[f'{name}.weight'] = 0.5 * random.standard_normal((features, features_in))
        tensors[f'{name}.bias'] = 0.2 * random.standard_normal(features)

    for name, rows in (('word', len(WORDS)), ('position', POSITIONS), ('token_type', 2)):
        tensors[f'embeddings.{name}_embeddings.weight'] = random.standard_normal((rows, width))
    norm('embeddings.LayerNorm')
    for layer in range(DEPTH):
        name = f'encoder.layer.{layer}'
        for which in ('query', 'key', 'value'):
            dense(f'{name}.attention.self.{which}', width, width)
        dense(f'{name}.attention.output.dense', width, width)
        norm(f'{name}.attention.output.LayerNorm')
        dense(f'{name}.intermediate.dense', width, HIDDEN)
        dense(f'{name}.output.dense', HIDDEN, width)
        norm(f'{name}.output.LayerNorm')
    (folder / 'model.safetensors').write_bytes(safetensors.packed(tensors, {}))
    config = dict(model_type='bert', hidden_size=width, num_hidden_layers=DEPTH, num_attention_heads=HEADS)
    config |= dict(max_position_embeddings=POSITIONS, intermediate_size=HIDDEN, vocab_size=len(WORDS))
    config |= dict(hidden_act='gelu', layer_norm_eps=1e-12, type_vocab_size=2, architectures=['BertModel'])
    (folder / 'config.json').write_text(json.dumps(config))
    (folder / 'vocab.txt').write_text('\n'.join(WORDS) + '\n')
    return folder


def states(folder: pathlib.Path, ids: list[int]) -> np.ndarray:
    """float64 [L, width] of one row of tokens: Devlin et al. 1810.04805, Vaswani et al. 1706.03762, token by token."""
    w = safetensors.unpacked((folder / 'model.safetensors').read_bytes())[0]
    w = {name: value.astype(np.float64) for name, value in w.items()}

    def norm(x, name):
        return (x - x.mean()) / math.sqrt(x.var() + 1e-12) * w[f'{name}.weight'] + w[f'{name}.bias']

    def dense(x, name):
        return w[f'{name}.weight'] @ x + w[f'{name}.bias']

    def table(name, row):
        return w[f'embeddings.{name}_embeddings.weight'][row]

    x = [
        norm(table('word', token) + table('position', place) + table('token_type', 0), 'embeddings.LayerNorm')
        for place, token in enumerate(ids)
    ]
    for layer in range(DEPTH):
        name = f'encoder.layer.{layer}'
        query, key, value = (
            [dense(one, f'{name}.attention.self.{which}') for one in x] for which in ('query', 'key', 'value')
        )
        after = []
        for place, one in enumerate(x):
            heard = []
            for head in range(HEADS):
                part = slice(head * len(one) // HEADS, (head + 1) * len(one) // HEADS)
                scores = [query[place][part] @ other[part] / math.sqrt(len(one) // HEADS) for other in key]
                weights = [math.exp(score) for score in scores]
                heard.append(sum(weight * other[part] for weight, other in zip(weights, value)) / sum(weights))
            y = norm(
                one + dense(np.concatenate(heard), f'{name}.attention.output.dense'),
                f'{name}.attention.output.LayerNorm',
            )
            wide = dense(y, f'{name}.intermediate.dense')
            wide = np.array([0.5 * z * (1 + math.erf(z / math.sqrt(2))) for z in wide])
            after.append(norm(y + dense(wide, f'{name}.output.dense'), f'{name}.output.LayerNorm'))
        x = after
    return np.stack(x)
