"""Adaptive Runge-Kutta methods for the probability-flow ODE; every example takes steps of its own.

The ODE is dx/dsigma = (x - D(x, sigma)) / sigma (Karras et al. 2206.00364, Eq. 1 with s = 1). It is solved for
y = x / sqrt(1 + sigma**2) in lambda = log sigma, where it reads

    dy/dlambda = (y / n - D(n y, sigma)) / n,    n = sqrt(1 + sigma**2).

The right-hand side vanishes at both ends, as sigma**2 towards the data and as 1 / sigma towards the noise, and y has
the size of a unit normal throughout: the steps grow where nothing happens (to LONGEST at most), one absolute
tolerance serves every noise level, and nothing is divided by a small sigma. The direction is the caller's: decreasing
sigma samples, increasing sigma encodes.

Steps are chosen by the standard controller: Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I,
Sec. II.4.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from diffusion.core import chain, precond

__all__ = ['dopri5', 'bosh3']

# A step of the controller: SAFETY times the one that would just be accepted, within these factors of the last.
SAFETY, SHRINK, GROW = 0.9, 0.2, 5.0
# In log sigma, the longest: in the flat ends of the way an error estimate says nothing of what a long step leaps over.
LONGEST = 2.0
FIRST = 0.1  # first step, as a share of the way
STUCK = 1e-6  # a share of the way below which a step is given up


@dataclasses.dataclass(frozen=True)
class Tableau:
    """An explicit method whose last stage is the first of the next step (FSAL), with an embedded error estimate.

    order: of the solution; stages: rows after the first, the last of them the solution's weights; nodes: one a row;
    error: weights of the difference to the embedded solution.
    """

    order: int
    stages: tuple[tuple[float, ...], ...]
    nodes: tuple[float, ...]
    error: tuple[float, ...]


TABLEAUS = {
    # Dormand & Prince, A family of embedded Runge-Kutta formulae, J. Comp. Appl. Math. 6 (1980).
    'dopri5': Tableau(
        5,
        (
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
            (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
        ),
        (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1),
        (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
    ),
    # Bogacki & Shampine, A 3(2) pair of Runge-Kutta formulas, Appl. Math. Lett. 2 (1989).
    'bosh3': Tableau(
        3,
        ((1 / 2,), (0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
        (1 / 2, 3 / 4, 1),
        (-5 / 72, 1 / 12, 1 / 9, -1 / 8),
    ),
}


@dataclasses.dataclass(frozen=True)
class Method:
    """name: of a tableau; a step is accepted where its estimated error is at most atol + rtol |state|, in the root
    mean square over an example's values; max_steps: accepted and rejected ones an example may take."""

    name: str = 'dopri5'
    rtol: float = 1e-5
    atol: float = 1e-5
    max_steps: int = 1000

    def __post_init__(self):
        if not (self.rtol > 0 and self.atol > 0):
            raise ValueError(f'rtol={self.rtol:g}, atol={self.atol:g}: tolerances are above 0')
        if self.max_steps < 1:
            raise ValueError(f'max_steps={self.max_steps}: must be at least 1')

    @property
    def tableau(self) -> Tableau:
        return TABLEAUS[self.name]


class Solution(NamedTuple):
    """Where the examples have come to, and what each has cost.

    state: as given, at time: [B]; nfe: int32 [B], evaluations of the field that the example needed: 1 and, for each
    step tried, one a stage (6 for dopri5, 3 for bosh3). The field was called on the whole batch max(nfe) times, since
    an example that is done waits for the others. accepted, rejected: int32 [B], steps; finished: bool [B], False
    where an example gave up before the end, out of steps or with a step too small to count (a field that is not
    finite ends so). Its state is the last accepted one.
    """

    state: Any
    time: jax.Array
    nfe: jax.Array
    accepted: jax.Array
    rejected: jax.Array
    finished: jax.Array


def dopri5(rtol: float = 1e-4, atol: float = 1e-4, max_steps: int = 1000):
    """Dormand-Prince 5(4) from sigmas[0] to the last positive level, then one denoising step to 0, as `samplers.euler`.

    The levels between go unused. 2 + 6 evaluations a step tried. rtol, atol, max_steps: see `Method`; an example that
    runs out of steps is denoised from where it stands and marked in `chain.Sampled.finished`.
    Order: adaptive. NFE: adaptive.
    """
    return _sampler(Method('dopri5', rtol, atol, max_steps))


def bosh3(rtol: float = 1e-3, atol: float = 1e-3, max_steps: int = 1000):
    """Bogacki-Shampine 3(2), cheaper than `dopri5` at loose tolerances. 2 + 3 evaluations a step tried.

    Order: adaptive. NFE: adaptive.
    """
    return _sampler(Method('bosh3', rtol, atol, max_steps))


def _sampler(method):
    def sample(denoise, x, sigmas, keys):
        found = flow(denoise, x, sigmas[0], sigmas[-2], method)
        x = denoise(found.state, jnp.exp(found.time))
        return chain.Sampled(x, found.nfe + 1, found.accepted, found.rejected, found.finished)

    return sample


