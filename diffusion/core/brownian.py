"""One Brownian path an example, over log sigma: the noise of every stochastic step.

A step from sigma to sigma' takes the increment of its example's path between the two levels, whichever grid it is
on. So the noise belongs to (example, noise level), and a finer grid refines the same picture instead of drawing
another. In log sigma the reverse SDE of these coordinates, dx = 2 (x - D) dlog(sigma) + sqrt(2) sigma dw, has noise
of constant relative strength, which makes it the natural time of the path.

The range is cut into cells, each with an increment of its own; inside a cell the path is a virtual Brownian tree (Li
et al. 2001.01328). A sampler walks down the path (`chain.fold`): where it stands is computed once, DEPTH + 2 normal
draws a value, and each cell it leaves behind is one more.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from diffusion.core import randomness

# sigma from 8e-7 to 1.2e6; a leaf of the trees is 4e-4 wide in log sigma.
LOW, HIGH, CELLS, DEPTH = -14.0, 14.0, 256, 8
WIDTH = (HIGH - LOW) / CELLS


class Place(NamedTuple):
    """A level on every example's path: log_sigma, cell: scalars; inside: [B, *shape], the path's increment since the
    low end of the cell."""

    log_sigma: jax.Array
    cell: jax.Array
    inside: jax.Array


def place(keys, shape, sigma) -> Place:
    """Where the paths of keys: [B] are at sigma, a scalar, clipped to the range.

    Bisects the cell DEPTH times and draws each midpoint from the Brownian bridge between its ends, keyed by its place
    in the tree.
    """
    at = jnp.clip(jnp.log(sigma).astype(jnp.float32), LOW, HIGH)
    cell = jnp.clip(jnp.floor((at - LOW) / WIDTH), 0, CELLS - 1).astype(jnp.int32)
    low = LOW + cell * WIDTH

    def visit(i, carry):
        left, right, at_left, at_right, _, node = carry
        point = jnp.where(i == 0, low + WIDTH, jnp.where(i <= DEPTH, (left + right) / 2, at))
        share = (point - left) / (right - left)
        # The first point, the far end, lies in no bridge: it is the cell's own increment.
        spread = jnp.sqrt(jnp.where(i == 0, right - left, jnp.maximum((right - point) * share, 0.0)))
        name = jnp.where(i == 0, cell, CELLS + (cell << (DEPTH + 1)) + node)
        noise = randomness.normal(randomness.at_step(keys, name), shape)
        at_point = at_left + share * (at_right - at_left) + spread * noise
        upper = (at >= point) & (i > 0)
        left, at_left = jnp.where(upper, point, left), jnp.where(upper, at_point, at_left)
        right, at_right = jnp.where(upper, right, point), jnp.where(upper, at_right, at_point)
        return left, right, at_left, at_right, at_point, jnp.maximum(2 * node, 1) + upper

    # One loop for the far end, the bisections and the last bridge: one random draw to compile.
    start = jnp.zeros((len(keys), *shape))
    carry = (low, low + WIDTH, start, start, start, jnp.int32(0))
    return Place(at, cell, lax.fori_loop(0, DEPTH + 2, visit, carry)[4])


def between(keys, here: Place, there: Place):
    """Standard normal noise [B, *shape]: the increment of each path from here to there, at unit variance."""
    shape = here.inside.shape[1:]

    def cross(cell, total):
        return total + WIDTH**0.5 * randomness.normal(randomness.at_step(keys, cell), shape)

    lower, upper = jnp.minimum(here.cell, there.cell), jnp.maximum(here.cell, there.cell)
    crossed = lax.fori_loop(lower, upper, cross, jnp.zeros_like(here.inside))
    change = there.inside - here.inside + jnp.where(there.cell > here.cell, crossed, -crossed)
    return change / jnp.sqrt(jnp.maximum(jnp.abs(there.log_sigma - here.log_sigma), 1e-6))
