"""How pictures come to the size that a feature network sees: the choice changes its numbers."""

import jax
import jax.numpy as jnp
import numpy as np


def smooth(images: jax.Array, size: int) -> jax.Array:
    """Bicubic with antialiasing (Keys 1981, a = -0.5), as Pillow resizes floats, cut to [0, 255]: [B, H, W, C] of that
    range -> [B, size, size, C]. It is clean-FID's (Parmar et al. 2104.11222)."""
    shape = (images.shape[0], size, size, images.shape[3])
    return jnp.clip(jax.image.resize(images.astype(jnp.float32), shape, 'bicubic', antialias=True), 0, 255)


def tensorflow(images: jax.Array, size: int) -> jax.Array:
    """Bilinear as TensorFlow 1 resized, [B, H, W, C] -> [B, size, size, C]: pixel i of the result lies at i H / size,
    the corners are not aligned, and nothing is smoothed where it shrinks."""
    x = images.astype(jnp.float32)
    for axis in (2, 1):
        place = np.arange(size, dtype=np.float32) * np.float32(x.shape[axis] / size)
        low = place.astype(np.int32)
        high = np.minimum(low + 1, x.shape[axis] - 1)
        share = (place - low).reshape(-1, *(1,) * (3 - axis))
        below, above = jnp.take(x, low, axis), jnp.take(x, high, axis)
        x = below + (above - below) * share
    return x
