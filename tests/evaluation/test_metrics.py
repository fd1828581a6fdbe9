"""Measures of features against closed forms, scipy, and definitions written out."""

import math

import numpy as np
import pytest
from scipy import linalg, spatial, special, stats

from diffusion.evaluation import frechet, interval, kernels, moments, neighbours, protocol, scores

RNG = np.random.default_rng(7)


def law(features, rank=None, seed=0):
    """A mean and a covariance of a rank."""
    rng = np.random.default_rng(seed)
    factor = rng.standard_normal((features, rank or features))
    return rng.standard_normal(features), factor @ factor.T


def test_moments_streamed_or_sharded_are_those_taken_at_once():
    x = RNG.standard_normal((5003, 24)) @ RNG.standard_normal((24, 24)) + 1e3
    whole = moments.of(x)
    np.testing.assert_allclose(whole.covariance, np.cov(x, rowvar=False), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(whole.mean, x.mean(0), rtol=1e-12)
    streamed = moments.empty(24)
    for start in range(0, len(x), 37):
        streamed = moments.merge(streamed, moments.of(x[start : start + 37]))
    shards = [moments.of(x[shard::8]) for shard in range(8)]
    left = moments.merge(moments.merge(shards[0], shards[1]), moments.merge(shards[2], shards[3]))
    right = moments.merge(shards[7], moments.merge(shards[6], moments.merge(shards[5], shards[4])))
    for other in (streamed, moments.merge(right, left)):
        assert other.count == 5003
        np.testing.assert_allclose(other.mean, whole.mean, rtol=1e-10)
        np.testing.assert_allclose(other.covariance, whole.covariance, rtol=1e-10, atol=1e-10)


def test_weights_count_examples_as_often_as_they_say():
    x, counts = RNG.standard_normal((60, 5)), RNG.integers(0, 4, 60)
    twice = moments.of(np.repeat(x, counts, 0))
    found = moments.of(x, counts)
    np.testing.assert_allclose(found.covariance, twice.covariance, rtol=1e-10, atol=1e-12)
    assert found.count == counts.sum()


def test_float32_features_far_from_zero_keep_their_spread():
    x = (1e4 + RNG.standard_normal((4000, 3))).astype(np.float32)
    np.testing.assert_allclose(moments.of(x).covariance, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-9)


@pytest.mark.parametrize('ranks', [(30, 30), (30, 7), (5, 7), (1, 1)], ids=str)
def test_frechet_distance_of_gaussians_is_scipys(ranks):
    (mean_a, a), (mean_b, b) = law(30, ranks[0], 1), law(30, ranks[1], 2)
    found = frechet.distance(mean_a, a, mean_b, b)
    # tr (A B)^(1/2) is the sum of the singular values of the product of any factors: no root of A B needed.
    factor = [np.random.default_rng(seed) for seed in (1, 2)]
    factors = [rng.standard_normal((30, rank)) for rng, rank in zip(factor, ranks)]
    cross = linalg.svdvals(factors[0].T @ factors[1]).sum()
    expected = ((mean_a - mean_b) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * cross
    assert isinstance(found, float) and found == pytest.approx(expected, rel=1e-9)
    assert frechet.distance(mean_b, b, mean_a, a) == pytest.approx(found, rel=1e-9)
    if ranks == (30, 30):
        root = linalg.sqrtm(a @ b)
        assert np.trace(root).real == pytest.approx(cross, rel=1e-8)


@pytest.mark.parametrize('samples', [40, 200])
def test_frechet_distance_counts_the_many_small_variances_of_features(samples):
    """Variances that fall over 17 orders, as those of Inception do: by the singular values of the samples."""
    scale, rng = 0.8 ** np.arange(90), np.random.default_rng(6)
    x, y = (rng.standard_normal((samples, 90)) * scale * size for size in (1.0, 1.2))
    found = frechet.fid(x, moments.of(y), repeats=20)
    gap, x, y = x.mean(0) - y.mean(0), x - x.mean(0), y - y.mean(0)
    cross = linalg.svdvals(x @ y.T).sum()
    expected = gap @ gap + ((x**2).sum() + (y**2).sum() - 2 * cross) / (samples - 1)
    assert found.value == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_commuting_gaussians_and_of_a_law_to_itself():
    a, b = np.array([4.0, 1.0, 0.0, 9.0]), np.array([1.0, 1.0, 5.0, 0.0])
    turn = linalg.qr(RNG.standard_normal((4, 4)))[0]
    found = frechet.distance(np.zeros(4), turn * a @ turn.T, np.full(4, 0.5), turn * b @ turn.T)
    assert found == pytest.approx(1 + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum(), abs=1e-9)
    mean, covariance = law(200, 50)
    assert 0 <= frechet.distance(mean, covariance, mean, covariance) < 1e-12 * np.trace(covariance)
    nothing = np.zeros((3, 3))
    assert frechet.distance(np.zeros(3), nothing, np.array([3.0, 4, 0]), nothing) == pytest.approx(25)


def test_the_error_of_fid_is_the_spread_over_fresh_samples():
    reference = moments.Moments(1e6, np.zeros(4), np.eye(4) * (1e6 - 1))
    rng = np.random.default_rng(3)
    values = [frechet.fid(rng.standard_normal((400, 4)) + 0.3, reference, 0).value for _ in range(300)]
    found = frechet.fid(rng.standard_normal((400, 4)) + 0.3, reference, 200, 5)
    assert found.standard_error == pytest.approx(np.std(values), rel=0.35)
    assert found.repeats == 200 and found.seed == 5 and 'bootstrap' in found.method
    again = frechet.fid(np.ones((9, 4)), reference, 3)
    assert np.isfinite(again.value) and again.value == pytest.approx(4 + 4) and again.standard_error == 0


def test_fid_infinity_leaves_out_the_bias_of_few_samples():
    rng = np.random.default_rng(4)
    mean, scale = 0.2, 1.3
    reference = moments.Moments(1e9, np.zeros(16), np.eye(16) * (1e9 - 1))
    exact = 16 * (mean**2 + (scale - 1) ** 2)
    plain, limits = [], []
    for _ in range(24):
        x = mean + scale * rng.standard_normal((1000, 16))
        plain.append(frechet.fid(x, reference, 0).value)
        limits.append(frechet.fid_infinity(x, reference))
    values = [limit.value for limit in limits]
    noise = np.std(values) / math.sqrt(24)
    assert abs(np.mean(values) - exact) < 4 * noise < np.mean(plain) - exact
    assert np.mean([limit.standard_error for limit in limits]) == pytest.approx(np.std(values), rel=0.5)
    with pytest.raises(ValueError, match='at least 100 samples'):
        frechet.fid_infinity(x[:99], reference)


def test_names_of_few_samples_and_of_other_networks_say_so():
    assert frechet.name(50_000, '') == 'FID' and frechet.name(2048, '') == 'FID'
    assert frechet.name(2047, '') == 'FID-2047' and frechet.name(256, 'classifier') == 'FID-256[classifier]'
    assert frechet.name(50_000, 'classifier') == 'FID[classifier]' and frechet.name(300, '', limit=True) == 'FID∞'


def test_cubic_discrepancy_is_the_definition_and_unbiased():
    x, y = RNG.standard_normal((7, 3)), RNG.standard_normal((9, 3)) + 0.5

    def mean(a, b, same):
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not same or i != j]
        return np.mean([(a[i] @ b[j] / 3 + 1) ** 3 for i, j in pairs])

    expected = mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)
    assert kernels.discrepancy(x, y, kernels.cubic) == pytest.approx(expected, rel=1e-12)
    one_law = [kernels.discrepancy(RNG.standard_normal((20, 3)), RNG.standard_normal((20, 3)), kernels.cubic)]
    one_law += [
        kernels.discrepancy(RNG.standard_normal((20, 3)), RNG.standard_normal((20, 3)), kernels.cubic)
        for _ in range(1500)
    ]
    assert abs(np.mean(one_law)) < 4 * np.std(one_law) / math.sqrt(len(one_law))


