import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, optimize, stats

from diffusion.core import adaptive, augment, density, loss, precond, process, randomness, uncertainty, weighting
from tests import oracle


@pytest.mark.parametrize('name', precond.__all__)
def test_the_exact_denoiser_reaches_the_least_loss_there_is(name):
    """The posterior variance of N(m, V) is trace(V sigma**2 (V + sigma**2)**-1), here integrated."""
    law, row = oracle.gaussian(dim=4), getattr(precond, name)()
    values = np.linalg.eigvalsh(law.covs[0])

    def integrand(z):
        sigma = np.exp(-0.8 + 0.7 * z)
        out = float(row(jnp.asarray([sigma])).out[0])
        return stats.norm.pdf(z) * np.mean(values * sigma**2 / (values + sigma**2)) / out**2

    least = integrate.quad(integrand, -5, 5)[0]
    value = loss.denoising(
        lambda params, x, sigma, cond, keys: law.images()(x, sigma),
        row,
        process.VE(),
        density.log_normal(-0.8, 0.7),
        {},
    )
    x0 = law.sample(jax.random.key(0), 40_000).reshape(-1, 1, 1, 4)
    found = jax.jit(value)(None, x0, {}, jax.random.key(1))[0]
    np.testing.assert_allclose(found, least, rtol=0.03)


def test_noise_belongs_to_examples_of_a_step():
    seen = []

    def spy(params, x, sigma, cond, keys):
        seen.append((x, sigma))
        return x

    value = loss.denoising(spy, precond.edm(), process.VE(), density.log_normal(), {})
    zeros = jnp.zeros((8, 2, 2, 1))
    for key in (0, 0, 1):
        value(None, zeros, {}, jax.random.key(key))
    np.testing.assert_array_equal(seen[0][0], seen[1][0])
    assert not np.allclose(seen[0][0], seen[2][0])
    assert len(np.unique(np.asarray(seen[0][0]))) == zeros.size


NULL = {'label': jnp.asarray(-1)}


@pytest.mark.long
@pytest.mark.parametrize('name', augment.__all__)
def test_an_augmentation_belongs_to_examples_and_comes_before_the_noise(name):
    """Of a batch in pieces as of the whole; what is to be restored is the image as it was augmented."""
    kind = getattr(augment, name)(0.7)

    def taken(x0, cond, places):
        seen = []

        def spy(params, x, sigma, cond, keys):
            seen.append((x, cond))
            return x

        value = loss.denoising(
            spy, precond.edm(), process.VE(), lambda process, u: 1e-9 + 0 * u, NULL, 0.5, augmentation=kind
        )

        @jax.jit
        def told(*inputs):
            value.part(None, *inputs[:2], jax.random.key(3), {}, (inputs[2], 8))
            return seen[-1]

        return told(x0, cond, places)

    x0 = jax.random.normal(jax.random.key(1), (8, 4, 4, 1))
    cond = {'label': jnp.arange(8)}
    clean, told = taken(x0, cond, jnp.arange(8))
    keys = randomness.examples(randomness.stream(jax.random.key(3), 'examples'), jnp.arange(8))
    wanted, labels = jax.jit(kind.apply)(randomness.substream(keys, 'augment'), x0)
    np.testing.assert_allclose(clean, wanted, atol=1e-6)
    assert not np.allclose(clean, x0)
    if kind.labels:
        np.testing.assert_array_equal(told['augment'], labels)
        assert np.any(np.any(told['augment'] != 0, 1) & (told['label'] == -1))
    assert set(told) == ({'label', 'augment'} if kind.labels else {'label'})
    rows = jnp.asarray([7, 2, 4])
    x, part = taken(x0[rows], {'label': rows}, rows)
    np.testing.assert_allclose(x, clean[rows], atol=1e-5)
    for key in told:
        np.testing.assert_allclose(part[key], told[key][rows], atol=1e-6)


