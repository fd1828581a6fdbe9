"""Guidance: from a conditional denoiser to a denoiser.

A conditional denoiser is (x, sigma, cond) -> E[x_0 | x, cond], with cond a dict of arrays [B, ...]. A guidance is
(denoise, cond, null) -> Denoise.
"""

import jax
import jax.numpy as jnp

__all__ = ['none', 'classifier_free']


def none():
    """The conditional model as it is."""
    return lambda denoise, cond, null: lambda x, sigma: denoise(x, sigma, cond)


def classifier_free(scale: float = 1.0):
    """D_null + scale (D_cond - D_null), in one call of twice the batch: Ho & Salimans 2207.12598.

    Their weight w is scale - 1: here scale 1 is exactly the conditional model and scale 0 the unconditional one.
    scale may be traced.
    """

    def guide(denoise, cond, null):
        both = jax.tree.map(_interleave, cond, null)

        def guided(x, sigma):
            pairs = denoise(_interleave(x, x), _interleave(sigma, sigma), both)
            conditional, unconditional = jnp.moveaxis(pairs.reshape(-1, 2, *x.shape[1:]), 1, 0)
            mixed = unconditional + scale * (conditional - unconditional)
            return jnp.where(scale == 1, conditional, mixed)

        return guided

    return guide


def _interleave(a, b):
    # Pairs side by side, not halves end to end: a batch that is sharded over devices stays where it is.
    return jnp.stack([a, b], 1).reshape(2 * a.shape[0], *a.shape[1:])
