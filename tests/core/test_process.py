import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.core import process

PROCESSES = [getattr(process, name)() for name in process.__all__]
IDS = process.__all__


def inside(forward, count=50):
    return jnp.linspace(forward.t_min, forward.t_max, count)[1:-1]


@pytest.mark.parametrize('forward', PROCESSES, ids=IDS)
def test_inverse_of_the_noise_to_signal_ratio(forward):
    t = inside(forward)
    np.testing.assert_allclose(forward.nsr_inverse(forward.nsr(t)), t, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize('forward', PROCESSES, ids=IDS)
def test_noise_grows_from_the_data(forward):
    nsr = np.asarray(forward.nsr(jnp.linspace(forward.t_min, forward.t_max, 100)))
    assert np.all(np.diff(nsr) > 0)
    assert nsr[0] < 0.02
    assert nsr[-1] > 50


@pytest.mark.parametrize('forward', [process.VP(), process.Cosine()], ids=['VP', 'Cosine'])
def test_variance_is_preserved(forward):
    t = inside(forward)
    np.testing.assert_allclose(forward.alpha(t) ** 2 + forward.sigma(t) ** 2, 1, rtol=1e-5)


def test_vp_marginal_and_sde():
    """Song et al. 2011.13456, Eqs. 11 and 33: drift -beta/2, diffusion**2 beta."""
    forward, t = process.VP(0.1, 20.0), np.linspace(0.01, 0.99, 30)
    beta = 0.1 + t * 19.9
    integral = 0.1 * t + 19.9 * t**2 / 2
    np.testing.assert_allclose(forward.alpha(t), np.exp(-integral / 2), rtol=1e-4)
    np.testing.assert_allclose(forward.drift(t), -beta / 2, rtol=1e-4)
    np.testing.assert_allclose(forward.diffusion2(t), beta, rtol=1e-4)


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


def test_cosine_is_nichols_schedule():
    """Nichol & Dhariwal 2102.09672, Eq. 17, computed in float64."""
    t = np.linspace(0.001, 0.999, 30)
    level = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(process.Cosine().alpha(t), np.sqrt(level), rtol=1e-3)
    np.testing.assert_allclose(process.Cosine().nsr(t), np.sqrt((1 - level) / level), rtol=1e-3)
