"""A U-Net of residual blocks with FiLM, self-attention and cross-attention (Ho et al. 2006.11239; 2105.05233)."""

import jax.numpy as jnp
from flax import nnx

from diffusion.nets import condition, layers

__all__ = ['UNet']


class ResBlock(nnx.Module):
    """norm, SiLU, conv, FiLM norm, SiLU, dropout, conv: [B, H, W, c_in] -> [B, H, W, c_out]; starts as its skip."""

    def __init__(self, features_in, features, embedding, *, dropout, rngs, dtype):
        self.norm1 = layers.GroupNorm(features_in, rngs=rngs)
        self.conv1 = layers.conv(features_in, features, 3, rngs=rngs, dtype=dtype, inner=True)
        self.film = layers.linear(embedding, 2 * features, rngs=rngs, dtype=dtype)
        self.norm2 = layers.GroupNorm(features, rngs=rngs)
        self.conv2 = layers.conv(features, features, 3, rngs=rngs, dtype=dtype, zero=True)
        project = features_in != features
        self.skip = layers.linear(features_in, features, rngs=rngs, dtype=dtype) if project else None
        self.dropout = dropout

    def __call__(self, x, vector, keys):
        y = self.conv1(nnx.silu(self.norm1(x)))
        y = nnx.silu(layers.modulate(self.norm2(y), self.film(vector)))
        y = self.conv2(layers.dropout(y, keys, self.dropout))
        return y + (x if self.skip is None else self.skip(x))


class Mixer(nnx.Module):
    """Self-attention over pixels, or cross-attention from pixels to text tokens where context is given."""

    def __init__(self, features, context=0, *, head_width, rngs, dtype):
        self.norm = layers.GroupNorm(features, rngs=rngs)
        heads = max(features // head_width, 1)
        self.attention = layers.Attention(features, context, heads=heads, rngs=rngs, dtype=dtype)

    def __call__(self, x, context=None, mask=None):
        flat = self.norm(x).reshape(x.shape[0], -1, x.shape[-1])
        return x + self.attention(flat, context, mask).reshape(x.shape)


class Stage(nnx.Module):
    """One residual block, then self-attention and cross-attention where the level has them."""

    def __init__(self, features_in, features, embedding, *, attend, context, head_width, **kwargs):
        dropout = kwargs.pop('dropout')
        self.block = ResBlock(features_in, features, embedding, dropout=dropout, **kwargs)
        self.attend = Mixer(features, head_width=head_width, **kwargs) if attend else None
        self.cross = Mixer(features, context, head_width=head_width, **kwargs) if context else None

    def __call__(self, x, vector, tokens, mask, keys):
        x = self.block(x, vector, keys)
        if self.attend is not None:
            x = self.attend(x)
        return x if self.cross is None else self.cross(x, tokens, mask)


def halve(x):
    """Mean of 2 x 2 pixels: [B, H, W, C] -> [B, H / 2, W / 2, C]."""
    batch, height, width, features = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, features).mean((2, 4))


def double(x):
    """Every pixel four times: [B, H, W, C] -> [B, 2 H, 2 W, C]."""
    batch, height, width, features = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (batch, height, 2, width, 2, features))
    return x.reshape(batch, 2 * height, 2 * width, features)


