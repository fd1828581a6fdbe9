"""Weightings: how much the error at each noise level counts.

Weighting = (Level) -> weight: [B], the factor of |D(x; sigma) - x_0|**2 at noise levels drawn from the density of the
training. Papers that weigh the squared error of eps have SNR = 1 / sigma**2 times their weight here: the error of eps
is that of x_0 divided by sigma.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

__all__ = ['uniform', 'edm', 'min_snr', 'soft_min_snr', 'sigmoid', 'p2', 'likelihood']


class Level(NamedTuple):
    """Noise levels: [B] each. sigma: noise-to-signal ratios; out: the precond's scale of F; spread: d log(sigma) / du
    of the density's quantile function, the inverse of the density that log(sigma) is drawn with."""

    sigma: jax.Array
    out: jax.Array
    spread: jax.Array


Weighting = Callable[[Level], jax.Array]


def uniform() -> Weighting:
    """1 / out**2: the plain squared error of the network's own prediction F, whatever it predicts."""
    return lambda at: 1 / at.out**2


def edm(sigma_data: float = 0.5) -> Weighting:
    """(sigma**2 + sigma_data**2) / (sigma sigma_data)**2: Karras et al. 2206.00364, Table 1."""
    return lambda at: (at.sigma**2 + sigma_data**2) / (at.sigma * sigma_data) ** 2


def min_snr(gamma: float = 5.0) -> Weighting:
    """min(SNR, gamma): Hang et al. 2303.09556, in its form for x_0."""
    return lambda at: jnp.minimum(1 / at.sigma**2, gamma)


def soft_min_snr(gamma: float = 4.0) -> Weighting:
    """1 / (sigma**2 + 1 / gamma), half the harmonic mean of SNR and gamma: Crowson et al. 2401.11605."""
    return lambda at: 1 / (at.sigma**2 + 1 / gamma)


def p2(k: float = 1.0, gamma: float = 1.0) -> Weighting:
    """SNR / (k + SNR)**gamma, on the error of eps 1 / (k + SNR)**gamma: Choi et al. 2204.00227."""
    return lambda at: at.sigma ** (2 * gamma - 2) / (k * at.sigma**2 + 1) ** gamma


def likelihood() -> Weighting:
    """spread / sigma**2: with it the loss is the diffusion term of the negative ELBO, whatever the density.

    E_u[spread / sigma**2 |D - x_0|**2] = integral of |D - x_0|**2 / sigma**3 d sigma, over the range of the density, in
    nats (per dimension, the loss being a mean): Kingma et al. 2107.00630, Eq. 17 with d SNR = -2 d sigma / sigma**3.
    It is also the weight g(t)**2 on the score at a uniform t, halved: Song et al. 2101.09258.
    """
    return lambda at: at.spread / at.sigma**2


def sigmoid(bias: float = -1.0) -> Weighting:
    """`likelihood` times sigmoid(bias - log SNR): Hoogeboom et al. 2410.19324, Kingma & Gao 2303.00848.

    Less weight where there is little noise; the larger the picture, the smaller the bias. It does not depend on the
    density, which only decides how many examples each noise level gets.
    """
    return lambda at: jax.nn.sigmoid(bias + 2 * jnp.log(at.sigma)) * at.spread / at.sigma**2
