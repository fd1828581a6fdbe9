"""A small network that tells the classes of a set apart; what it makes of a picture before that serves as features."""

import jax.numpy as jnp
from flax import nnx

from diffusion.nets import layers

FEATURES = 64


class Classifier(nnx.Module):
    """Images [B, H, W, C] in [-1, 1] -> features [B, 64] and logits [B, classes]. Halves a picture until no side is
    above 4 pixels."""

    def __init__(self, size, channels, classes, *, rngs):
        """size: the longer side in pixels."""
        self.stem = layers.conv(channels, 32, 3, rngs=rngs)
        self.blocks = nnx.List([])
        width = 32
        while size > 4 or not self.blocks:
            self.blocks.append(Block(width, FEATURES, rngs=rngs))
            size, width = -(-size // 2), FEATURES
        self.norm = layers.GroupNorm(FEATURES, rngs=rngs)
        self.head = layers.linear(FEATURES, classes, rngs=rngs)

    def __call__(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        features = nnx.silu(self.norm(x)).mean((1, 2))
        return features, self.head(features)


class Block(nnx.Module):
    """Normalisation, 3 x 3 convolution and means of 2 x 2 pixels."""

    def __init__(self, channels, features, *, rngs):
        self.norm = layers.GroupNorm(channels, rngs=rngs)
        self.conv = layers.conv(channels, features, 3, rngs=rngs)

    def __call__(self, x):
        x = self.conv(nnx.silu(self.norm(x)))
        window = tuple(min(2, side) for side in x.shape[1:3])
        return nnx.avg_pool(jnp.asarray(x), window, window, 'SAME', count_include_pad=False)
