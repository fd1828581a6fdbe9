"""DINOv2's vision transformer (Oquab et al. 2304.07193), without registers. The names are those of the published
PyTorch weights."""

import re

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from diffusion.nets import published, resizing

SIZE = 224  # pixels of a side that features are taken at
HEAD = 64  # features of a head, in all published sizes
# ImageNet's, of values in [0, 1].
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = {384: 's', 768: 'b', 1024: 'l', 1536: 'g'}  # by width


class Attention(nnx.Module):
    def __init__(self, width, heads, *, rngs):
        self.qkv, self.proj = nnx.Linear(width, 3 * width, rngs=rngs), nnx.Linear(width, width, rngs=rngs)
        self.heads = heads

    def __call__(self, x):
        query, key, value = jnp.moveaxis(self.qkv(x).reshape(*x.shape[:-1], 3, self.heads, -1), -3, 0)
        return self.proj(jax.nn.dot_product_attention(query, key, value).reshape(x.shape))


class MLP(nnx.Module):
    def __init__(self, width, hidden, *, rngs):
        self.fc1, self.fc2 = nnx.Linear(width, hidden, rngs=rngs), nnx.Linear(hidden, width, rngs=rngs)

    def __call__(self, x):
        return self.fc2(jax.nn.gelu(self.fc1(x), approximate=False))


class SwiGLU(nnx.Module):
    """Of the largest size: one half of the first layer gates the other (Shazeer 2002.05202)."""

    def __init__(self, width, hidden, *, rngs):
        self.w12, self.w3 = nnx.Linear(width, 2 * hidden, rngs=rngs), nnx.Linear(hidden, width, rngs=rngs)

    def __call__(self, x):
        gate, value = jnp.split(self.w12(x), 2, -1)
        return self.w3(nnx.silu(gate) * value)


class LayerScale(nnx.Module):
    def __init__(self, width):
        self.gamma = nnx.Param(jnp.ones(width))

    def __call__(self, x):
        return x * self.gamma[...]


class Block(nnx.Module):
    def __init__(self, width, hidden, heads, gated, *, rngs):
        self.norm1, self.norm2 = (nnx.LayerNorm(width, epsilon=1e-6, rngs=rngs) for _ in range(2))
        self.attn = Attention(width, heads, rngs=rngs)
        self.mlp = (SwiGLU if gated else MLP)(width, hidden, rngs=rngs)
        self.ls1, self.ls2 = LayerScale(width), LayerScale(width)

    def __call__(self, x):
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class Patches(nnx.Module):
    def __init__(self, patch, width, *, rngs):
        self.proj = nnx.Conv(3, width, (patch, patch), patch, padding='VALID', rngs=rngs)

    def __call__(self, x):
        return self.proj(x)


class DINOv2(nnx.Module):
    """Images [B, H, W, 3], normalised, of whole patches -> the normalised class token, [B, width].

    patch: pixels of a side; side: patches of a side of the pictures it was trained on; hidden: features within an MLP;
    gated: whether that is a SwiGLU; offset: what the published code adds to the number of patches when it stretches the
    positions to pictures of another size, 0.1.
    """

    def __init__(self, *, patch, side, width, depth, hidden, heads, gated, rngs, offset=0.1):
        self.cls_token = nnx.Param(jnp.zeros((1, 1, width)))
        self.pos_embed = nnx.Param(jnp.zeros((1, 1 + side**2, width)))
        self.patch_embed = Patches(patch, width, rngs=rngs)
        self.blocks = nnx.List([Block(width, hidden, heads, gated, rngs=rngs) for _ in range(depth)])
        self.norm = nnx.LayerNorm(width, epsilon=1e-6, rngs=rngs)
        self.side, self.offset = side, offset

    def __call__(self, images):
        x = self.patch_embed(images)
        batch, rows, columns, width = x.shape
        first, grid = self.pos_embed[...][:, :1], self.pos_embed[...][:, 1:]
        if (rows, columns) != (self.side, self.side):
            tall, wide = (cubic(self.side, count, self.offset) for count in (rows, columns))
            grid = jnp.einsum('ip,jq,pqc->ijc', tall, wide, grid.reshape(self.side, self.side, width))
        x = x.reshape(batch, -1, width) + grid.reshape(1, -1, width)
        token = jnp.broadcast_to(self.cls_token[...] + first, (batch, 1, width))
        x = jnp.concatenate([token, x], 1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 0]


