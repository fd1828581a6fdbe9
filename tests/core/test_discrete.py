import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.core import discrete, grids


def ratios(betas):
    """Noise-to-signal ratios of a chain by its float64 cumulative product, Ho et al. 2006.11239, Eq. 4."""
    kept = np.cumprod(1 - np.asarray(betas, np.float64))
    return np.sqrt((1 - kept) / kept)


def cosine_betas(levels):
    """Nichol & Dhariwal 2102.09672, Eq. 17 and the clipping below it."""
    level = np.cos((np.arange(levels + 1) / levels + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1 - level[1:] / level[:-1], 0.999)


def rescaled_betas(betas):
    """Lin et al. 2305.08891, Algorithm 1, to alpha = 1e-4 at the end."""
    root = np.sqrt(np.cumprod(1 - betas))
    first, last, end = root[0], root[-1], 1 / np.sqrt(1 + 1e8)
    kept = (end + (root - last) * (first - end) / (first - last)) ** 2
    return 1 - np.append(kept[0], kept[1:] / kept[:-1])


LINEAR = np.linspace(1e-4, 0.02, 1000)
CHAINS = {
    'linear': (discrete.DDPM(), LINEAR),
    'scaled linear': (discrete.DDPM(1000, 0.00085, 0.012, 2.0), np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2),
    'zero terminal': (discrete.DDPM(zero_terminal=True), rescaled_betas(LINEAR)),
    'cosine': (discrete.CosineDDPM(), cosine_betas(1000)),
    'short cosine': (discrete.CosineDDPM(50), cosine_betas(50)),
}


@pytest.mark.parametrize('forward,betas', CHAINS.values(), ids=CHAINS)
def test_the_levels_are_the_cumulative_product_of_the_betas(forward, betas):
    levels = len(betas)
    every = np.asarray(grids.discrete(levels)(forward, levels))
    assert every.shape == (levels + 1,) and every[-1] == 0
    np.testing.assert_allclose(every[:-1], ratios(betas)[::-1], rtol=1e-5)
    between = forward.nsr(jnp.asarray([(levels - 1.5) / levels]))
    np.testing.assert_allclose(between, np.sqrt(ratios(betas)[-2] * ratios(betas)[-3]), rtol=1e-4)


def test_some_of_the_levels():
    """Lin et al. 2305.08891, Table 2: 10 of 1000."""
    forward = discrete.DDPM()
    wanted = {
        'trailing': [1000, 900, 800, 700, 600, 500, 400, 300, 200, 100],
        'leading': [901, 801, 701, 601, 501, 401, 301, 201, 101, 1],
        'linspace': [1000, 889, 778, 667, 556, 445, 334, 223, 112, 1],
    }
    for spacing, steps in wanted.items():
        found = grids.discrete(1000, spacing)(forward, 10)
        np.testing.assert_allclose(found[:-1], ratios(LINEAR)[np.asarray(steps) - 1], rtol=1e-5, err_msg=spacing)


def test_more_steps_than_levels_are_refused():
    with pytest.raises(ValueError, match='11 steps, but there are 10 levels'):
        grids.discrete(10)(discrete.DDPM(10), 11)
    with pytest.raises(ValueError, match="one of 'trailing'"):
        grids.discrete(spacing='even')


@pytest.mark.parametrize(
    'wrong', [{'levels': 1}, {'beta_start': 0.0}, {'beta_end': 1.5}, {'beta_start': 0.5}, {'power': 0.0}]
)
def test_a_chain_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match='a DDPM wants'):
        discrete.DDPM(**wrong)
