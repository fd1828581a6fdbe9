import numpy as np
import pytest

from diffusion.evaluation import ensemble


@pytest.mark.parametrize('members,interval', [(19, 0.9), (39, 0.9), (9, 0.6)])
def test_a_further_draw_falls_into_the_interval_as_often_as_it_says(members, interval):
    """Whatever the law; 40,000 draws, four standard errors."""
    drawn = np.random.default_rng(0).exponential(size=(members + 1, 40_000))
    inside = ensemble.covered(ensemble.summary(drawn[:-1], interval), drawn[-1]).mean()
    assert abs(inside - interval) < 4 * (interval * (1 - interval) / 40_000) ** 0.5


def test_summaries_of_few_members():
    values = np.random.default_rng(0).normal(size=(18, 3)).astype(np.float32)
    found = ensemble.summary(values, 0.9)
    np.testing.assert_allclose(found.spread, np.sqrt(((values - values.mean(0)) ** 2).sum(0) / 17), rtol=1e-5)
    assert found.low is None and ensemble.least(0.9) == 19
    assert ensemble.summary(values[:1], 0.9).spread is None