def test_gaussian_discrepancy_of_normals_is_its_closed_form():
    """E k(x, y) = (1 + 2 / s^2)^(-D/2) exp(-|m|^2 / (2 (s^2 + 2))) for unit normals m apart, k of bandwidth s."""
    s, m, d = 1.7, 0.8, 3
    same = (1 + 2 / s**2) ** (-d / 2)
    exact = 2 * same * (1 - math.exp(-d * m**2 / (2 * (s**2 + 2))))
    rng = np.random.default_rng(0)
    found = kernels.over_blocks(rng.standard_normal((6000, d)), m + rng.standard_normal((5000, d)), kernels.gaussian(s))
    assert abs(found.value - exact) < 4 * found.standard_error < exact / 4 and found.repeats == 10
    with pytest.raises(ValueError, match='at least 20'):
        kernels.over_blocks(np.ones((19, 2)), np.ones((50, 2)), kernels.cubic)
    x = rng.standard_normal((500, 4))
    assert kernels.median_distance(x) == pytest.approx(np.median(spatial.distance.pdist(x)), rel=1e-9)


def test_inception_score_of_known_predictions():
    classes = np.arange(8000) % 8
    sure = np.where(np.arange(8) == classes[:, None], 0.0, -np.inf)
    assert scores.inception_score(np.maximum(sure, -1e9)).value == pytest.approx(8, rel=0.05)
    unsure = scores.inception_score(np.zeros((40, 8)))
    assert unsure.value == pytest.approx(1) and unsure.standard_error == pytest.approx(0, abs=1e-12)
    logits = RNG.standard_normal((200, 8))
    order = np.random.default_rng(3).permutation(200)
    by_hand = []
    for part in np.split(order, 10):
        p = special.softmax(logits[part], 1)
        by_hand.append(np.exp(special.rel_entr(p, p.mean(0)).sum(1).mean()))
    found = scores.inception_score(logits, 3)
    assert found.value == pytest.approx(np.mean(by_hand), rel=1e-12)
    assert found.standard_error == pytest.approx(np.std(by_hand, ddof=1) / math.sqrt(10), rel=1e-9)


