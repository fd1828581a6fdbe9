"""Adaptive density: noise levels are drawn the more often the larger the loss there, and count the less for it.

The unit interval of a density's quantile function is cut into even bins. Bin k is drawn with a probability p_k in
proportion to the root mean square of its loss (Nichol & Dhariwal 2102.09672, Eq. 18), and its examples weigh
1 / (bins p_k), so that the expected loss is the one without. What is remembered is a dict of [bins] arrays, the same on
every device because it is made from the whole global batch.
"""

import jax
import jax.numpy as jnp

DECAY = 0.99  # of what is remembered, an example of the bin
SEEN = 10  # examples every bin must have had before any is preferred
UNIFORM = 0.01  # share of draws that stay uniform, so that no weight exceeds 100


def initial(bins: int) -> dict:
    """Nothing remembered: sums of squared losses, and of the weights they were summed with."""
    return {'square': jnp.zeros(bins), 'weight': jnp.zeros(bins)}


def probabilities(memory: dict):
    """p: [bins], positive, with sum 1."""
    size = memory['weight'].size
    root = jnp.sqrt(memory['square'] / jnp.maximum(memory['weight'], 1e-6))
    ready = jnp.all(memory['weight'] >= 1 - DECAY**SEEN) & (jnp.sum(root) > 0)
    share = jnp.where(ready, root / jnp.where(ready, jnp.sum(root), 1.0), 1 / size)
    return (1 - UNIFORM) * share + UNIFORM / size


def draw(memory: dict, v):
    """v: [B] in [0, 1) -> u: [B] in [0, 1), rising with v, so what was stratified stays so; and the weights: [B]."""
    chance = probabilities(memory)
    size = chance.size
    ends = jnp.cumsum(chance)
    index = jnp.minimum(jnp.searchsorted(ends, v, side='right'), size - 1)
    inside = jnp.clip((v - (ends - chance)[index]) / chance[index], 0.0, 1.0)
    return jnp.clip((index + inside) / size, 0.0, 1 - 2.0**-24), 1 / (size * chance[index])


def seen(bins: int, u, loss) -> dict:
    """What losses: [b] at u: [b] add to what is known of the bins: sums, so that those of parts of a batch add up."""
    inside = jax.nn.one_hot((u * bins).astype(jnp.int32), bins)
    return {'count': jnp.sum(inside, 0), 'square': jnp.sum(inside * loss[:, None] ** 2, 0)}


def remember(memory: dict, seen: dict) -> dict:
    """What is remembered after a global batch of which `seen` is the sum."""
    count = seen['count']
    keep = DECAY**count
    mean = seen['square'] / jnp.maximum(count, 1.0)
    return {
        'square': keep * memory['square'] + (1 - keep) * mean,
        'weight': keep * memory['weight'] + (1 - keep),
    }
