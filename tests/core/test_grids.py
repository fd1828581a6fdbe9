import numpy as np
import pytest

from diffusion.core import grids, process


@pytest.mark.parametrize('name', grids.__all__)
@pytest.mark.parametrize('forward', [getattr(process, name)() for name in process.__all__], ids=process.__all__)
@pytest.mark.parametrize('steps', [1, 2, 18])
def test_n_steps_from_the_noisiest_level_to_exactly_zero(name, forward, steps):
    sigmas = np.asarray(getattr(grids, name)()(forward, steps))
    assert sigmas.shape == (steps + 1,) and sigmas.dtype == np.float32
    assert np.all(np.diff(sigmas) < 0) and sigmas[-1] == 0
    np.testing.assert_allclose(sigmas[0], forward.nsr_range()[1], rtol=1e-4)


def test_karras_is_eq_5_of_edm():
    i, n, low, high = np.arange(18), 18, 0.002, 80.0
    expected = (high ** (1 / 7) + i / (n - 1) * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    found = grids.karras(7.0, low, high)(process.VP(), 18)
    np.testing.assert_allclose(found[:-1], expected, rtol=1e-4)


def test_trailing_visits_the_multiples_of_a_step():
    """Lin et al. 2305.08891: 4 steps of t_max = 1 start at 1, 0.75, 0.5, 0.25."""
    forward = process.VP()
    sigmas = grids.trailing()(forward, 4)
    np.testing.assert_allclose(forward.nsr_inverse(sigmas[:-1]), [1, 0.75, 0.5, 0.25], rtol=1e-4)
