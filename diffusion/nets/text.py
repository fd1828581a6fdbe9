"""A small text tower, trained along with the network: no download."""

import jax.numpy as jnp
from flax import nnx

from diffusion.nets import layers as parts


class TextBlock(nnx.Module):
    """Pre-norm transformer block over tokens: [B, L, width]."""

    def __init__(self, width, *, rngs, dtype=None):
        self.norm1 = nnx.LayerNorm(width, rngs=rngs)
        self.attention = parts.Attention(width, heads=max(width // 32, 1), rngs=rngs, dtype=dtype)
        self.norm2 = nnx.LayerNorm(width, rngs=rngs)
        self.mlp = parts.MLP(width, 4 * width, width, rngs=rngs, dtype=dtype, activation=nnx.gelu)

    def __call__(self, x, mask):
        x = x + self.attention(self.norm1(x), mask=mask)
        return x + self.mlp(self.norm2(x))


class TextTower(nnx.Module):
    """Token ids -> tokens and a pooled vector. With layers=0 a bag of words: order does not matter.

    The first position is a learned "start" that is always visible, so that the null prompt (all padding) is a
    sequence like any other.
    """

    def __init__(self, vocabulary, length, width, pooled, *, layers: int, rngs, dtype=None):
        self.embed = nnx.Embed(vocabulary, width, dtype=dtype, rngs=rngs)
        self.start = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (1, width)))
        self.blocks = nnx.Dict({str(i): TextBlock(width, rngs=rngs, dtype=dtype) for i in range(layers)})
        self.positions = nnx.Embed(length + 1, width, dtype=dtype, rngs=rngs) if layers else None
        # Linear, so that without layers a caption is the sum of its words: an MLP here learns whole captions by heart.
        self.pool = parts.linear(width, pooled, rngs=rngs, dtype=dtype)

    def __call__(self, ids):
        """ids: [B, L], 0 is padding -> tokens: [B, L + 1, width], mask: [B, L + 1], pooled: [B, pooled]."""
        mask = jnp.pad(ids > 0, ((0, 0), (1, 0)), constant_values=True)
        start = jnp.broadcast_to(self.start[...].astype(self.embed.dtype), (ids.shape[0], 1, self.start.shape[-1]))
        x = jnp.concatenate([start, parts.spread(self.embed(ids))], 1)
        if self.positions is not None:
            x = x + self.positions(jnp.arange(x.shape[1]))
        for block in self.blocks.values():
            x = block(x, mask)
        return x, mask, self.pool(jnp.sum(jnp.where(mask[..., None], x, 0), 1))
