import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from diffusion.core import density, process

U = jnp.asarray((np.arange(4000) + 0.5) / 4000)


def test_log_normal():
    log_sigma = np.log(density.log_normal(-0.8, 1.2)(process.VE(), U))
    assert stats.kstest(log_sigma, stats.norm(-0.8, 1.2).cdf).statistic < 0.01


@pytest.mark.parametrize('name', process.__all__)
def test_uniform_in_t(name):
    forward = getattr(process, name)()
    t = forward.nsr_inverse(density.uniform_t()(forward, U))
    span = stats.uniform(forward.t_min, forward.t_max - forward.t_min)
    assert stats.kstest(np.asarray(t), span.cdf).statistic < 0.01


def test_logit_normal():
    t = np.asarray(process.Flow().nsr_inverse(density.logit_normal(0.3, 0.9)(process.Flow(), U)))
    assert stats.kstest(np.log(t / (1 - t)), stats.norm(0.3, 0.9).cdf).statistic < 0.01


@pytest.mark.parametrize('name', density.__all__)
@pytest.mark.parametrize('forward', [getattr(process, name)() for name in process.__all__], ids=process.__all__)
def test_every_density_is_a_finite_rising_quantile_function(name, forward):
    edges = jnp.asarray([0.0, 1e-7, 0.1, 0.5, 0.9, 1 - 1e-7])
    sigma = np.asarray(getattr(density, name)()(forward, edges))
    assert np.all(np.isfinite(sigma)) and np.all(sigma > 0) and np.all(np.diff(sigma) >= 0)


def test_stratified_puts_one_number_in_each_stratum():
    u = np.asarray(density.stratified(jax.random.key(3), 64))
    assert sorted(np.floor(u * 64 - u.min() * 64 + 1e-3)) == list(range(64))
    assert np.all((u >= 0) & (u < 1))


def test_mode_is_eq_20_of_sd3():
    """Esser et al. 2403.03206: f(u) = 1 - u - s (cos(pi u / 2)**2 - 1 + u), which falls with u."""
    u = np.linspace(0.01, 0.99, 99)
    for scale in (-1.0, 0.0, 1.29, 1.75):
        t = np.asarray(process.Flow().nsr_inverse(density.mode(scale)(process.Flow(), jnp.asarray(u))))
        wanted = np.clip(1 - u - scale * (np.cos(np.pi * u / 2) ** 2 - 1 + u), 0.001, 0.999)
        np.testing.assert_allclose(t[::-1], wanted, atol=1e-5)
    for scale in (-1.1, 1.8):
        with pytest.raises(ValueError, match=f'scale={scale}'):
            density.mode(scale)


def test_cosmap_is_the_density_below_eq_21_of_sd3():
    """Esser et al. 2403.03206: 2 / (pi - 2 pi t + 2 pi t**2), here integrated."""
    t = np.asarray(process.Flow().nsr_inverse(density.cosmap()(process.Flow(), U)))
    grid = np.linspace(0, 1, 10_001)
    law = integrate.cumulative_simpson(2 / (np.pi - 2 * np.pi * grid + 2 * np.pi * grid**2), x=grid, initial=0)
    assert stats.kstest(t, lambda t: np.interp(t, grid, law)).statistic < 0.01


def test_cosmap_gives_every_process_the_levels_of_the_cosine():
    sigma = density.cosmap()(process.VE(), jnp.asarray([0.25, 0.5, 0.75]))
    np.testing.assert_allclose(sigma, process.GVP().nsr(jnp.asarray([0.25, 0.5, 0.75])), rtol=1e-5)
