"""One Brownian path an example, over log sigma: the noise of every stochastic step.

A step from sigma to sigma' takes the increment of its example's path between the two levels, whichever grid it is
on. So the noise belongs to (example, noise level), and a finer grid refines the same picture instead of drawing
another. In log sigma the reverse SDE of these coordinates, dx = 2 (x - D) dlog(sigma) + sqrt(2) sigma dw, has noise
of constant relative strength, which makes it the natural time of the path.
"""

import jax
import jax.numpy as jnp
from jax import lax

from diffusion.core import randomness

# sigma from 8e-7 to 1.2e6; a cell of the finest level is 4e-4 wide in log sigma.
LOW, HIGH, DEPTH = -14.0, 14.0, 16


def path(keys, shape, log_sigma):
    """W(log_sigma): [B, *shape] for keys: [B], with W(LOW) = 0: a virtual Brownian tree, Li et al. 2001.01328.

    log_sigma: scalar, clipped to [LOW, HIGH]. Bisects the range DEPTH times and draws each midpoint from the Brownian
    bridge between its ends, keyed by its place in the tree.
    """
    place = jnp.clip(log_sigma, LOW, HIGH)

    def visit(i, carry):
        left, right, at_left, at_right, _, node = carry
        point = jnp.where(i == 0, HIGH, jnp.where(i <= DEPTH, (left + right) / 2, place))
        share = (point - left) / (right - left)
        # The first point, the far end, lies in no bridge: it is the path's own increment.
        spread = jnp.sqrt(jnp.where(i == 0, right - left, jnp.maximum((right - point) * share, 0.0)))
        noise = randomness.normal(randomness.at_step(keys, node), shape)
        at_point = at_left + share * (at_right - at_left) + spread * noise
        upper = (place >= point) & (i > 0)
        left, at_left = jnp.where(upper, point, left), jnp.where(upper, at_point, at_left)
        right, at_right = jnp.where(upper, right, point), jnp.where(upper, at_right, at_point)
        return left, right, at_left, at_right, at_point, jnp.maximum(2 * node, 1) + upper

    # One loop for the far end, the bisections and the last bridge: one random draw to compile.
    start = jnp.zeros((len(keys), *shape))
    carry = (jnp.float32(LOW), jnp.float32(HIGH), start, start, start, jnp.int32(0))
    return lax.fori_loop(0, DEPTH + 2, visit, carry)[4]


def normal(keys, shape, sigma, sigma_next):
    """Standard normal noise [B, *shape]: the increment of each path from sigma to sigma_next, at unit variance."""
    first, last = (jnp.clip(jnp.log(s), LOW, HIGH) for s in (sigma, sigma_next))
    width = jnp.maximum(jnp.abs(first - last), 1e-6)
    at_first, at_last = jax.vmap(lambda place: path(keys, shape, place))(jnp.stack([first, last]))
    return (at_last - at_first) / jnp.sqrt(width)