def test_neighbourhood_measures_are_their_definitions(monkeypatch):
    monkeypatch.setattr(neighbours, 'CHUNK', 17)  # not a divisor of either set
    samples, reference = RNG.standard_normal((60, 3)) * 0.6, RNG.standard_normal((75, 3))
    across = spatial.distance.cdist(samples, reference)

    def reach(x, k):
        return np.sort(spatial.distance.cdist(x, x), 1)[:, k]

    found = neighbours.measures(samples, reference)
    assert found['precision'].value == (across <= reach(reference, 3)).any(1).mean()
    assert found['recall'].value == (reach(samples, 3) >= across.T).any(1).mean()
    assert found['density'].value == pytest.approx((across <= reach(reference, 5)).sum() / 5 / 60)
    assert found['coverage'].value == (across.min(0) <= reach(reference, 5)).mean()
    p = found['precision'].value
    assert found['precision'].standard_error == pytest.approx(math.sqrt(p * (1 - p) / 59))
    far = neighbours.measures(samples + 100, reference)
    assert [far[name].value for name in ('precision', 'recall', 'density', 'coverage')] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    'measure',
    [
        moments.of,
        lambda x: kernels.over_blocks(x, np.ones((40, 2)), kernels.cubic),
        scores.inception_score,
        lambda x: neighbours.measures(np.ones((40, 2)), x),
    ],
)
def test_features_that_are_not_finite_are_refused(measure):
    x = RNG.standard_normal((40, 2))
    x[3, 1] = np.nan
    with pytest.raises(ValueError, match='not finite'):
        measure(x)


@pytest.mark.parametrize('count', [3, 10, 300])
def test_an_interval_covers_the_truth_as_often_as_it_says(count):
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(600):
        low, high = interval.blocks(rng.standard_normal(count), '', 0).to_json()['interval']
        hits += low < 0 < high
    assert 0.925 < hits / 600 < 0.975


def test_students_law_and_wilsons_interval_are_scipys():
    for freedom in (1, 2, 3, 9, 50, 200, 201):
        near = 0.01 if freedom > 200 else 1e-6
        assert interval.student(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=near)
    for true, count in ((0, 20), (20, 20), (7, 31), (500, 2000)):
        expected = stats.binomtest(true, count).proportion_ci(method='wilson')
        found = interval.share(np.arange(count) < true, '')
        assert found.ends == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_the_interval_of_fid_holds_it_and_ends_above_zero():
    """Of what FID-n is in the mean over fresh samples; few of the reference's own law are mostly bias and error."""
    rng = np.random.default_rng(6)
    for features, count, shift in ((4, 60, 0.0), (16, 200, 0.2)):
        reference = moments.Moments(1e9, np.zeros(features), np.eye(features) * (1e9 - 1))
        draw = lambda: rng.standard_normal((count, features)) + shift  # noqa: B023, E731
        mean = np.mean([frechet.fid(draw(), reference, 0).value for _ in range(300)])
        found = [frechet.fid(draw(), reference, 20).ends for _ in range(60)]
        assert min(low for low, _ in found) > 0
        assert np.mean([low < mean < high for low, high in found]) > 0.9
    # Over few blocks Student's interval is wide, and ends where the number does.
    several = interval.repeated([interval.positive(value, [0.1, 0.3], '', 0) for value in (0.2, 0.9, 0.4)], '')
    assert several.ends[0] == 0 and several.ends[1] == pytest.approx(
        0.5 + stats.t.ppf(0.975, 2) * np.std([0.2, 0.9, 0.4], ddof=1) / math.sqrt(3)
    )
    alike = [interval.share(np.arange(20) < 20, '')] * 3
    assert interval.repeated(alike, '').ends == alike[0].ends and alike[0].ends[0] < 1
    same = rng.standard_normal((50, 3))
    low, high = interval.positive(0.0, [0.1, 0.3], '', 0).ends
    assert low == 0 and high == pytest.approx(1.96 * np.std([0.1, 0.3], ddof=1), rel=1e-3)
    assert 0 <= frechet.fid(same, moments.of(same)).value < 1e-9


def test_protocols_differ_by_field_and_not_by_order():
    a = {'count': 5, 'sampler': {'name': 'heun', 'steps': 18}}
    assert protocol.digest(a) == protocol.digest({'sampler': {'steps': 18, 'name': 'heun'}, 'count': 5})
    b = {'count': 5, 'sampler': {'name': 'heun', 'steps': 9}, 'range': '8 bits'}
    assert protocol.digest(a) != protocol.digest(b)
    assert protocol.differences(a, b) == {'sampler.steps': (18, 9), 'range': (None, '8 bits')}
