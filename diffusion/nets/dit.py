"""A diffusion transformer with adaLN-Zero (Peebles & Xie 2212.09748), its blocks stacked and scanned."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from diffusion.nets import condition, layers

__all__ = ['DiT']


class Block(nnx.Module):
    """Self-attention, cross-attention to text where there is any, and an MLP, each gated by the condition."""

    def __init__(self, width, context, *, heads, mlp_ratio, dropout, rngs, dtype):
        norm = {'use_bias': False, 'use_scale': False, 'epsilon': 1e-6, 'rngs': rngs}
        self.norm1, self.norm2 = nnx.LayerNorm(width, **norm), nnx.LayerNorm(width, **norm)
        self.attention = layers.Attention(width, heads=heads, rngs=rngs, dtype=dtype, zero=False)
        self.cross = layers.Attention(width, context, heads=heads, rngs=rngs, dtype=dtype) if context else None
        self.mlp = layers.MLP(width, int(width * mlp_ratio), width, rngs=rngs, dtype=dtype, activation=jax.nn.gelu)
        self.modulation = layers.linear(width, 6 * width, rngs=rngs, dtype=dtype, zero=True)
        self.dropout = dropout

    def __call__(self, x, vector, tokens, mask, keys):
        film1, gate1, film2, gate2 = jnp.split(
            self.modulation(vector)[:, None], [2 * x.shape[-1], 3 * x.shape[-1], 5 * x.shape[-1]], -1
        )
        y = layers.modulate(self.norm1(x).astype(x.dtype), film1[:, 0])
        x = x + gate1 * layers.dropout(self.attention(y), layers.fold(keys, 0), self.dropout)
        if self.cross is not None:
            x = x + self.cross(x, tokens, mask)
        y = layers.modulate(self.norm2(x).astype(x.dtype), film2[:, 0])
        return x + gate2 * layers.dropout(self.mlp(y), layers.fold(keys, 1), self.dropout)


class DiT(nnx.Module):
    """Network F(x, noise, cond, keys) of any image whose sides are divisible by patch.

    patch: side of a patch in pixels; width: features, divisible by 4 and by heads; depth: blocks; heads, mlp_ratio:
    of each block; remat: what the backward pass recomputes: 'none', 'full' or a name from `jax.checkpoint_policies`;
    unroll: whether the compiler sees every block instead of a loop over them, for a faster step; text_width,
    text_layers, dropout, dtype, picture as for `UNet`. Compile time grows with depth if blocks are unrolled only.
    """

    def __init__(
        self,
        *,
        patch: int = 2,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        mlp_ratio: float = 4.0,
        remat: str = 'none',
        unroll: bool = False,
        text_width: int = 64,
        text_layers: int = 0,
        dropout: float = 0.0,
        dtype: str = 'float32',
        channels,
        outputs=0,
        classes=0,
        vocabulary=0,
        length=0,
        states=0,
        augment=0,
        picture=0,
        rngs,
    ):
        layers.check(remat, dtype)
        if width % 4:
            raise ValueError(f'width={width}: must divide by 4')
        self.patch, self.outputs, self.dtype = patch, outputs or channels, jnp.dtype(dtype)
        self.remat, self.unroll = remat, unroll
        self.condition = condition.Condition(
            width,
            classes=classes,
            vocabulary=vocabulary,
            length=length,
            states=states,
            augment=augment,
            text_width=text_width,
            text_layers=text_layers,
            rngs=rngs,
            dtype=dtype,
        )
        self.embed = layers.linear(patch * patch * channels, width, rngs=rngs, dtype=dtype)
        wide = {'rngs': rngs, 'dtype': dtype, 'zero': True, 'bias': False}
        self.picture = layers.linear(patch * patch * picture, width, **wide) if picture else None

        @nnx.split_rngs(splits=depth)
        @nnx.vmap
        def stack(rngs):
            context = text_width if vocabulary or states else 0
            return Block(width, context, heads=heads, mlp_ratio=mlp_ratio, dropout=dropout, rngs=rngs, dtype=dtype)

        self.blocks = stack(rngs)
        self.norm = nnx.LayerNorm(width, use_bias=False, use_scale=False, epsilon=1e-6, rngs=rngs)
        self.modulation = layers.linear(width, 2 * width, rngs=rngs, dtype=dtype, zero=True)
        self.last = layers.linear(width, patch * patch * self.outputs, rngs=rngs, dtype=dtype, zero=True)

    def __call__(self, x, noise, cond, keys=None):
        """x: [B, H, W, channels] float32, noise: [B], keys: [B] or None -> [B, H, W, outputs] float32."""
        batch, height, width, _ = x.shape
        p = self.patch
        if height % p or width % p:
            raise ValueError(f'images of {height} x {width}: sides must divide by the patch, {p}')
        rows, columns = height // p, width // p
        vector, tokens, mask = self.condition(noise, cond)

        def patches(x):
            return x.reshape(batch, rows, p, columns, p, -1).swapaxes(2, 3).reshape(batch, rows * columns, -1)

        x = self.embed(patches(x))
        x = x if self.picture is None else x + self.picture(patches(cond['picture']))
        x = x + layers.patch_positions(rows, columns, x.shape[-1]).astype(x.dtype)
        x = self._scan(x, vector, tokens, mask, keys)
        x = layers.modulate(self.norm(x).astype(x.dtype), self.modulation(vector))
        x = self.last(x).reshape(batch, rows, columns, p, p, self.outputs).swapaxes(2, 3)
        return x.reshape(batch, height, width, self.outputs).astype(jnp.float32)

    def _scan(self, x, vector, tokens, mask, keys):
        graphdef, stacked = nnx.split(self.blocks)

        def body(x, block):
            index, params = block
            return nnx.merge(graphdef, params)(x, vector, tokens, mask, layers.fold(keys, index)), None

        depth = jax.tree.leaves(stacked)[0].shape[0]
        body = layers.recomputed(body, self.remat, scanned=not self.unroll)
        return lax.scan(body, x, (jnp.arange(depth), stacked), unroll=self.unroll)[0]
