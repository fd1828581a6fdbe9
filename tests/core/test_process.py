import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from diffusion.core import discrete, process

PROCESSES = [
    *(getattr(process, name)() for name in process.__all__),
    *(getattr(discrete, name)() for name in discrete.__all__),
    process.VP(zero_terminal=True),
    discrete.DDPM(zero_terminal=True),
]
IDS = [*process.__all__, *discrete.__all__, 'VP zero', 'DDPM zero']
CONTINUOUS = [forward for forward in PROCESSES if not isinstance(forward, discrete.Chain)]


def vp(t, forward):
    integral = forward.beta_min * t + (forward.beta_max - forward.beta_min) * t**2 / 2
    alpha = np.exp(-integral / 2)
    if not forward.zero_terminal:
        return alpha, np.sqrt(-np.expm1(-integral))
    last, terminal = np.exp(-(forward.beta_min + forward.beta_max) / 4), 1 / np.sqrt(1 + 1e8)
    gone = (1 - terminal) * -np.expm1(-integral / 2) / (1 - last)
    return 1 - gone, np.sqrt(gone * (2 - gone))


def sub_vp(t, forward):
    integral = forward.beta_min * t + (forward.beta_max - forward.beta_min) * t**2 / 2
    return np.exp(-integral / 2), -np.expm1(-integral)


def cosine(t, forward):
    s = forward.offset
    level = np.cos((t + s) / (1 + s) * np.pi / 2) ** 2 / np.cos(s / (1 + s) * np.pi / 2) ** 2
    return np.sqrt(level), np.sqrt(1 - level)


def linear_log_snr(t, forward):
    gamma = forward.gamma_min + (forward.gamma_max - forward.gamma_min) * t
    return np.sqrt(1 / (1 + np.exp(gamma))), np.sqrt(1 / (1 + np.exp(-gamma)))


# alpha and sigma at t as each paper writes them, in float64.
EXACT = {
    'VP': vp,
    'SubVP': sub_vp,
    'VE': lambda t, forward: (np.ones_like(t), forward.sigma_min * (forward.sigma_max / forward.sigma_min) ** t),
    'Cosine': cosine,
    'LinearLogSNR': linear_log_snr,
    'Flow': lambda t, forward: (1 - t, t),
    'GVP': lambda t, forward: (np.cos(np.pi * t / 2), np.sin(np.pi * t / 2)),
}


def exact(forward, t):
    """alpha and sigma of a process without shift at t: float64."""
    return EXACT[type(forward).__name__](np.asarray(t, np.float64), forward)


def inside(forward, count=50):
    return jnp.linspace(forward.t_min, forward.t_max, count)[1:-1]


def widened(forward):
    """The process as near to both ends of [0, 1] as its kind goes."""
    ends = {'t_min': 1e-6} if forward.t_min else {}
    return dataclasses.replace(forward, **ends, **({'t_max': 0.9999} if forward.t_max < 1 else {}))