def cubic(old: int, new: int, offset: float) -> np.ndarray:
    """Weights [new, old] that interpolate a row as PyTorch's bicubic mode does (Keys 1981 with a = -0.75): nothing is
    smoothed, places beyond the border are the border's; a step is old / (new + offset)."""
    place = (np.arange(new) + 0.5) * old / (new + offset) - 0.5
    low = np.floor(place).astype(int)
    weights = np.zeros((new, old), np.float32)
    for tap in range(-1, 3):
        t, a = np.abs(place - low - tap), -0.75
        value = np.where(t <= 1, ((a + 2) * t - (a + 3)) * t * t + 1, ((t - 5) * t + 8) * t * a - 4 * a)
        np.add.at(weights, (np.arange(new), np.clip(low + tap, 0, old - 1)), value)
    return weights


def seen(images: jax.Array) -> jax.Array:
    """Images [B, H, W, 3] in [0, 255] of any size as the network wants them: resized smoothly to 224, normalised."""
    x = resizing.smooth(images, SIZE) / 255
    return (x - np.asarray(MEAN, np.float32)) / np.asarray(DEVIATION, np.float32)


# What weights in the layout of Hugging Face's are called in that of the authors.
_RENAMED = (
    (r'^(dinov2\.)?embeddings\.cls_token', 'cls_token'),
    (r'^(dinov2\.)?embeddings\.mask_token', 'mask_token'),
    (r'^(dinov2\.)?embeddings\.position_embeddings', 'pos_embed'),
    (r'^(dinov2\.)?embeddings\.patch_embeddings\.projection', 'patch_embed.proj'),
    (r'^(dinov2\.)?encoder\.layer', 'blocks'),
    (r'^(dinov2\.)?layernorm\.', 'norm.'),
    (r'attention\.output\.dense', 'attn.proj'),
    (r'layer_scale(\d)\.lambda1', r'ls\1.gamma'),
    (r'mlp\.weights_in', 'mlp.w12'),
    (r'mlp\.weights_out', 'mlp.w3'),
)


def named(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors in the layout of Hugging Face's weights under the authors' names; the authors' own as they are."""
    found = {}
    for name, value in tensors.items():
        for pattern, to in _RENAMED:
            name = re.sub(pattern, to, name)
        found[name] = value
    for name in [name for name in found if '.attention.attention.query.' in name]:
        parts = [found.pop(name.replace('query', part), None) for part in ('query', 'key', 'value')]
        if not any(part is None for part in parts):
            found[name.replace('attention.attention.query', 'attn.qkv')] = np.concatenate(parts)
    return found


def shape(tensors: dict[str, np.ndarray]) -> dict:
    """The arguments of `DINOv2` that weights of these names and shapes are of. Raises ValueError for others."""
    try:
        _, positions, width = tensors['pos_embed'].shape
        patch = tensors['patch_embed.proj.weight'].shape[-1]
        gated = 'blocks.0.mlp.w12.weight' in tensors
        hidden = tensors['blocks.0.mlp.w3.weight' if gated else 'blocks.0.mlp.fc2.weight'].shape[1]
        depth = 1 + max(int(name.split('.')[1]) for name in tensors if name.startswith('blocks.'))
    except (KeyError, ValueError, IndexError) as error:
        raise ValueError(f'no weights of DINOv2: {error} is missing or of another shape') from error
    side = round((positions - 1) ** 0.5)
    if side**2 != positions - 1 or width % HEAD:
        raise ValueError(f'no weights of DINOv2: pos_embed has shape {tensors["pos_embed"].shape}')
    heads = width // HEAD
    return dict(patch=patch, side=side, width=width, depth=depth, hidden=hidden, heads=heads, gated=gated)


def parameters(tensors: dict[str, np.ndarray], **sizes) -> dict:
    """The parameters of `DINOv2(**sizes)` from the authors' tensors by name. Raises ValueError for others."""
    shapes = jax.eval_shape(lambda: nnx.to_pure_dict(nnx.state(DINOv2(**sizes, rngs=nnx.Rngs(0)))))
    # A token that stands for hidden patches while it is trained.
    return published.parameters(shapes, tensors, 'DINOv2', ('mask_token',))