def test_conditions_are_dropped_at_their_rate_and_whole():
    cond = {'label': jnp.arange(20_000), 'tokens': jnp.ones((20_000, 5), jnp.int32)}
    null = {'label': jnp.asarray(-1), 'tokens': jnp.zeros(5, jnp.int32)}
    dropped = loss.drop(jax.random.split(jax.random.key(0), 20_000), cond, null, 0.1)
    gone = np.asarray(dropped['label']) == -1
    assert abs(gone.mean() - 0.1) < 0.01
    np.testing.assert_array_equal(np.asarray(dropped['tokens']) == 0, np.repeat(gone[:, None], 5, 1))


def test_each_condition_is_dropped_by_itself_and_all_together():
    """Joint and single drops are independent of each other, of the batch's cut, and of the noise."""
    null = {'label': jnp.asarray(-1), 'tokens': jnp.zeros(2, jnp.int32)}
    seen = []

    def spy(params, x, sigma, cond, keys):
        seen.append((x, cond))
        return x

    def told(rates, rows):
        value = loss.denoising(
            spy, precond.edm(), process.VE(), density.log_normal(), null, rates.pop('joint', 0.0), dropouts=rates
        )

        @jax.jit
        def part(rows):
            cond = {'label': rows, 'tokens': jnp.ones((len(rows), 2), jnp.int32)}
            value.part(None, jnp.zeros((len(rows), 1, 1, 1)), cond, jax.random.key(0), {}, (rows, 20_000))
            return seen[-1]

        x, cond = part(rows)
        words = np.asarray(cond['tokens'])
        np.testing.assert_array_equal(words[:, 0], words[:, 1])
        return np.asarray(x).ravel(), np.asarray(cond['label']) == -1, words[:, 0] == 0

    def share(found, expected):
        return stats.binomtest(int(found.sum()), len(found), expected).pvalue > 1e-3

    rows = jnp.arange(1, 20_001)
    _, label, text = told({'label': 0.3, 'tokens': 0.2}, rows)
    assert share(label, 0.3) and share(text, 0.2) and share(label & text, 0.06)
    _, label, text = told({'label': 0.3}, rows)
    assert share(label, 0.3) and not text.any()
    noise, label, text = told({'joint': 0.1, 'label': 0.3, 'tokens': 0.2}, rows)
    assert share(label, 1 - 0.9 * 0.7) and share(text, 1 - 0.9 * 0.8) and share(label & text, 0.1 + 0.9 * 0.06)
    for gone in (label, text):
        assert stats.ks_2samp(noise[gone] / noise.std(), noise[~gone] / noise.std()).pvalue > 1e-3
    some = slice(100, 20_000, 7)
    for part, whole in zip(told({'joint': 0.1, 'label': 0.3, 'tokens': 0.2}, rows[some]), (noise, label, text)):
        np.testing.assert_allclose(part, whole[some], rtol=1e-6)
    np.testing.assert_array_equal(told({'joint': 0.1}, rows)[1], told({'joint': 0.1}, rows)[2])


def test_pixels_survive_the_round_trip():
    image = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    np.testing.assert_array_equal(loss.to_uint8(loss.to_unit(jnp.asarray(image))), image)
    assert loss.to_unit(jnp.asarray(image)).min() == -1 and loss.to_unit(jnp.asarray(image)).max() == 1


LAW = oracle.gaussian(dim=4)
VALUES = np.linalg.eigvalsh(LAW.covs[0])


def least(sigma):
    """The posterior variance of LAW at sigma, whose mean is the least squared error a dimension."""
    return np.mean(VALUES * sigma[..., None] ** 2 / (VALUES + sigma[..., None] ** 2), -1)


def objective(**options):
    """The loss of the exact denoiser of LAW on log-normal levels."""
    return loss.denoising(
        lambda params, x, sigma, cond, keys: LAW.images()(x, sigma),
        precond.edm(0.7),
        process.VE(),
        density.log_normal(-0.8, 1.0),
        {},
        weighting=weighting.edm(0.7),
        **options,
    )


X0 = LAW.sample(jax.random.key(0), 20_000).reshape(-1, 1, 1, 4)


