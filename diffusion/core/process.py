"""Forward processes: how an image is noised until nothing of it is left.

A process is x_t = alpha(t) x_0 + sigma(t) eps with t in [0, 1] and the data at t = 0. Divided by alpha it reads
x_t / alpha = x_0 + nsr(t) eps, with nsr = sigma / alpha the noise-to-signal ratio. Every other module is written in
these coordinates: there `sigma` is nsr(t) and `x` is x_t / alpha(t), so that no sampler and no loss knows which
process it serves.

A process says two things: along which path it goes (alpha as a function of nsr) and how fast (nsr as a function of
t). `sde` has the SDE view (Song et al., 2011.13456), dx = drift(t) x dt + sqrt(diffusion2(t)) dw.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

__all__ = ['VP', 'SubVP', 'VE', 'Cosine', 'LinearLogSNR', 'Flow', 'GVP']

# Where "zero terminal SNR" ends. alpha = 0 itself has no x / alpha; at this ratio x_0 is 1e-4 of the noise, and x_0 as
# a difference of numbers of this size still has three digits in float32.
TERMINAL = 1e4


@dataclasses.dataclass(frozen=True)
class Process:
    """What follows from `path`, `schedule` and `schedule_inverse`; t: any shape, in [t_min, t_max].

    path: nsr -> alpha; schedule: t -> nsr before the shift. nsr is the primitive rather than sigma because
    sqrt(1 - alpha**2) loses all digits in float32 near t = 0.

    shift multiplies nsr at every t and leaves the path: more noise for larger pictures, which average it away. For
    side s in place of s_0, shift = s / s_0: Hoogeboom et al. 2301.11093, Sec. 3.1; Esser et al. 2403.03206, Eq. 23.
    """

    shift: float = dataclasses.field(default=1.0, kw_only=True)

    def __post_init__(self):
        if self.shift <= 0:
            raise ValueError(f'shift={self.shift}: must be positive')

    def nsr(self, t):
        """Noise-to-signal ratio sigma / alpha."""
        return self.shift * self.schedule(t)

    def nsr_inverse(self, nsr):
        """The t at which nsr is reached."""
        return self.schedule_inverse(nsr / self.shift)

    def alpha(self, t):
        """What is left of the image in x_t."""
        return self.path(self.nsr(t))

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


class VariancePreserving(Process):
    """The path alpha**2 + sigma**2 = 1."""

    def path(self, nsr):
        return 1 / jnp.sqrt(1 + nsr**2)


@dataclasses.dataclass(frozen=True)
class VP(VariancePreserving):
    """Variance preserving, linear beta: Song et al. 2011.13456, Eq. 33.

    zero_terminal: alpha is stretched until alpha(1) = 1e-4 rather than e.g. 7e-3 (Lin et al. 2305.08891, Algorithm 1,
    where it is 0). Then predict v, x0 or flow: at the noisiest level eps says nothing of the image.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3
    t_max: float = 1.0
    zero_terminal: bool = False

    def _integral(self, t):
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2

    def _integral_inverse(self, integral):
        # The root of the quadratic in the form that does not cancel near t = 0.
        slope = self.beta_max - self.beta_min
        return 2 * integral / (self.beta_min + jnp.sqrt(self.beta_min**2 + 2 * slope * integral))

    @property
    def _stretch(self):
        """(1 - alpha') / (1 - alpha), with alpha' the stretched alpha, and alpha at t = 1."""
        last = math.exp(-0.5 * self._integral(1.0))
        return (1 - 1 / math.sqrt(1 + TERMINAL**2)) / (1 - last), last

    def schedule(self, t):
        if not self.zero_terminal:
            return jnp.sqrt(jnp.expm1(self._integral(t)))
        stretch, last = self._stretch
        left = (1 - t) * (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * (1 + t))  # the integral from t to 1
        gone = -stretch * jnp.expm1(-0.5 * self._integral(t))  # 1 - alpha', without cancellation near t = 0
        alpha = 1 / math.sqrt(1 + TERMINAL**2) + stretch * last * jnp.expm1(0.5 * left)  # and near t = 1
        return jnp.sqrt(gone * (2 - gone)) / alpha

    def schedule_inverse(self, nsr):
        if not self.zero_terminal:
            return self._integral_inverse(jnp.log1p(nsr**2))
        root = jnp.sqrt(1 + nsr**2)
        gone = nsr**2 / (root * (root + 1))
        return self._integral_inverse(-2 * jnp.log1p(-gone / self._stretch[0]))


