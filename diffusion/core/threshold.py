"""Thresholding: predicted images kept inside the range of images, against the saturation of strong guidance.

Threshold = Denoise -> Denoise, for pictures in [-1, 1]: Saharia et al. 2205.11487, Sec. 2.3.
"""

from collections.abc import Callable

import jax.numpy as jnp

__all__ = ['none', 'static', 'dynamic']

Threshold = Callable


def none() -> Threshold:
    """The prediction as it is."""
    return lambda denoise: denoise


def static() -> Threshold:
    """The prediction clipped to [-1, 1]."""
    return lambda denoise: lambda x, sigma: jnp.clip(denoise(x, sigma), -1, 1)


def dynamic(percentile: float = 99.5) -> Threshold:
    """The prediction clipped to [-s, s] and divided by s, with s the percentile of its |pixels|, but at least 1.

    Each image has its own s. percentile: in (0, 100]; with 100 nothing is clipped, only divided.
    """
    if not 0 < percentile <= 100:
        raise ValueError(f'percentile={percentile}: must be in (0, 100]')

    def threshold(denoise):
        def limited(x, sigma):
            found = denoise(x, sigma)
            axes = tuple(range(1, found.ndim))
            bound = jnp.maximum(jnp.quantile(jnp.abs(found), percentile / 100, axis=axes, keepdims=True), 1.0)
            return jnp.clip(found, -bound, bound) / bound

        return limited

    return threshold
