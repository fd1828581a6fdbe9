"""A residual multilayer perceptron, for data without an image's neighbourhoods: points in the plane."""

import jax.numpy as jnp
from flax import nnx

from diffusion.nets import condition, layers

__all__ = ['PointNet']


class PointNet(nnx.Module):
    """Network F(x, noise, cond, keys) that maps each pixel of x by itself; a point in the plane is one pixel.

    width: features; depth: residual blocks; dtype as for `UNet`.
    """

    def __init__(
        self,
        *,
        width: int = 128,
        depth: int = 3,
        dtype: str = 'float32',
        channels,
        outputs=0,
        classes=0,
        vocabulary=0,
        length=0,
        states=0,
        rngs,
    ):
        layers.check('none', dtype)
        self.condition = condition.Condition(
            width, classes=classes, vocabulary=vocabulary, length=length, states=states, rngs=rngs, dtype=dtype
        )
        self.first = layers.linear(channels, width, rngs=rngs, dtype=dtype)
        self.films = nnx.Dict({str(i): layers.linear(width, 2 * width, rngs=rngs, dtype=dtype) for i in range(depth)})
        self.blocks = nnx.Dict({str(i): layers.MLP(width, width, width, rngs=rngs, dtype=dtype) for i in range(depth)})
        self.last = layers.linear(width, outputs or channels, rngs=rngs, dtype=dtype, zero=True)

    def __call__(self, x, noise, cond, keys=None):
        """x: [B, H, W, channels] float32, noise: [B] -> [B, H, W, outputs] float32. Has no dropout: keys go unused."""
        vector, _, _ = self.condition(noise, cond)
        x = self.first(x)
        for film, block in zip(self.films.values(), self.blocks.values()):
            x = x + block(layers.modulate(x, film(vector)))
        return self.last(nnx.silu(x)).astype(jnp.float32)