@dataclasses.dataclass(frozen=True)
class SubVP(Process):
    """Sub-VP, linear beta: VP's alpha with sigma = 1 - alpha**2: Song et al. 2011.13456, Eqs. 12 and 29.

    nsr = 1 / alpha - alpha = 2 sinh(integral of beta / 2), and the path is sigma = 1 - alpha**2.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3
    t_max: float = 1.0

    def path(self, nsr):
        return 1 / (jnp.sqrt(1 + nsr**2 / 4) + nsr / 2)

    def schedule(self, t):
        return 2 * jnp.sinh(0.5 * (self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2))

    def schedule_inverse(self, nsr):
        integral = 2 * jnp.arcsinh(nsr / 2)
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

    def path(self, nsr):
        return jnp.ones_like(nsr, jnp.float32)

    def schedule(self, t):
        return self.sigma_min * jnp.exp(t * math.log(self.sigma_max / self.sigma_min))

    def schedule_inverse(self, nsr):
        return jnp.log(nsr / self.sigma_min) / math.log(self.sigma_max / self.sigma_min)


@dataclasses.dataclass(frozen=True)
class Cosine(VariancePreserving):
    """alpha(t)**2 = f(t) / f(0), f(t) = cos(pi/2 (t + s) / (1 + s))**2: Nichol & Dhariwal 2102.09672, Eq. 17.

    alpha(1) = 0, hence t_max < 1 where that paper clips beta instead: the terminal SNR is as near to zero as 1 - t_max.
    """

    offset: float = 0.008
    t_min: float = 1e-3
    t_max: float = 0.999

    @property
    def _start(self):
        return 0.5 * math.pi * self.offset / (1 + self.offset)

    def schedule(self, t):
        # cos(a)**2 - cos(b)**2 = sin(b - a) sin(b + a): no cancellation near t = 0; and cos(b) = sin(pi/2 - b): none
        # near t = 1.
        swept = 0.5 * math.pi * t / (1 + self.offset)
        left = 0.5 * math.pi * (1 - t) / (1 + self.offset)
        return jnp.sqrt(jnp.sin(swept) * jnp.sin(swept + 2 * self._start)) / jnp.sin(left)

    def schedule_inverse(self, nsr):
        # tan(b - a) from tan(b) - tan(a), which is written so that it does not cancel near t = 0.
        sine, cosine = math.sin(self._start), math.cos(self._start)
        root = jnp.sqrt(nsr**2 + sine**2)
        swept = jnp.arctan2(nsr**2 * cosine / (root + sine), cosine**2 + sine * root)
        return swept * (1 + self.offset) / (0.5 * math.pi)


@dataclasses.dataclass(frozen=True)
class LinearLogSNR(VariancePreserving):
    """-log SNR = gamma linear in t from gamma_min to gamma_max, nsr = exp(gamma / 2): Kingma et al. 2107.00630.

    With that paper's range, which it learns and this does not. nsr(0) is exp(gamma_min / 2), not 0.
    """

    gamma_min: float = -13.3
    gamma_max: float = 5.0
    t_min: float = 0.0
    t_max: float = 1.0

    def schedule(self, t):
        return jnp.exp(0.5 * (self.gamma_min + (self.gamma_max - self.gamma_min) * t))

    def schedule_inverse(self, nsr):
        return (2 * jnp.log(nsr) - self.gamma_min) / (self.gamma_max - self.gamma_min)


@dataclasses.dataclass(frozen=True)
class Flow(Process):
    """Rectified flow, the straight path x_t = (1 - t) x_0 + t eps: Liu et al. 2209.03003, Lipman et al. 2210.02747.

    Those papers put the data at t = 1; here, as for every process, it lies at t = 0. alpha(1) = 0, hence t_max < 1.
    """

    t_min: float = 1e-3
    t_max: float = 0.999

    def path(self, nsr):
        return 1 / (1 + nsr)

    def schedule(self, t):
        return t / (1 - t)

    def schedule_inverse(self, nsr):
        return nsr / (1 + nsr)


@dataclasses.dataclass(frozen=True)
class GVP(VariancePreserving):
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2), `Cosine` without its offset: Albergo et al. 2303.08797; "GVP" of
    Ma et al. 2401.08740. alpha(1) = 0, hence t_max < 1.
    """

    t_min: float = 1e-3
    t_max: float = 0.999

    def schedule(self, t):
        return jnp.sin(0.5 * math.pi * t) / jnp.sin(0.5 * math.pi * (1 - t))

    def schedule_inverse(self, nsr):
        return jnp.arctan(nsr) / (0.5 * math.pi)