def flow(denoise, x, start, end, method: Method) -> Solution:
    """The probability-flow ODE from level start to level end, in either direction. x: [B, ...] at start.

    start, end: positive, scalar or [B]. The solution's state is x at `end` and its time log sigma.
    """
    start, end = (jnp.log(jnp.broadcast_to(sigma, x.shape[:1]).astype(x.dtype)) for sigma in (start, end))

    def field(y, time):
        sigma = jnp.exp(time)
        norm = precond.per_example(size(sigma), y)
        return (y / norm - denoise(norm * y, sigma)) / norm

    found = solve(field, x / precond.per_example(size(jnp.exp(start)), x), start, end, method, LONGEST)
    return found._replace(state=found.state * precond.per_example(size(jnp.exp(found.time)), x))


def size(sigma):
    """n = sqrt(1 + sigma**2), the size of x at level sigma for data of unit size."""
    return jnp.sqrt(1 + sigma**2)


def solve(field: Callable, state, start, end, method: Method, longest: float) -> Solution:
    """Integrates d state / d time = field(state, time) from start: [B] to end: [B], in one `lax.while_loop`.

    state: a tree of arrays [B, ...], field's value alike; time: [B]; longest: the largest step. The error of a step is
    the largest among the leaves, so that a log-density beside an image counts as much as the image.
    """
    way = jnp.abs(end - start)
    none = jnp.zeros(start.shape, jnp.int32)
    tableau = method.tableau

    def active(carry):
        _, _, time, step, accepted, rejected = carry
        return (time != end) & (accepted + rejected < method.max_steps) & (step > STUCK * way)

    def advance(carry):
        state, slope, time, step, accepted, rejected = carry
        moving = active(carry)
        left = jnp.abs(end - time)
        # Stretched a little rather than followed by a last step of next to nothing.
        last = step >= 0.99 * left
        step = jnp.where(last, left, step)
        signed = jnp.where(moving, step * jnp.sign(end - time), 0)
        ahead, slope_ahead, error = tried(tableau, field, state, slope, time, signed)
        excess = _excess(error, state, ahead, method)
        taken = moving & (excess <= 1)  # an excess that is not a number is none
        factor = jnp.clip(SAFETY * excess ** (-1 / tableau.order), SHRINK, jnp.where(taken, GROW, 1.0))
        return (
            _where(taken, ahead, state),
            _where(taken, slope_ahead, slope),
            jnp.where(taken, jnp.where(last, end, time + signed), time),
            jnp.minimum(step * jnp.where(jnp.isnan(factor), SHRINK, factor), longest),
            accepted + taken,
            rejected + (moving & ~taken),
        )

    begin = (state, field(state, start), start, jnp.minimum(FIRST * way, longest), none, none)
    state, _, time, _, accepted, rejected = lax.while_loop(lambda carry: jnp.any(active(carry)), advance, begin)
    nfe = 1 + len(tableau.stages) * (accepted + rejected)
    return Solution(state, time, nfe, accepted, rejected, time == end)


def tried(tableau: Tableau, field, state, slope, time, step):
    """One step of a method: the new state, the slope there, and the estimated error. slope: field(state, time)."""
    count = len(tableau.stages)
    rows = jnp.asarray([row + (0.0,) * (count + 1 - len(row)) for row in tableau.stages], step.dtype)
    # A scan over the stages and not a loop in Python: the network is compiled once, not once a stage.
    slopes = jax.tree.map(lambda k: jnp.zeros((count + 1, *k.shape), k.dtype).at[0].set(k), slope)

    def stage(carry, row):
        slopes, _ = carry
        index, weights, node = row
        moved = jax.tree.map(lambda a, change: a + change, state, _weighted(weights, slopes, step))
        here = field(moved, time + node * step)
        return (jax.tree.map(lambda every, one: every.at[index].set(one), slopes, here), moved), None

    places = (jnp.arange(1, count + 1), rows, jnp.asarray(tableau.nodes, step.dtype))
    (slopes, ahead), _ = lax.scan(stage, (slopes, state), places)
    error = _weighted(jnp.asarray(tableau.error, step.dtype), slopes, step)
    return ahead, jax.tree.map(lambda every: every[-1], slopes), error


def _weighted(weights, slopes, step):
    def one(every):
        # Full precision where matrix products have less by default (TPU).
        mean = jnp.tensordot(weights, every, 1, precision=lax.Precision.HIGHEST)
        return precond.per_example(step, mean) * mean

    return jax.tree.map(one, slopes)


def _excess(error, before, after, method):
    """The error over the tolerance: [B]."""

    def one(error, before, after):
        allowed = method.atol + method.rtol * jnp.maximum(jnp.abs(before), jnp.abs(after))
        return jnp.sqrt(jnp.mean(jnp.square(error / allowed), tuple(range(1, error.ndim))))

    leaves = jax.tree.leaves(jax.tree.map(one, error, before, after))
    return jnp.max(jnp.stack(leaves), 0)


def _where(chosen, new, old):
    return jax.tree.map(lambda a, b: jnp.where(precond.per_example(chosen, a), a, b), new, old)
