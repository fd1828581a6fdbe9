"""Discrete chains as processes: DDPM's T levels of noise, and the continuous process that goes through them.

The grid `grids.discrete` visits exactly the levels.
"""

import dataclasses
import functools
import math

import jax.numpy as jnp
import numpy as np

from diffusion.core import process

__all__ = ['DDPM', 'CosineDDPM']


class Chain(process.VariancePreserving):
    """A chain of `levels` steps of variance beta_i: level i lies at t = i / levels, between them log nsr is linear."""

    @property
    def t_min(self):
        return 1 / self.levels

    @property
    def t_max(self):
        return 1.0

    @functools.cached_property
    def _table(self):
        """t and log nsr of each level, from float64."""
        kept = self._kept()
        return np.arange(1, self.levels + 1) / self.levels, 0.5 * (np.log1p(-kept) - np.log(kept))

    def schedule(self, t):
        return jnp.exp(jnp.interp(t, *(jnp.asarray(column, jnp.float32) for column in self._table)))

    def schedule_inverse(self, nsr):
        times, ratios = (jnp.asarray(column, jnp.float32) for column in self._table)
        return jnp.interp(jnp.log(nsr), ratios, times)


@dataclasses.dataclass(frozen=True)
class DDPM(Chain):
    """A discrete chain with beta_i**(1 / power) linear in i: Ho et al. 2006.11239, Sec. 4 (power 1); latent
    diffusion's "scaled linear" is power 2 (Rombach et al. 2112.10752).

    levels: T; zero_terminal: as for `VP`, Lin et al. 2305.08891, Algorithm 1, but to alpha = 1e-4.
    """

    levels: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    power: float = 1.0
    zero_terminal: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.levels < 2 or not 0 < self.beta_start <= self.beta_end < 1 or self.power <= 0:
            raise ValueError('a DDPM wants levels >= 2, 0 < beta_start <= beta_end < 1 and power > 0')

    def _kept(self):
        ends = self.beta_start ** (1 / self.power), self.beta_end ** (1 / self.power)
        kept = np.cumprod(1 - np.linspace(*ends, self.levels) ** self.power)
        if not self.zero_terminal:
            return kept
        alpha, last = np.sqrt(kept), 1 / math.sqrt(1 + process.TERMINAL**2)
        return (last + (alpha - alpha[-1]) * (alpha[0] - last) / (alpha[0] - alpha[-1])) ** 2


@dataclasses.dataclass(frozen=True)
class CosineDDPM(Chain):
    """The discrete chain of `Cosine`, with beta clipped at beta_cap: Nichol & Dhariwal 2102.09672, Eq. 17.

    What others call "squaredcos". The terminal SNR is near zero as it is: nsr(1) is about 2e4 with 1000 levels.
    """

    levels: int = 1000
    offset: float = 0.008
    beta_cap: float = 0.999

    def __post_init__(self):
        super().__post_init__()
        if self.levels < 2 or self.offset <= 0 or not 0 < self.beta_cap < 1:
            raise ValueError('a CosineDDPM wants levels >= 2, offset > 0 and 0 < beta_cap < 1')

    def _kept(self):
        level = np.cos(0.5 * np.pi * (np.arange(self.levels + 1) / self.levels + self.offset) / (1 + self.offset)) ** 2
        return np.cumprod(1 - np.minimum(1 - level[1:] / level[:-1], self.beta_cap))
