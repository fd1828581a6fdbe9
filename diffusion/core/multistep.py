"""Linear multistep samplers: one evaluation a step, and the earlier ones remembered.

Each is a table of coefficients that follows from the noise levels alone, run by one loop:

    x_{i+1} = keep_i x_i + sum_k weight_ik y_{i-k} + std_i z_i

with y the denoiser's D or the slope eps = (x - D) / sigma, and for predictor-correctors a second table by which x_{i+1}
is computed once more as soon as y_{i+1} is known (without a second evaluation). Most weights are integrals of the
Lagrange polynomials through the remembered levels. The first steps use what there is to remember; the step to sigma = 0
returns D. N steps are N evaluations. The contract is that of `samplers`.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from diffusion.core import brownian, chain

__all__ = [
    'dpmpp_2m',
    'dpmpp_3m',
    'dpmpp_2m_sde',
    'dpmpp_3m_sde',
    'unipc',
    'deis',
    'ipndm',
    'lms',
    'sa_solver',
]

# A step in log sigma this many times the one before is extrapolated to by a line at most. Smooth grids have none but at
# their ends; even steps in t make one just before 0.
LEAP = 2.0
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)


class Table(NamedTuple):
    """keep, std: [M]; weight: [M, K], newest first, for the M = N - 1 steps between positive levels."""

    keep: jax.Array
    weight: jax.Array
    std: jax.Array


def dpmpp_2m(eta: float = 0.0):
    """DPM-Solver++(2M): Lu et al. 2211.01095, Algorithm 2; eta = 1 its SDE form, 0 the ODE.

    Order: 2. NFE: N.
    """

    def table(sigmas):
        h, decay = _decay(sigmas, eta)
        slope = 0.5 * decay * _ratio(h)  # of D over a step, times half the step: their 1 / (2 r)
        return Table(1 - decay, jnp.stack([decay + slope, -slope], 1), _std(sigmas, eta))

    return _multistep(table, eta=eta)


def dpmpp_3m(eta: float = 0.0):
    """DPM-Solver++(3M): the exponential Adams method of third order, D a parabola in log sigma: Lu et al. 2211.01095.

    eta = 1: its SDE form, 0 the ODE. The weights are integrated exactly, where the paper truncates them at the same
    order. Order: 3. NFE: N.
    """
    return _multistep(lambda sigmas: _exponential(sigmas, 3, eta), eta=eta)


def dpmpp_2m_sde(eta: float = 1.0):
    """DPM-Solver++(2M) of the reverse SDE; `dpmpp_2m` with eta = 1.

    Order: 2 (weak). NFE: N.
    """
    return dpmpp_2m(eta)


def dpmpp_3m_sde(eta: float = 1.0):
    """DPM-Solver++(3M) of the reverse SDE; `dpmpp_3m` with eta = 1.

    Order: 2 (weak). NFE: N.
    """
    return dpmpp_3m(eta)


def unipc(order: int = 2):
    """UniPC with data prediction: predictor of `order`, corrector one above: Zhao et al. 2302.04867, Algorithms 1, 2.

    order: 1 to 4; it converges with order + 1. Solved exactly, the paper's systems give the same weights for every
    B(h): the exponential Adams method. (Its code replaces the lowest weights by their limits for small h, 1/2.)
    Order: 3. NFE: N.
    """
    _check_order(order, 4)
    return _multistep(
        lambda sigmas: _exponential(sigmas, order, 0.0), lambda sigmas: _exponential(sigmas, order + 1, 0.0, ahead=True)
    )


def sa_solver(order: int = 3, correct: int = 3, tau: float = 1.0, tau_min: float = 0.05, tau_max: float = 1.0):
    """SA-Solver, the stochastic Adams predictor-corrector: Xue et al. 2309.05019, Algorithm 1.

    order: points of the predictor, 1 to 4; correct: points of the corrector, the new one among them, 0 for none;
    tau: strength of the noise for sigma in [tau_min, tau_max] (theirs for EDM's grid), outside of it the ODE is solved.
    Order: 2 (weak). NFE: N.
    """
    _check_order(order, 4)
    if not 0 <= correct <= 4:
        raise ValueError(f'correct={correct}: must be 0 to 4')
    if tau < 0:
        raise ValueError(f'tau={tau}: must be at least 0')

    def eta(sigmas):
        inside = (sigmas[:-2] >= tau_min) & (sigmas[:-2] <= tau_max)
        return jnp.where(inside, tau**2, 0.0)

    corrector = (lambda sigmas: _exponential(sigmas, correct, eta(sigmas), ahead=True)) if correct else None
    return _multistep(lambda sigmas: _exponential(sigmas, order, eta(sigmas)), corrector, eta=tau)


def deis(order: int = 3):
    """DEIS, Adams-Bashforth with eps a polynomial in log sigma: Zhang & Chen 2204.13902, Eq. 15. order: 1 to 4.

    Theirs is a polynomial in the t of a process (tAB) or in sigma (rhoAB, which is `lms`); log sigma is the choice that
    needs no process. Order: 3. NFE: N.
    """
    _check_order(order, 4)
    return _multistep(lambda sigmas: _slopes(sigmas, order, lambda log_sigma: log_sigma), slope=True)


def lms(order: int = 3):
    """Linear multistep, eps a polynomial in sigma: Adams-Bashforth on any grid. order: 1 to 4.

    The same as rhoAB-DEIS of Zhang & Chen 2204.13902. Order: 3. NFE: N.
    """
    _check_order(order, 4)
    return _multistep(lambda sigmas: _slopes(sigmas, order, jnp.exp), slope=True)


def ipndm(order: int = 4):
    """iPNDM, Adams-Bashforth weights of even steps on any grid: Zhang & Chen 2204.13902; Liu et al. 2202.09778.

    order: 1 to 4, reached where the levels are evenly spaced in sigma; on other smooth grids the convergence order is
    at most 2, because the weights are not fitted to the levels. Order: 2. NFE: N.
    """
    _check_order(order, 4)
    even = [[1], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]]

    def table(sigmas):
        steps = len(sigmas) - 2
        rows = [even[min(i, order - 1)] for i in range(steps)]
        weight = jnp.asarray([row + [0.0] * (order - len(row)) for row in rows], sigmas.dtype).reshape(steps, order)
        step = sigmas[1:-1] - sigmas[:-2]
        return Table(jnp.ones_like(step), step[:, None] * weight, jnp.zeros_like(step))

    return _multistep(table, slope=True)


def _multistep(predictor, corrector=None, slope=False, eta=0.0):
    """The sampler of a predictor's table and, where there is one, a corrector's. slope: y is eps, not D."""
    if eta < 0:
        raise ValueError(f'eta={eta}: must be at least 0')

    def sample(denoise, x, sigmas, keys):
        steps = len(sigmas) - 1
        ahead = predictor(sigmas)
        depth = ahead.weight.shape[1]
        fixes = corrector(sigmas) if corrector else None
        if fixes:
            depth = max(depth, fixes.weight.shape[1])

        def value(x, sigma):
            x0 = denoise(x, chain.level(sigma, x))
            return (x - x0) / sigma if slope else x0

        def advance(row, x, past, noise):
            keep, weight, std = row
            moved = keep * x + jnp.tensordot(weight, past[: len(weight)], 1)
            return moved + std * noise if eta else moved

        def body(carry, inputs):
            x, past, here = carry
            predict, fix, sigma_next = inputs
            there = brownian.place(keys, x.shape[1:], sigma_next) if eta else None
            noise = brownian.between(keys, here, there) if eta else None
            moved = advance(predict, x, past, noise)
            known = _remember(past, value(moved, sigma_next))
            if fixes:
                moved = advance(fix, x, known, noise)
            return (moved, known, there), None

        past = _remember(jnp.zeros((depth, *x.shape), x.dtype), value(x, sigmas[0]))
        here = brownian.place(keys, x.shape[1:], sigmas[0]) if eta else None
        (x, past, _), _ = lax.scan(body, (x, past, here), (ahead, fixes, sigmas[1:-1]))
        x0 = x - sigmas[-2] * past[0] if slope else past[0]
        return chain.sampled(x0, steps, steps)

    return sample


def _remember(past, newest):
    return jnp.concatenate([newest[None], past[:-1]])


def _decay(sigmas, eta):
    """h: [M], the steps in log sigma, and 1 - exp(-(1 + eta) h), the share of D in x after a step."""
    h = jnp.log(sigmas[:-2] / sigmas[1:-1])
    return h, -jnp.expm1(-(1 + eta) * h)


def _std(sigmas, eta):
    h = jnp.log(sigmas[:-2] / sigmas[1:-1])
    return sigmas[1:-1] * jnp.sqrt(-jnp.expm1(-2 * eta * h) + jnp.zeros_like(h))


def _ratio(h):
    """h_i / h_{i-1}: [M], 0 at the first step, where no earlier value is known."""
    return jnp.concatenate([jnp.zeros_like(h[:1]), h[1:] / h[:-1]])


def _exponential(sigmas, order, eta, ahead=False) -> Table:
    """Exponential Adams: integrals of (1 + eta) exp((1 + eta) (l - l')) l_k(l) over l = -log sigma.

    ahead: interpolate through the new level too (Moulton), which makes it a corrector.
    """
    h, decay = _decay(sigmas, eta)
    rate = (1 + eta + jnp.zeros_like(decay))[:, None]

    def fitted(order):
        return _lagrange(sigmas, order, lambda log_sigma: log_sigma, lambda h: rate * jnp.exp(-rate * h), ahead)

    weight = fitted(order)
    if order > 2 and not ahead:
        # A parabola through the noise of a stochastic path, followed far beyond its points, leads away from the law.
        line = jnp.pad(fitted(2), ((0, 0), (0, order - 2)))
        weight = jnp.where((_ratio(h) > LEAP)[:, None], line, weight)
    return Table(1 - decay, weight, _std(sigmas, eta))


def _slopes(sigmas, order, variable) -> Table:
    """Adams-Bashforth: integrals of l_k over sigma, with l_k polynomials in variable(log sigma)."""
    end = sigmas[1:-1, None]
    weight = _lagrange(sigmas, order, variable, lambda h: -end * jnp.exp(h), False)
    return Table(jnp.ones_like(weight[:, 0]), weight, jnp.zeros_like(weight[:, 0]))


def _lagrange(sigmas, order, variable, density, ahead):
    """[M, order]: integrals over each step of density(h) l_k(variable(log sigma)) dh, h = log(sigma / sigma').

    By Gauss-Legendre quadrature: unlike the closed forms it loses no digits to cancellation where steps are small.
    """
    logs = jnp.log(sigmas[:-1])
    start, end = logs[:-1, None], logs[1:, None]
    h = (start - end) / 2 * (1 + jnp.asarray(_NODES, sigmas.dtype))
    measure = (start - end) / 2 * jnp.asarray(_WEIGHTS, sigmas.dtype) * density(h)
    at = variable(end + h)
    newest = np.arange(len(logs) - 1) + ahead
    weight = jnp.zeros((len(newest), order), sigmas.dtype)
    for points in range(1, order + 1):  # the first steps have fewer levels to interpolate through
        steps = np.flatnonzero(np.minimum(newest + 1, order) == points)
        places = [variable(logs[newest[steps] - k])[:, None] for k in range(points)]
        for k, place in enumerate(places):
            factors = [(at[steps] - other) / (place - other) for j, other in enumerate(places) if j != k]
            weight = weight.at[steps, k].set(jnp.sum(measure[steps] * math.prod(factors), 1))
    return weight


def _check_order(order, most):
    if not 1 <= order <= most:
        raise ValueError(f'order={order}: must be 1 to {most}')
