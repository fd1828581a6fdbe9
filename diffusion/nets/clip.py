"""CLIP's two towers (Radford et al. 2103.00020): pictures and captions to one space. The names are those of the weights
in Hugging Face's layout."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from diffusion.nets import published, resizing

HEAD = 64  # features of a head, in all published sizes
# Of the pictures that it was trained on, of values in [0, 1].
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Attention(nnx.Module):
    def __init__(self, width, *, rngs):
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nnx.Linear(width, width, rngs=rngs) for _ in range(4))
        self.heads = width // HEAD

    def __call__(self, x, causal):
        split = lambda y: y.reshape(*y.shape[:-1], self.heads, HEAD)  # noqa: E731
        query, key, value = split(self.q_proj(x)), split(self.k_proj(x)), split(self.v_proj(x))
        return self.out_proj(jax.nn.dot_product_attention(query, key, value, is_causal=causal).reshape(x.shape))


class MLP(nnx.Module):
    def __init__(self, width, hidden, *, rngs):
        self.fc1, self.fc2 = nnx.Linear(width, hidden, rngs=rngs), nnx.Linear(hidden, width, rngs=rngs)

    def __call__(self, x):
        x = self.fc1(x)
        return self.fc2(x * jax.nn.sigmoid(1.702 * x))


class Layer(nnx.Module):
    def __init__(self, width, hidden, *, rngs):
        self.layer_norm1, self.layer_norm2 = _norm(width, rngs), _norm(width, rngs)
        self.self_attn, self.mlp = Attention(width, rngs=rngs), MLP(width, hidden, rngs=rngs)

    def __call__(self, x, causal):
        x = x + self.self_attn(self.layer_norm1(x), causal)
        return x + self.mlp(self.layer_norm2(x))


class Encoder(nnx.Module):
    def __init__(self, width, hidden, depth, *, rngs):
        self.layers = nnx.List([Layer(width, hidden, rngs=rngs) for _ in range(depth)])

    def __call__(self, x, causal):
        for layer in self.layers:
            x = layer(x, causal)
        return x


class Table(nnx.Module):
    def __init__(self, rows, width):
        self.weight = nnx.Param(jnp.zeros((rows, width)))


class Patches(nnx.Module):
    def __init__(self, patch, count, width, *, rngs):
        self.class_embedding = nnx.Param(jnp.zeros(width))
        self.patch_embedding = nnx.Conv(3, width, (patch, patch), patch, padding='VALID', use_bias=False, rngs=rngs)
        self.position_embedding = Table(count + 1, width)

    def __call__(self, images):
        x = self.patch_embedding(images)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        first = jnp.broadcast_to(self.class_embedding[...], (x.shape[0], 1, x.shape[-1]))
        return jnp.concatenate([first, x], 1) + self.position_embedding.weight[...]


class Words(nnx.Module):
    def __init__(self, vocabulary, length, width):
        self.token_embedding, self.position_embedding = Table(vocabulary, width), Table(length, width)

    def __call__(self, tokens):
        return self.token_embedding.weight[...][tokens] + self.position_embedding.weight[...]


class Vision(nnx.Module):
    def __init__(self, patch, count, width, hidden, depth, *, rngs):
        self.embeddings = Patches(patch, count, width, rngs=rngs)
        self.pre_layrnorm, self.post_layernorm = _norm(width, rngs), _norm(width, rngs)  # as it is spelt in the weights
        self.encoder = Encoder(width, hidden, depth, rngs=rngs)

    def __call__(self, images):
        x = self.encoder(self.pre_layrnorm(self.embeddings(images)), False)
        return self.post_layernorm(x[:, 0])


class Text(nnx.Module):
    def __init__(self, vocabulary, length, width, hidden, depth, *, rngs):
        self.embeddings = Words(vocabulary, length, width)
        self.encoder = Encoder(width, hidden, depth, rngs=rngs)
        self.final_layer_norm = _norm(width, rngs)

    def __call__(self, tokens, ends):
        x = self.final_layer_norm(self.encoder(self.embeddings(tokens), True))
        return x[jnp.arange(len(x)), ends]


class ImageTower(nnx.Module):
    """Images [B, H, W, 3] in [0, 255] of any size -> unit vectors [B, D]. They are resized smoothly to side * patch."""

    def __init__(self, *, patch, side, width, hidden, depth, dimensions, rngs):
        self.vision_model = Vision(patch, side**2, width, hidden, depth, rngs=rngs)
        self.visual_projection = nnx.Linear(width, dimensions, use_bias=False, rngs=rngs)
        self.size = side * patch

    def __call__(self, images):
        x = resizing.smooth(images, self.size) / 255
        x = (x - np.asarray(MEAN, np.float32)) / np.asarray(DEVIATION, np.float32)
        return _unit(self.visual_projection(self.vision_model(x)))


class TextTower(nnx.Module):
    """tokens: int [B, length]; ends: int [B], where the caption ends in each -> unit vectors [B, D]."""

    def __init__(self, *, vocabulary, length, width, hidden, depth, dimensions, rngs):
        self.text_model = Text(vocabulary, length, width, hidden, depth, rngs=rngs)
        self.text_projection = nnx.Linear(width, dimensions, use_bias=False, rngs=rngs)

    def __call__(self, tokens, ends):
        return _unit(self.text_projection(self.text_model(tokens, ends)))


def _norm(width, rngs):
    return nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)


def _unit(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


IMAGE, TEXT = ('vision_model.', 'visual_projection.'), ('text_model.', 'text_projection.')


def image_tower(tensors: dict[str, np.ndarray]) -> tuple[dict, dict]:
    """The arguments of `ImageTower` and its parameters, of weights by name. Raises ValueError for others."""
    prefix = 'vision_model'
    count, width = _shape(tensors, f'{prefix}.embeddings.position_embedding.weight', 2)
    patch = _shape(tensors, f'{prefix}.embeddings.patch_embedding.weight', 4)[-1]
    side = round((count - 1) ** 0.5)
    sizes = {'patch': patch, 'side': side, 'width': width, **_layers(tensors, prefix)}
    sizes['dimensions'] = _shape(tensors, 'visual_projection.weight', 2)[0]
    return sizes, _parameters(ImageTower, sizes, tensors, IMAGE)


def text_tower(tensors: dict[str, np.ndarray]) -> tuple[dict, dict]:
    """The arguments of `TextTower` and its parameters, of weights by name. Raises ValueError for others."""
    prefix = 'text_model'
    vocabulary, width = _shape(tensors, f'{prefix}.embeddings.token_embedding.weight', 2)
    length = _shape(tensors, f'{prefix}.embeddings.position_embedding.weight', 2)[0]
    sizes = {'vocabulary': vocabulary, 'length': length, 'width': width, **_layers(tensors, prefix)}
    sizes['dimensions'] = _shape(tensors, 'text_projection.weight', 2)[0]
    return sizes, _parameters(TextTower, sizes, tensors, TEXT)


def _shape(tensors, name, axes):
    if name not in tensors or tensors[name].ndim != axes:
        raise ValueError(f'no weights of CLIP in the layout of Hugging Face: no {name} of {axes} axes')
    return tensors[name].shape


def _layers(tensors, prefix):
    hidden, width = _shape(tensors, f'{prefix}.encoder.layers.0.mlp.fc1.weight', 2)
    if width % HEAD:
        raise ValueError(f'{width} features do not divide into heads of {HEAD}, which all published sizes of CLIP have')
    start = f'{prefix}.encoder.layers.'
    return {'hidden': hidden, 'depth': len({name.split('.')[3] for name in tensors if name.startswith(start)})}


def _parameters(tower, sizes, tensors, prefixes):
    own = {name: value for name, value in tensors.items() if name.startswith(prefixes)}
    shapes = jax.eval_shape(lambda: nnx.to_pure_dict(nnx.state(tower(**sizes, rngs=nnx.Rngs(0)))))
    return published.parameters(shapes, own, 'CLIP', ('position_ids',))
