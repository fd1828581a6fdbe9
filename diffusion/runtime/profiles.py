"""Averages with a power-function profile, and those of other lengths made of stored ones: Karras et al. 2312.02696.

The average of length sigma_rel after t steps weighs the parameters of step tau in proportion to tau**gamma. Its
length is the standard deviation of that profile relative to t, so it grows with the training.
"""

import jax.numpy as jnp
import numpy as np

# Of the uniform profile, gamma = 0: nothing that grows with tau is longer.
LONGEST = 1 / (2 * np.sqrt(3))
SHORTEST = 1e-3


def name(length: float) -> str:
    """'power_0.05' for 0.05."""
    return f'power_{length:g}'


def length_of(named: str) -> float:
    """0.05 of 'power_0.05'."""
    return float(named.removeprefix('power_'))


def exponent(length: float) -> float:
    """gamma of a length: the largest root of sigma_rel**2 = (gamma + 1) / ((gamma + 2)**2 (gamma + 3)), App. C.

    Raises ValueError for a length outside [0.001, 0.2887), where gamma would be negative.
    """
    if not SHORTEST <= length < LONGEST:
        raise ValueError(f'length {length:g}: relative to the training so far, in [{SHORTEST:g}, {LONGEST:.4f})')
    inverse = float(length) ** -2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def rate(length: float, step):
    """Share of the new parameters at the update that ends `step` (from 0): 1 - (1 - 1/t)**(gamma + 1), t = step + 1.

    With it the parameters of step tau weigh (tau**(gamma+1) - (tau-1)**(gamma+1)) / t**(gamma+1) exactly.
    """
    return -jnp.expm1((exponent(length) + 1) * jnp.log1p(-1 / (step + 1.0)))


def combination(stored: list[tuple[int, float]], step: int, length: float) -> np.ndarray:
    """Weights of stored averages whose sum is nearest to the average of `length` at `step`: float64 [len(stored)].

    stored: (step, length) of each, none later than `step`. Nearest: in the L2 norm of the profiles (App. C).
    """
    times = np.array([when for when, _ in stored], np.float64)
    gammas = np.array([exponent(kept) for _, kept in stored])
    gram = _inner(times[:, None], gammas[:, None], times, gammas)
    wanted = _inner(times, gammas, float(step), exponent(length))
    # Profiles of neighbouring snapshots are nearly parallel: what rounding cannot tell apart gets the least weights.
    scale = 1 / np.sqrt(np.diag(gram))
    solved = np.linalg.lstsq(gram * scale[:, None] * scale, wanted * scale, rcond=1e-13)[0]
    return solved * scale


def mismatch(stored: list[tuple[int, float]], weights: np.ndarray, step: int, length: float) -> float:
    """|sum of the weighted profiles - wanted profile| / |wanted profile| in L2: 0 where the average is exact."""
    times = np.array([when for when, _ in stored], np.float64)
    gammas = np.array([exponent(kept) for _, kept in stored])
    gram = _inner(times[:, None], gammas[:, None], times, gammas)
    cross = _inner(times, gammas, float(step), exponent(length))
    own = _inner(float(step), exponent(length), float(step), exponent(length))
    return float(np.sqrt(max(weights @ gram @ weights - 2 * weights @ cross + own, 0.0) / own))


def _inner(t_a, gamma_a, t_b, gamma_b):
    """Integral of the product of two profiles p(tau) = (gamma + 1) tau**gamma / t**(gamma + 1), tau in [0, t]."""
    shorter, longer = np.minimum(t_a, t_b), np.maximum(t_a, t_b)
    beyond = np.where(t_a < t_b, gamma_b, gamma_a)  # the exponent of the profile that goes on past the other's end
    return (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1) * (shorter / longer) ** beyond / longer
