"""Every guidance keeps its promises (scale 1, one call, each example by itself); each one's own property follows."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from diffusion.core import chain, grids, guidance, process, randomness, samplers
from tests import oracle

LAW = oracle.plane()
conditional = jax.jit(LAW.conditional())
X = jax.random.normal(jax.random.key(0), (6, 1, 1, 2))
SIGMA = jnp.linspace(0.2, 2.0, 6)
COND = {'label': jnp.asarray([0, 1, 2, 0, 1, 2])}
NULL = {'label': jnp.full(6, -1)}
ALL = guidance.Beside(NULL)

# The same on pictures, and a weaker model: the one of another law.
PICTURE = (3, 4, 2)
pictures, weak = (jax.jit(oracle.several(24, seed=seed).conditional()) for seed in (0, 7))
IMAGES = jax.random.normal(jax.random.key(1), (6, *PICTURE))
BESIDE = guidance.Beside(NULL, weak=weak)
GUIDED = [name for name in guidance.__all__ if name != 'none']


def rule(name, scale, **options):
    """The guidance with the scale and those of the options that it has."""
    constructor = getattr(guidance, name)
    known = inspect.signature(constructor).parameters
    return constructor(**{key: value for key, value in {'scale': scale, **options}.items() if key in known})


def table(count=12, seed=3):
    """A denoiser whose predictions do not depend on its arithmetic: row cond['row'] of a table."""
    rows = jax.random.normal(jax.random.key(seed), (count, *PICTURE))
    return rows, lambda x, sigma, cond: rows[cond['row']]


ROWS, looked_up = table()
FIRST, SECOND = ({'row': jnp.arange(6) + start} for start in (0, 6))
TABLED = guidance.Beside(SECOND, weak=lambda x, sigma, cond: looked_up(x, sigma, {'row': cond['row'] + 6}))


def flat(images):
    return np.asarray(images, np.float64).reshape(len(images), -1)


@pytest.mark.parametrize('options', [{}, {'rescale': 0.7, 'sigma_high': 1.5, 'norm': 0.5, 'low': 0.2}], ids=['', 'all'])
@pytest.mark.parametrize('name', guidance.__all__)
def test_scale_one_is_the_model_bit_for_bit_and_another_scale_compiles_nothing(name, options):
    guided = jax.jit(lambda scale: rule(name, scale, **options)(looked_up, FIRST, TABLED)(IMAGES, SIGMA))
    np.testing.assert_array_equal(guided(1.0), ROWS[:6])
    fixed = rule(name, 2.5, **options)(looked_up, FIRST, TABLED)(IMAGES, SIGMA)
    np.testing.assert_allclose(guided(2.5), fixed, rtol=1e-5, atol=1e-5)
    assert guided._cache_size() == 1
    assert (name == 'none') == bool((guided(2.5) == ROWS[:6]).all())


@pytest.mark.parametrize('name', guidance.__all__)
def test_scale_one_holds_where_the_other_prediction_is_infinite(name):
    broken = guidance.Beside(SECOND, weak=lambda x, sigma, cond: jnp.full_like(x, jnp.inf))

    def denoise(x, sigma, cond):
        return jnp.where(cond['row'][:, None, None, None] < 6, looked_up(x, sigma, cond), jnp.inf)

    np.testing.assert_array_equal(rule(name, 1.0)(denoise, FIRST, broken)(IMAGES, SIGMA), ROWS[:6])


@pytest.mark.parametrize('name', guidance.__all__)
def test_finite_at_any_noise_level_and_for_degenerate_predictions(name):
    sigma = jnp.asarray([1e-3, 1e-3, 2.0, 2.0, 1e3, 1e3])
    options = {'rescale': 0.7, 'norm': 1.0}
    found = rule(name, 4.0, **options)(pictures, COND, BESIDE)(IMAGES * sigma.reshape(-1, 1, 1, 1), sigma)
    assert np.isfinite(found).all() and np.abs(found).max() < 100
    for same in (lambda x, sigma, cond: x, lambda x, sigma, cond: 0 * x):
        alike = rule(name, 4.0, **options)(same, COND, guidance.Beside(NULL, weak=same))(IMAGES, sigma)
        np.testing.assert_allclose(alike, same(IMAGES, sigma, COND), rtol=1e-6)


@pytest.mark.parametrize('name', guidance.__all__)
def test_one_call_of_the_network(name):
    sizes = []

    def counting(x, sigma, cond):
        sizes.append(len(x))
        return x

    beside = guidance.Beside(NULL, weak=counting)
    rule(name, 3.0)(counting, COND, beside)(IMAGES, SIGMA)
    assert sizes == {'none': [6], 'auto': [6, 6]}.get(name, [12])
    sizes.clear()
    if name == 'classifier_free':
        rule(name, 3.0)(counting, COND, beside._replace(also=(COND, NULL), scales=(1.0, 2.0)))(IMAGES, SIGMA)
        assert sizes == [24]


@pytest.mark.parametrize('name', guidance.__all__)
def test_an_example_does_not_depend_on_its_batch(name):
    options = {'rescale': 0.5, 'sigma_low': 0.3, 'sigma_high': 1.5, 'norm': 1.0, 'zero_above': 1.8}

    @jax.jit
    def guided(x, sigma, cond, null):
        return rule(name, 3.0, **options)(pictures, cond, BESIDE._replace(null=null))(x, sigma)

    inputs = (IMAGES, SIGMA, COND, NULL)
    together = guided(*inputs)
    for i in (0, 3, 5):
        (alone,) = guided(*jax.tree.map(lambda a, i=i: a[i : i + 1], inputs))
        np.testing.assert_allclose(together[i], alone, atol=1e-5)


@pytest.mark.parametrize('name', guidance.__all__)
def test_a_sharded_batch_stays_where_it_is(name):
    mesh = jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec('data'))

    def pointwise(x, sigma, cond):
        return x / (1 + sigma + cond['label']).reshape(-1, 1, 1, 1)

    def guided(x, sigma, cond, null):
        beside = guidance.Beside(null, (null,) if name == 'classifier_free' else (), (0.5,), pointwise)
        beside = beside if beside.also else beside._replace(scales=())
        return rule(name, 3.0, rescale=0.5, norm=1.0)(pointwise, cond, beside)(x, sigma)

    shapes = jnp.ones((8, *PICTURE)), jnp.ones(8), {'label': jnp.ones(8)}, {'label': jnp.ones(8)}
    program = jax.jit(guided, in_shardings=split, out_shardings=split).lower(*shapes).compile().as_text()
    assert not [word for word in ('all-gather', 'all-to-all', 'all-reduce', 'collective-permute') if word in program]


@pytest.mark.parametrize('name', GUIDED)
def test_the_interval_is_open_below_closed_above_and_exactly_off_outside(name):
    sigma = jnp.asarray([0.1, 0.5, 0.6, 2.0, 2.1, 50.0])
    limited = rule(name, 3.0, sigma_low=0.5, sigma_high=2.0)(looked_up, FIRST, TABLED)(IMAGES, sigma)
    everywhere = rule(name, 3.0)(looked_up, FIRST, TABLED)(IMAGES, sigma)
    inside = np.asarray([False, False, True, True, False, False])
    np.testing.assert_array_equal(limited[~inside], ROWS[:6][~inside])
    np.testing.assert_allclose(limited[inside], everywhere[inside], rtol=1e-6)
    assert (limited[inside] != ROWS[:6][inside]).any((1, 2, 3)).all()
    unbounded = rule(name, 3.0, sigma_low=0.5)(looked_up, FIRST, TABLED)(IMAGES, sigma)
    np.testing.assert_allclose(unbounded[2:], everywhere[2:], rtol=1e-6)


@pytest.mark.parametrize('name', GUIDED)
def test_rescale_moves_the_contrast_of_each_image_back_to_the_wanted_ones(name):
    plain = flat(rule(name, 4.0)(looked_up, FIRST, TABLED)(IMAGES, SIGMA))
    for share in (0.3, 1.0):
        found = flat(rule(name, 4.0, rescale=share)(looked_up, FIRST, TABLED)(IMAGES, SIGMA))
        expected = share * flat(ROWS[:6]).std(1) + (1 - share) * plain.std(1)
        np.testing.assert_allclose(found.std(1), expected, rtol=1e-5)
        ratio = found / plain
        np.testing.assert_allclose(ratio, ratio[:, :1] * np.ones_like(ratio), rtol=1e-4)


@pytest.mark.parametrize(
    'name,options,say',
    [
        *((name, {'sigma_low': -1.0}, 'sigma_low') for name in GUIDED),
        *((name, {'sigma_low': 2.0, 'sigma_high': 1.0}, 'sigma_high') for name in GUIDED),
        *((name, {'rescale': 1.5}, 'rescale') for name in GUIDED),
        ('zero_star', {'zero_above': -1.0}, 'zero_above'),
        ('apg', {'norm': -1.0}, 'norm'),
        ('frequency_decoupled', {'low': -0.1}, 'low'),
        ('frequency_decoupled', {'octaves': 0}, 'octaves'),
    ],
)
def test_a_value_out_of_range_is_refused(name, options, say):
    with pytest.raises(ValueError, match=say):
        getattr(guidance, name)(**options)


def test_classifier_free_with_scale_zero_is_the_null_model_and_with_one_the_conditional():
    guide = jax.jit(lambda scale: guidance.classifier_free(scale)(conditional, COND, ALL)(X, SIGMA))
    np.testing.assert_array_equal(guide(1.0), jax.jit(conditional)(X, SIGMA, COND))
    np.testing.assert_allclose(guide(0.0), conditional(X, SIGMA, NULL), atol=1e-6)


def along_the_score(log_density, x, sigma):
    """x + sigma**2 of the gradient of a log density on [B, 2]: the denoiser that belongs to it."""
    score = jax.grad(lambda x: jnp.sum(log_density(x, sigma)))(x.reshape(-1, 2)).reshape(x.shape)
    return x + sigma.reshape(-1, 1, 1, 1) ** 2 * score


@pytest.mark.parametrize('tilts', [((1, 2.5),), ((1, 1.5), (0, 0.7), (2, -0.4))], ids=['one', 'several'])
def test_classifier_free_moves_along_the_scores_of_the_tilted_law(tilts):
    """p(x) (p(x | c) / p(x))**w ..., the law that several conditions with their own scales make, too."""
    scale, others = tilts[0][1], tilts[1:]
    named = [{'label': jnp.full(6, k)} for k, _ in tilts]
    beside = guidance.Beside(NULL, tuple(named[1:]), tuple(w for _, w in others))
    guided = guidance.classifier_free(scale)(conditional, named[0], beside)(X, SIGMA)
    exact = along_the_score(lambda x, sigma: LAW.log_tilted(x, sigma, tilts), X, SIGMA)
    np.testing.assert_allclose(guided, exact, atol=2e-4)


def test_further_conditions_are_off_outside_of_the_interval_and_on_at_scale_one():
    beside = guidance.Beside(NULL, (COND,), (2.0,))
    found = guidance.classifier_free(1.0, sigma_high=1.0)(conditional, COND, beside)(X, SIGMA)
    one = conditional(X, SIGMA, COND)
    both = one + 2 * (one - conditional(X, SIGMA, NULL))
    np.testing.assert_allclose(found, jnp.where((SIGMA <= 1).reshape(-1, 1, 1, 1), both, one), atol=1e-5)


def posterior(label):
    return lambda x, sigma: LAW.log_posterior(x.reshape(len(x), -1), sigma, jnp.full(len(x), label))


def test_the_exact_classifier_makes_the_conditional_model_of_the_unconditional():
    for label in range(3):
        guided = guidance.classifier(LAW.images(), posterior(label))(X, SIGMA)
        np.testing.assert_allclose(guided, LAW.component(label).images()(X, SIGMA), atol=1e-5)
    nothing = guidance.classifier(LAW.images(), posterior(0), 0.0)(X, SIGMA)
    np.testing.assert_array_equal(nothing, LAW.images()(X, SIGMA))


def test_generating_with_a_classifier_recovers_the_conditional_law():
    count, label = 8000, 1

    @jax.jit
    def draw(seeds):
        keys = randomness.examples(jax.random.key(5), seeds)
        denoise = guidance.classifier(LAW.images(), posterior(label))
        return chain.generate(denoise, samplers.heun(), grids.karras()(process.VE(), 40), keys, (1, 1, 2)).x

    points = np.asarray(draw(jnp.arange(count))).reshape(count, 2)
    law = LAW.component(label)
    np.testing.assert_allclose(points.mean(0), law.mean(), atol=5 / np.sqrt(count))
    np.testing.assert_allclose(np.cov(points.T), law.cov(), atol=5 / np.sqrt(count))


def test_autoguidance_of_two_gaussians_is_the_gaussian_of_their_mixed_precisions():
    """p_good**w p_weak**(1 - w) in closed form, noised each by itself."""
    good, bad, scale = oracle.gaussian(4, 1), oracle.gaussian(4, 2), 2.5
    x = jax.random.normal(jax.random.key(4), (6, 1, 1, 4))
    beside = guidance.Beside({}, weak=lambda x, sigma, cond: bad.images()(x, sigma))
    found = guidance.auto(scale)(lambda x, sigma, cond: good.images()(x, sigma), {}, beside)(x, SIGMA)
    for i, sigma in enumerate(np.asarray(SIGMA, np.float64)):
        noise, shares = sigma**2 * np.eye(4), ((good, scale), (bad, 1 - scale))
        precisions = [share * np.linalg.inv(law.covs[0] + noise) for law, share in shares]
        precision = sum(precisions)
        mean = np.linalg.solve(precision, precisions[0] @ good.means[0] + precisions[1] @ bad.means[0])
        point = np.asarray(x[i].reshape(4), np.float64)
        np.testing.assert_allclose(found[i].reshape(4), point - sigma**2 * precision @ (point - mean), atol=1e-4)


def velocity(images, prediction, sigma):
    """(x_t - x_0) / t of the straight path x_t = (1 - t) x_0 + t eps, flat in float64."""
    images, prediction, sigma = (np.asarray(a, np.float64) for a in (images, prediction, sigma))
    t = (sigma / (1 + sigma)).reshape(-1, 1, 1, 1)
    return (((1 - t) * images - prediction) / t).reshape(len(images), -1)


def test_zero_star_scales_the_null_velocity_to_the_least_squares_optimum():
    found = {w: rule('zero_star', w)(pictures, COND, BESIDE)(IMAGES, SIGMA) for w in (0.0, 1.0, 3.0)}
    null, wanted, fitted, guided = (
        velocity(IMAGES, prediction, SIGMA)
        for prediction in (pictures(IMAGES, SIGMA, NULL), found[1.0], found[0.0], found[3.0])
    )
    optima = [np.linalg.lstsq(n[:, None], w, rcond=None)[0] for n, w in zip(null, wanted)]
    assert max(abs(np.concatenate(optima) - 1)) > 0.01
    np.testing.assert_allclose(fitted, optima * null, atol=1e-4)
    np.testing.assert_allclose(guided, fitted + 3 * (wanted - fitted), atol=1e-4)


def test_zero_init_leaves_the_straight_paths_point_where_it_is():
    beside, sigmas = guidance.Beside(NULL), jnp.asarray([9.0, 4.0, 2.0])
    denoise = rule('zero_star', 3.0, zero_above=3.0)(pictures, COND, beside)
    drawn = samplers.euler()(denoise, IMAGES * 9, sigmas[:2], None).x
    np.testing.assert_allclose(drawn / 5, IMAGES * 9 / 10, rtol=1e-5)
    plain = rule('zero_star', 3.0)(pictures, COND, beside)
    np.testing.assert_array_equal(denoise(IMAGES, SIGMA), plain(IMAGES, SIGMA))


def test_apg_moves_at_right_angles_to_the_prediction_and_no_further_than_the_norm():
    wanted, other = flat(ROWS[:6]), flat(ROWS[6:])
    step = flat(rule('apg', 3.0)(looked_up, FIRST, TABLED)(IMAGES, SIGMA)) - wanted
    np.testing.assert_allclose(np.sum(step * wanted, 1), 0, atol=1e-4)
    # What is missing of classifier-free guidance's step is along the prediction alone.
    along = 2 * (wanted - other) - step
    cosine = np.sum(along * wanted, 1) / np.linalg.norm(along, axis=1) / np.linalg.norm(wanted, axis=1)
    np.testing.assert_allclose(np.abs(cosine), 1, atol=1e-5)
    short = flat(rule('apg', 3.0, parallel=1.0, norm=0.5)(looked_up, FIRST, TABLED)(IMAGES, SIGMA)) - wanted
    np.testing.assert_allclose(np.linalg.norm(short, axis=1), 2 * 0.5, rtol=1e-5)


@pytest.mark.parametrize(
    'name,options', [('apg', {'parallel': 1.0, 'norm': 1e6}), ('frequency_decoupled', {'low': 1.0})]
)
def test_with_its_options_at_rest_a_guidance_is_the_classifier_free_one(name, options):
    found = rule(name, 3.0, **options)(pictures, COND, BESIDE)(IMAGES, SIGMA)
    plain = guidance.classifier_free(3.0)(pictures, COND, BESIDE)(IMAGES, SIGMA)
    np.testing.assert_allclose(found, plain, rtol=1e-4, atol=1e-4)


def test_each_band_has_its_own_scale():
    """A difference that is constant is coarse; one that alternates from pixel to pixel is fine, but for the border."""
    rows, columns = jnp.indices((8, 9))
    patterns = jnp.stack([jnp.ones((8, 9)), (-1.0) ** (rows + columns), jnp.zeros((8, 9))])[..., None]
    x, sigma = jnp.zeros((2, 8, 9, 1)), jnp.ones(2)
    wanted, other = {'row': jnp.asarray([0, 1])}, guidance.Beside({'row': jnp.asarray([2, 2])})
    found = rule('frequency_decoupled', 3.0, low=0.25)(lambda x, sigma, cond: patterns[cond['row']], wanted, other)
    constant, alternating = found(x, sigma)
    np.testing.assert_allclose(constant, (1 + 0.25 * 2) * patterns[0], atol=1e-5)
    np.testing.assert_allclose(alternating[2:-2, 2:-2], 3 * patterns[1, 2:-2, 2:-2], atol=1e-5)


@pytest.mark.parametrize('size,octaves', [(8, 1), (8, 3), (5, 2), (1, 2), (2, 3)])
def test_the_coarse_part_has_the_binomial_filters_frequency_response(size, octaves):
    """cos(pi k (n + 1/2) / N) mirrors itself at the borders: the filter multiplies it by ((1 + cos(gap w)) / 2)**2."""
    for k in range(size):
        omega = np.pi * k / size
        wave = np.cos(omega * (np.arange(size) + 0.5))
        response = np.prod([((1 + np.cos(2**octave * omega)) / 2) ** 2 for octave in range(octaves)])
        picture = jnp.asarray(np.broadcast_to(wave[None, :, None, None], (1, size, 3, 2)), jnp.float32)
        np.testing.assert_allclose(guidance.coarse(picture, octaves), response * picture, atol=1e-6)
        turned = jnp.swapaxes(picture, 1, 2)
        np.testing.assert_allclose(guidance.coarse(turned, octaves), response * turned, atol=1e-6)