@pytest.mark.parametrize('forward', PROCESSES, ids=IDS)
def test_inverse_of_the_noise_to_signal_ratio(forward):
    for shifted in (forward, dataclasses.replace(forward, shift=3.0)):
        t = inside(shifted)
        np.testing.assert_allclose(shifted.nsr_inverse(shifted.nsr(t)), t, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize('forward', PROCESSES, ids=IDS)
def test_noise_grows_from_the_data(forward):
    nsr = np.asarray(forward.nsr(jnp.linspace(forward.t_min, forward.t_max, 100)))
    assert np.all(np.diff(nsr) > 0)
    assert nsr[0] < 0.02
    assert nsr[-1] > 10


@pytest.mark.parametrize('name', EXACT)
def test_every_process_says_what_its_paper_says(name):
    assert set(EXACT) == set(process.__all__)
    forward = getattr(process, name)()
    t = np.linspace(0.01, 0.99, 30)
    alpha, sigma = exact(forward, t)
    np.testing.assert_allclose(forward.alpha(t), alpha, rtol=1e-5)
    np.testing.assert_allclose(forward.sigma(t), sigma, rtol=1e-5)


@pytest.mark.parametrize('forward', CONTINUOUS, ids=lambda forward: type(forward).__name__)
def test_float32_is_enough_at_both_ends(forward):
    """The float64 closed form at the very same t, to within 5e-6, from t = 1e-6 or sigma_min to alpha = 1e-4."""
    forward = widened(forward)
    near = np.geomspace(1e-6, 0.3, 60)
    t = np.unique(np.clip(np.concatenate([near, 1 - near]), forward.t_min, forward.t_max).astype(np.float32))
    alpha, sigma = exact(forward, t)
    for found, wanted in ((forward.nsr(t), sigma / alpha), (forward.alpha(t), alpha), (forward.sigma(t), sigma)):
        np.testing.assert_allclose(found, wanted, rtol=5e-6)


@pytest.mark.parametrize('forward', CONTINUOUS, ids=lambda forward: type(forward).__name__)
@pytest.mark.parametrize('sigma', [1e-3, 1.0, 1e3])
def test_the_time_of_a_noise_level(forward, sigma):
    """Against a root of the float64 closed form; shifted, so that every process has the level."""
    forward = widened(forward)
    low, high = forward.nsr_range()
    shift = float(np.clip(1.0, 1.1 * sigma / high, sigma / low / 1.1))
    forward = dataclasses.replace(forward, shift=shift)

    def excess(t):
        alpha, noise = exact(forward, t)
        return np.log(shift * noise / alpha / sigma)

    t = optimize.brentq(excess, 1e-9, 1.0 - 1e-9, xtol=1e-15)
    np.testing.assert_allclose(forward.nsr_inverse(jnp.float32(sigma)), t, rtol=5e-6, atol=2e-7)


PATHS = {
    'VP': lambda alpha, sigma: alpha**2 + sigma**2,
    'SubVP': lambda alpha, sigma: alpha**2 + sigma,
    'VE': lambda alpha, sigma: alpha,
    'Flow': lambda alpha, sigma: alpha + sigma,
}


@pytest.mark.parametrize('forward', PROCESSES, ids=IDS)
def test_a_shift_multiplies_the_noise_and_keeps_the_path(forward):
    t = inside(forward)
    shifted = dataclasses.replace(forward, shift=4.0)
    np.testing.assert_allclose(shifted.nsr(t), 4 * forward.nsr(t), rtol=1e-6)
    path = PATHS.get(type(forward).__name__, PATHS['VP'])
    np.testing.assert_allclose(path(shifted.alpha(t), shifted.sigma(t)), 1, rtol=1e-5)


def test_the_shift_of_the_straight_path_is_sd3s():
    """Esser et al. 2403.03206, Eq. 23: t' = s t / (1 + (s - 1) t)."""
    t = np.linspace(0.05, 0.95, 10)
    moved = 3 * t / (1 + 2 * t)
    np.testing.assert_allclose(process.Flow(shift=3.0).alpha(t), 1 - moved, rtol=1e-5)
    np.testing.assert_allclose(process.Flow(shift=3.0).sigma(t), moved, rtol=1e-5)


def test_the_shift_of_the_cosine_is_simple_diffusions():
    """Hoogeboom et al. 2301.11093: log SNR = -2 log tan(pi t / 2) + 2 log(64 / side)."""
    t = np.linspace(0.05, 0.95, 10)
    log_snr = -2 * np.log(np.tan(np.pi * t / 2)) + 2 * np.log(64 / 256)
    np.testing.assert_allclose(-2 * np.log(process.GVP(shift=256 / 64).nsr(t)), log_snr, rtol=1e-5, atol=1e-5)


def test_zero_terminal_snr_ends_in_noise_and_begins_as_before():
    plain, zero = process.VP(), process.VP(zero_terminal=True)
    np.testing.assert_allclose(zero.nsr(jnp.float32(1.0)), 1e4, rtol=1e-5)
    t = jnp.asarray([1e-4, 1e-3, 1e-2])
    np.testing.assert_allclose(zero.nsr(t), plain.nsr(t), rtol=0.01)


def test_a_shift_must_be_positive():
    with pytest.raises(ValueError, match='shift=0'):
        process.Flow(shift=0)


def test_vp_sde():
    """Song et al. 2011.13456, Eq. 11: drift -beta/2, diffusion**2 beta."""
    forward, t = process.VP(0.1, 20.0), np.linspace(0.01, 0.99, 30)
    beta = 0.1 + t * 19.9
    np.testing.assert_allclose(forward.drift(t), -beta / 2, rtol=1e-4)
    np.testing.assert_allclose(forward.diffusion2(t), beta, rtol=1e-4)


def test_sub_vp_sde():
    """Song et al. 2011.13456, Eq. 12: the drift of VP, diffusion**2 beta (1 - exp(-2 integral of beta))."""
    forward, t = process.SubVP(0.1, 20.0), np.linspace(0.01, 0.99, 30)
    beta, integral = 0.1 + t * 19.9, 0.1 * t + 19.9 * t**2 / 2
    np.testing.assert_allclose(forward.drift(t), -beta / 2, rtol=1e-4)
    np.testing.assert_allclose(forward.diffusion2(t), beta * -np.expm1(-2 * integral), rtol=1e-4)


def test_ve_sde():
    """Song et al. 2011.13456, Eq. 9: diffusion**2 = d sigma**2 / dt, no drift."""
    forward, t = process.VE(0.01, 50.0), np.linspace(0.01, 0.99, 30)
    sigma2 = 0.01**2 * (50 / 0.01) ** (2 * t)
    np.testing.assert_allclose(forward.drift(t), 0, atol=1e-7)
    np.testing.assert_allclose(forward.diffusion2(t), sigma2 * 2 * np.log(50 / 0.01), rtol=1e-3)


def test_flow_sde():
    """x_t = (1 - t) x_0 + t eps: drift -1 / (1 - t), diffusion**2 = 2 t / (1 - t)."""
    forward, t = process.Flow(), np.linspace(0.05, 0.95, 30)
    np.testing.assert_allclose(forward.drift(t), -1 / (1 - t), rtol=1e-4)
    np.testing.assert_allclose(forward.diffusion2(t), 2 * t / (1 - t), rtol=1e-4)


def test_gvp_sde():
    """alpha = cos, sigma = sin of pi t / 2: drift -pi/2 tan, diffusion**2 = pi tan."""
    forward, t = process.GVP(), np.linspace(0.05, 0.95, 30)
    np.testing.assert_allclose(forward.drift(t), -np.pi / 2 * np.tan(np.pi * t / 2), rtol=1e-4)
    np.testing.assert_allclose(forward.diffusion2(t), np.pi * np.tan(np.pi * t / 2), rtol=1e-4)
