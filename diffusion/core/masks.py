"""Random masks of what is hidden of a picture: [B, H, W] of 0 and 1, 1 = hidden, each example's by its own key.

Mask = (keys: [B], height, width) -> [B, H, W] float32. Sizes are shares of the sides, so that a mask means the same at
every resolution. Every mask hides at least one pixel.
"""

import jax
import jax.numpy as jnp

from diffusion.core import randomness

BOXES = 3  # at most, of a mask
SIDES = (0.15, 0.6)  # of a box
TURNS = 6  # of a stroke
LENGTHS = (0.1, 0.4)  # of its parts
RADII = (0.03, 0.1)  # of its width
SHARES = (0.25, 0.75)  # of a picture that is hidden from one side on


def boxes(keys, height: int, width: int):
    """One to BOXES rectangles anywhere, with sides of SIDES."""
    count = 1 + jnp.floor(BOXES * _uniform(keys, 'count', ()))
    sides = SIDES[0] + (SIDES[1] - SIDES[0]) * _uniform(keys, 'sides', (BOXES, 2))
    sides = jnp.maximum(jnp.round(sides * jnp.array([height, width])), 1.0)
    begin = jnp.floor(_uniform(keys, 'begin', (BOXES, 2)) * (jnp.array([height, width]) - sides + 1))
    rows, columns = (jnp.arange(side, dtype=jnp.float32) for side in (height, width))

    def inside(places, axis):
        first = begin[..., axis, None]
        return (places >= first) & (places < first + sides[..., axis, None])

    there = (jnp.arange(BOXES) < count[:, None])[..., None, None]
    covered = inside(rows, 0)[..., :, None] & inside(columns, 1)[..., None, :] & there
    return jnp.any(covered, 1).astype(jnp.float32)


def strokes(keys, height: int, width: int):
    """A line of TURNS straight parts, as of a brush, that begins anywhere and stays within the picture."""
    mean = (height * width) ** 0.5
    size = jnp.array([height, width], jnp.float32)
    lengths = mean * (LENGTHS[0] + (LENGTHS[1] - LENGTHS[0]) * _uniform(keys, 'length', (TURNS,)))
    angles = 2 * jnp.pi * _uniform(keys, 'angle', (TURNS,))
    steps = lengths[..., None] * jnp.stack([jnp.sin(angles), jnp.cos(angles)], -1)
    begin = _uniform(keys, 'begin', (1, 2)) * (size - 1)
    corners = jnp.concatenate([begin, begin + jnp.cumsum(steps, 1)], 1)
    # Reflected at the borders, as a triangle wave of the place.
    period = 2 * jnp.maximum(size - 1, 1)
    corners = size - 1 - jnp.abs(corners % period - (size - 1))
    radius = jnp.maximum(mean * (RADII[0] + (RADII[1] - RADII[0]) * _uniform(keys, 'radius', ())), 0.75)
    grid = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing='ij'), -1).astype(jnp.float32)

    def one(corners, radius):
        first, way = corners[:-1], corners[1:] - corners[:-1]
        offset = grid[:, :, None] - first
        along = jnp.sum(offset * way, -1) / jnp.maximum(jnp.sum(way**2, -1), 1e-6)
        apart = offset - jnp.clip(along, 0, 1)[..., None] * way
        return jnp.any(jnp.sum(apart**2, -1) <= radius**2, -1)

    return jax.vmap(one)(corners, radius).astype(jnp.float32)


def half(keys, height: int, width: int):
    """All beyond a straight line from one side to the opposite one: what outpainting asks for."""
    side = jnp.floor(4 * _uniform(keys, 'side', ()))[:, None, None]
    share = SHARES[0] + (SHARES[1] - SHARES[0]) * _uniform(keys, 'share', ())[:, None, None]

    def hidden(places, count):
        cut = jnp.clip(jnp.round(share * count), 1, count)
        return jnp.where(side < 2, places < cut, places >= count - cut)  # from the first side on, or from the last

    down = hidden(jnp.arange(height)[:, None], height)
    across = hidden(jnp.arange(width)[None, :], width)
    mask = jnp.where(side % 2 < 1, down, across)
    return jnp.broadcast_to(mask, (len(share), height, width)).astype(jnp.float32)


def full(keys, height: int, width: int):
    """All of it."""
    return jnp.ones((len(keys), height, width))


def _uniform(keys, name, shape):
    """Numbers [B, *shape] in [0, 1) of one named use of keys: [B]."""
    own = randomness.substream(keys, name)
    return jax.vmap(lambda key: jax.random.uniform(key, shape))(own)
