"""Text: a small tower trained along with the network, of words or on the states of a pretrained encoder."""

import functools

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
    sequence like any other. Of states: [B, L, states] of a pretrained encoder instead of ids, rows of zeros being
    padding, each token is mapped to width, and their mean is pooled instead of their sum.
    """

    def __init__(self, vocabulary, length, width, pooled, *, layers: int, states=0, rngs, dtype=None):
        self.states = states
        made = functools.partial(parts.linear, states) if states else functools.partial(parts.Embed, vocabulary)
        self.embed = made(width, dtype=dtype, rngs=rngs)
        self.start = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), (1, width)))
        self.blocks = nnx.Dict({str(i): TextBlock(width, rngs=rngs, dtype=dtype) for i in range(layers)})
        self.positions = parts.Embed(length + 1, width, dtype=dtype, rngs=rngs) if layers else None
        # Linear, so that without layers a caption is the sum of its words: an MLP here learns whole captions by heart.
        self.pool = parts.linear(width, pooled, rngs=rngs, dtype=dtype)

    def __call__(self, ids):
        """ids: [B, L], 0 is padding -> tokens: [B, L + 1, width], mask: [B, L + 1], pooled: [B, pooled]."""
        there = jnp.any(ids != 0, -1) if self.states else ids > 0
        mask = jnp.pad(there, ((0, 0), (1, 0)), constant_values=True)
        embedded = self.embed(ids.astype(jnp.float32)) if self.states else self.embed(ids)
        start = jnp.broadcast_to(self.start[...].astype(embedded.dtype), (ids.shape[0], 1, self.start.shape[-1]))
        x = parts.spread(jnp.concatenate([start, parts.spread(embedded)], 1))
        if self.positions is not None:
            x = x + self.positions(jnp.arange(x.shape[1]))
        for block in self.blocks.values():
            x = block(x, mask)
        total = jnp.sum(jnp.where(mask[..., None], x, 0), 1)
        return x, mask, self.pool(total / jnp.sum(mask, 1)[:, None] if self.states else total)


def between(one, other, mix):
    """What `TextTower` says of two texts, mixed: at mix: [B] = 0 the one, at 1 the other, bit for bit.

    Positions that one text alone has fade in or out; both ends see their own alone.
    """
    (x, mask, pooled), (x_other, mask_other, pooled_other) = one, other
    share = mix[:, None]

    def mixed(a, b, share):
        return jnp.where(share == 0, a, jnp.where(share == 1, b, (1 - share) * a + share * b)).astype(a.dtype)

    seen = (mask & (share < 1)) | (mask_other & (share > 0))
    x, x_other = jnp.where(mask[..., None], x, 0), jnp.where(mask_other[..., None], x_other, 0)
    return mixed(x, x_other, share[..., None]), seen, mixed(pooled, pooled_other, share)