def test_the_loss_of_each_range_of_sigma():
    """Each pair [sum, weight] against the integral over its range; the sums make up the loss."""
    value, (metrics, _) = jax.jit(objective())(None, X0, {}, jax.random.key(1))
    pairs = {name: np.asarray(pair) for name, pair in metrics.items() if name.startswith('loss_sigma_')}
    assert list(pairs) == sorted(pairs) and len(pairs) == len(loss.EDGES) + 1
    assert 'loss_sigma_0_0-0.01' in pairs and 'loss_sigma_7_10-inf' in pairs
    np.testing.assert_allclose(sum(pair[0] for pair in pairs.values()) / len(X0), value, rtol=1e-4)
    np.testing.assert_allclose(sum(pair[1] for pair in pairs.values()), len(X0))
    for name in list(pairs)[2:7]:
        low, high = (float(end) for end in name.rsplit('_', 1)[1].split('-'))
        z = np.linspace(np.log(low), np.log(high), 1001)
        sigma, chance = np.exp(z), stats.norm.pdf(z, -0.8, 1.0)
        weighed = least(sigma) * (sigma**2 + 0.49) / (sigma * 0.7) ** 2
        wanted = np.trapezoid(chance * weighed, z) / np.trapezoid(chance, z)
        np.testing.assert_allclose(pairs[name][0] / pairs[name][1], wanted, rtol=0.05)
        np.testing.assert_allclose(pairs[name][1] / len(X0), np.trapezoid(chance, z), atol=1e-3)


@pytest.mark.long
def test_the_learned_uncertainty_is_the_expected_loss_of_each_level():
    """Karras et al. 2312.02696, Eq. 21: least where exp(u(sigma)) is E[loss | sigma]."""
    tempered = jax.jit(jax.value_and_grad(objective(uncertain=True), has_aux=True))

    def of(flat):
        params = {uncertainty.NAME: {'coefficients': jnp.asarray(flat, jnp.float32)}}
        (value, _), slope = tempered(params, X0, {}, jax.random.key(1))
        return float(value), np.asarray(slope[uncertainty.NAME]['coefficients'], np.float64)

    start = uncertainty.initial()[uncertainty.NAME]['coefficients']
    assert start.shape == (uncertainty.FEATURES,) and not start.any()
    found = optimize.minimize(of, start, jac=True, method='L-BFGS-B', options={'maxiter': 40})
    sigma = np.geomspace(0.06, 3.0, 12)
    params = {uncertainty.NAME: {'coefficients': jnp.asarray(found.x, jnp.float32)}}
    learned = np.exp(uncertainty.log_loss(params, jnp.asarray(sigma)))
    np.testing.assert_allclose(learned, least(sigma) * (sigma**2 + 0.49) / (sigma * 0.7) ** 2, rtol=0.08)


def test_tempering_changes_nothing_until_it_has_learned():
    plain = jax.jit(objective())(None, X0, {}, jax.random.key(1))
    tempered = jax.jit(objective(uncertain=True))(uncertainty.initial(), X0, {}, jax.random.key(1))
    np.testing.assert_allclose(tempered[0], plain[0], rtol=1e-6)
    np.testing.assert_allclose(tempered[1][0]['loss'], plain[1][0]['loss'], rtol=1e-6)


def test_adapting_changes_what_is_drawn_and_not_the_expected_loss():
    plain = jax.jit(objective())(None, X0, {}, jax.random.key(1))
    adapted = jax.jit(objective(adapt=True))
    memory = {'adaptive': adaptive.initial(16)}
    for key in range(2, 4):
        value, (metrics, memory) = adapted(None, X0, {}, jax.random.key(key), memory)
        np.testing.assert_allclose(value, plain[0], rtol=0.02)
    assert np.ptp(adaptive.probabilities(memory['adaptive'])) > 0.03
    middle = 'loss_sigma_4_0.3-1'
    pair, before = metrics[middle], plain[1][0][middle]
    np.testing.assert_allclose(pair[0] / pair[1], before[0] / before[1], rtol=0.05)
    np.testing.assert_allclose(pair[1], before[1], rtol=0.02)
