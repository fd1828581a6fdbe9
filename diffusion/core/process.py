"""Forward processes: how an image is noised until nothing of it is left.

A process is x_t = alpha(t) x_0 + sigma(t) eps with t in [0, 1] and the data at t = 0. Divided by alpha it reads
x_t / alpha = x_0 + nsr(t) eps, with nsr = sigma / alpha the noise-to-signal ratio. Every other module is written in
these coordinates: there `sigma` is nsr(t) and `x` is x_t / alpha(t), so that no sampler and no loss knows which
process it serves.

The SDE view (Song et al., 2011.13456) is dx = drift(t) x dt + sqrt(diffusion2(t)) dw.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

__all__ = ['VP', 'VE', 'Cosine', 'Flow']


class Process:
    """What follows from `alpha`, `nsr` and `nsr_inverse` alone; t: any shape, in [t_min, t_max].

    `nsr` is the primitive rather than sigma because sqrt(1 - alpha**2) loses all digits in float32 near t = 0.
    """

    def sigma(self, t):
        """Standard deviation of the noise in x_t."""
        return self.alpha(t) * self.nsr(t)

    def nsr_range(self) -> tuple[float, float]:
        """Noise-to-signal ratios at (t_min, t_max): the range that grids and densities span."""
        low, high = self.nsr(jnp.asarray([self.t_min, self.t_max], jnp.float32))
        return low, high

    def drift(self, t):
        """Factor f(t) of the SDE's drift f(t) x: d log alpha / dt."""
        return _derivative(lambda s: jnp.log(self.alpha(s)), t)

    def diffusion2(self, t):
        """Squared diffusion g(t)**2 = alpha**2 d(nsr**2)/dt = d(sigma**2)/dt - 2 f sigma**2."""
        return self.alpha(t) ** 2 * _derivative(lambda s: self.nsr(s) ** 2, t)


def _derivative(function, t):
    t = jnp.asarray(t, jnp.float32)
    return jax.jvp(function, (t,), (jnp.ones_like(t),))[1]


@dataclasses.dataclass(frozen=True)
class VP(Process):
    """Variance preserving, linear beta: Song et al. 2011.13456, Eq. 33."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3
    t_max: float = 1.0

    def _integral(self, t):
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2

    def alpha(self, t):
        return jnp.exp(-0.5 * self._integral(t))

    def nsr(self, t):
        return jnp.sqrt(jnp.expm1(self._integral(t)))

    def nsr_inverse(self, nsr):
        # The root of the quadratic in the form that does not cancel near t = 0.
        integral = jnp.log1p(nsr**2)
        slope = self.beta_max - self.beta_min
        return 2 * integral / (self.beta_min + jnp.sqrt(self.beta_min**2 + 2 * slope * integral))


@dataclasses.dataclass(frozen=True)
class VE(Process):
    """Variance exploding, geometric in t: Song et al. 2011.13456. With these defaults, the range of EDM (2206.00364).

    sigma(0) is sigma_min, not 0: the last step of a sampler goes from sigma_min to 0.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    t_min: float = 0.0
    t_max: float = 1.0

    def alpha(self, t):
        return jnp.ones_like(t, jnp.float32)

    def nsr(self, t):
        return self.sigma_min * jnp.exp(t * math.log(self.sigma_max / self.sigma_min))

    def nsr_inverse(self, nsr):
        return jnp.log(nsr / self.sigma_min) / math.log(self.sigma_max / self.sigma_min)


@dataclasses.dataclass(frozen=True)
class Cosine(Process):
    """alpha(t)**2 = f(t) / f(0), f(t) = cos(pi/2 (t + s) / (1 + s))**2: Nichol & Dhariwal 2102.09672, Eq. 17.

    alpha(1) = 0, hence t_max < 1 where that paper clips beta instead.
    """

    offset: float = 0.008
    t_min: float = 1e-3
    t_max: float = 0.999

    @property
    def _start(self):
        return 0.5 * math.pi * self.offset / (1 + self.offset)

    def _angle(self, t):
        return 0.5 * math.pi * (t + self.offset) / (1 + self.offset)

    def alpha(self, t):
        return jnp.cos(self._angle(t)) / math.cos(self._start)

    def nsr(self, t):
        # cos(a)**2 - cos(b)**2 = sin(b - a) sin(b + a): no cancellation near t = 0.
        angle = self._angle(t)
        swept = 0.5 * math.pi * t / (1 + self.offset)
        return jnp.sqrt(jnp.sin(swept) * jnp.sin(angle + self._start)) / jnp.cos(angle)

    def nsr_inverse(self, nsr):
        angle = jnp.arctan2(jnp.sqrt(nsr**2 + math.sin(self._start) ** 2), math.cos(self._start))
        return (angle - self._start) * (1 + self.offset) / (0.5 * math.pi)


@dataclasses.dataclass(frozen=True)
class Flow(Process):
    """Rectified flow, the straight path x_t = (1 - t) x_0 + t eps: Liu et al. 2209.03003, Lipman et al. 2210.02747.

    Those papers put the data at t = 1; here, as for every process, it lies at t = 0. alpha(1) = 0, hence t_max < 1.
    """

    t_min: float = 1e-3
    t_max: float = 0.999

    def alpha(self, t):
        return 1 - t

    def nsr(self, t):
        return t / (1 - t)

    def nsr_inverse(self, nsr):
        return nsr / (1 + nsr)