class UNet(nnx.Module):
    """Network F(x, noise, cond, keys) of any image whose sides are divisible by 2**(levels - 1).

    width: features at full size; multipliers: of width, one a level, each level at half the size of the one before;
    depth: residual blocks a level on the way down (one more on the way up); attention, cross_attention: the levels
    (0 = full size) with self-attention, and with attention to text tokens; head_width: features a head;
    embedding: features of the condition vector, 0 for 4 x width; text_width, text_layers: of the text tower;
    dropout: in [0, 1); remat: what the backward pass recomputes in each stage: 'none', 'full' or a name from
    `jax.checkpoint_policies`; dtype: what it computes in, 'float32' or 'bfloat16', parameters are float32. channels,
    outputs (0: as many as channels), classes, vocabulary, length, states, augment follow from the data, from what is to
    be predicted and from the augmentation; picture: channels of a picture beside the noisy one, in cond['picture']:
    [B, H, W, picture], whose weights start at 0, as of a network that is not told.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        multipliers: tuple[int, ...] = (1, 2, 2),
        depth: int = 1,
        attention: tuple[int, ...] = (),
        cross_attention: tuple[int, ...] = (),
        head_width: int = 64,
        embedding: int = 0,
        text_width: int = 64,
        text_layers: int = 0,
        dropout: float = 0.0,
        remat: str = 'none',
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
        self.remat = remat
        self._check(multipliers, attention, cross_attention, vocabulary or states)
        self.stride = 2 ** (len(multipliers) - 1)
        embedding = embedding or 4 * width
        self.condition = condition.Condition(
            embedding,
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

        def stage(level, features_in, features, attend=False):
            return Stage(
                features_in,
                features,
                embedding,
                attend=attend or level in attention,
                context=text_width if level in cross_attention else 0,
                head_width=head_width,
                dropout=dropout,
                rngs=rngs,
                dtype=dtype,
            )

        self.first = layers.conv(channels, width, 3, rngs=rngs, dtype=dtype)
        # Channels of their own weights, so that nothing of it changes what is computed without them.
        wide = {'rngs': rngs, 'dtype': dtype, 'zero': True, 'bias': False}
        self.picture = layers.conv(picture, width, 3, **wide) if picture else None
        features, skips, down, up = width, [width], {}, {}
        for level, multiplier in enumerate(multipliers):
            for index in range(depth):
                down[f'{level}_{index}'] = stage(level, features, width * multiplier)
                features = width * multiplier
                skips.append(features)
        self.middle = stage(len(multipliers) - 1, features, features, attend=bool(attention))
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for index in range(depth + (level == 0)):
                up[f'{level}_{index}'] = stage(level, features + skips.pop(), width * multiplier)
                features = width * multiplier
        self.down, self.up = nnx.Dict(down), nnx.Dict(up)
        self.levels, self.depth = len(multipliers), depth
        self.norm = layers.GroupNorm(features, rngs=rngs)
        self.last = layers.conv(features, outputs or channels, 3, rngs=rngs, dtype=dtype, zero=True)

    @staticmethod
    def _check(multipliers, attention, cross_attention, text):
        outside = [level for level in (*attention, *cross_attention) if not 0 <= level < len(multipliers)]
        if outside:
            raise ValueError(f'attention at level {outside[0]}: the levels are 0 to {len(multipliers) - 1}')
        if cross_attention and not text:
            raise ValueError('cross_attention needs text: this data set has no captions, or text is off')

    def __call__(self, x, noise, cond, keys=None):
        """x: [B, H, W, channels] float32, noise: [B], keys: [B] or None -> [B, H, W, outputs] float32."""
        if x.shape[1] % self.stride or x.shape[2] % self.stride:
            raise ValueError(f'images of {x.shape[1]} x {x.shape[2]}: sides must divide by {self.stride}')
        vector, tokens, mask = self.condition(noise, cond)
        use = iter(range(len(self.down) + len(self.up) + 1))
        x = self.first(x) if self.picture is None else self.first(x) + self.picture(cond['picture'])
        skips = [x]
        for level in range(self.levels):
            x = halve(x) if level else x
            for index in range(self.depth):
                x = self._stage(self.down[f'{level}_{index}'], x, vector, tokens, mask, layers.fold(keys, next(use)))
                skips.append(x)
        x = self._stage(self.middle, x, vector, tokens, mask, layers.fold(keys, next(use)))
        for level in reversed(range(self.levels)):
            for index in range(self.depth + (level == 0)):
                x = jnp.concatenate([x, skips.pop()], -1)
                x = self._stage(self.up[f'{level}_{index}'], x, vector, tokens, mask, layers.fold(keys, next(use)))
            x = double(x) if level else x
        return self.last(nnx.silu(self.norm(x))).astype(jnp.float32)

    def _stage(self, stage, *inputs):
        graphdef, params = nnx.split(stage)
        return layers.recomputed(lambda params, *inputs: nnx.merge(graphdef, params)(*inputs), self.remat)(
            params, *inputs
        )
