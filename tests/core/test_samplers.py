"""Every sampler that a config can name draws the exact mixture, at the order and the cost its docstring promises."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.core import brownian, grids, precond, process, samplers
from tests import conformance, oracle

LAW = oracle.plane()
NAMES = list(conformance.SAMPLERS)
PROCESSES = [make() for make in conformance.PROCESSES.values()]
IDS = list(conformance.PROCESSES)
ODE = [name for name in NAMES if conformance.promise(name).order and not conformance.promise(name).weak]
WEAK = [name for name in NAMES if conformance.promise(name).weak]
NOISY = [*WEAK, 'predictor_corrector']
FOUR = ['VP', 'VE', 'Cosine', 'Flow']


# Samplers see sigmas alone: of the nine processes two are enough for the short suite, four for the plainest samplers.
PAIRS = [
    pytest.param(name, kind, id=f'{name}-{kind}', marks=[] if kind in near else pytest.mark.long)
    for name in NAMES
    for near in [FOUR if name in ('euler', 'heun', 'ancestral', 'ddim') else ('VP', 'VE')]
    for kind in IDS
]


def draw(name, sigmas, seed, options=(), first=0, count=None):
    # All arguments given: one compilation. Noise at every step is dear, so those samplers draw fewer points here and
    # as many in `test_law_is_recovered_closely`.
    return _draw(name, sigmas, seed, options, first, count or (2_000 if name in NOISY else 20_000))


@functools.partial(jax.jit, static_argnames=('name', 'options', 'count'))
def _draw(name, sigmas, seed, options, first, count):
    drawn = conformance.draw(LAW.images(), name, sigmas, (1, 1, 2), count, seed, first, **dict(options))
    return drawn.x.reshape(-1, 2)


def check_law(points, slack=1.0):
    points = np.asarray(points)
    error = slack * 5 / np.sqrt(len(points))
    np.testing.assert_allclose(points.mean(0), LAW.mean(), atol=error)
    np.testing.assert_allclose(np.cov(points.T), LAW.cov(), atol=2 * error)
    exact = np.asarray(LAW.sample(jax.random.key(99), 20_000))
    for axis in ([1, 0], [0, 1], [0.6, 0.8]):
        quantiles = np.linspace(0.05, 0.95, 10)
        mine, theirs = (np.quantile(p @ np.asarray(axis), quantiles) for p in (points, exact))
        np.testing.assert_allclose(mine, theirs, atol=3 * error)


def steps_of(name):
    """After which the discretisation is below the sampling error on the widest range of noise levels."""
    promised = conformance.promise(name)
    return 80 if promised.weak or promised.order == 1 else 50


@pytest.mark.parametrize('name, kind', PAIRS)
def test_law_is_recovered(name, kind):
    check_law(draw(name, grids.karras()(conformance.PROCESSES[kind](), steps_of(name)), 0))


@pytest.mark.long
@pytest.mark.parametrize(
    'name, kind', [*(('ancestral', kind) for kind in FOUR), *((name, 'VE') for name in NOISY if name != 'ancestral')]
)
def test_law_is_recovered_closely(name, kind):
    check_law(draw(name, grids.karras()(conformance.PROCESSES[kind](), 200), 0, count=20_000))


@pytest.mark.parametrize('name', grids.__all__)
@pytest.mark.parametrize('forward', PROCESSES, ids=IDS)
def test_law_is_recovered_on_every_grid(name, forward):
    check_law(draw('heun', getattr(grids, name)()(forward, 150), 1))


@pytest.mark.parametrize('row', precond.__all__)
@pytest.mark.parametrize('forward', PROCESSES, ids=IDS)
def test_law_is_recovered_through_every_prediction_type(row, forward):
    """The network is the exact one: F = (D - skip x) / out."""
    check_law(draw_through(row, grids.karras()(forward, 50)))


@functools.partial(jax.jit, static_argnums=0)
def draw_through(row, sigmas):
    return conformance.draw(conformance.through_row(row, LAW), 'heun', sigmas, (1, 1, 2), 2_000).x.reshape(-1, 2)


@pytest.mark.parametrize('row', precond.__all__)
@pytest.mark.parametrize('level', [1e-3, 1.0, 1e3])
def test_precision_of_every_prediction_type(row, level):
    """A network's rounding (2**-24 in float32, 2**-8 in bfloat16) reaches D times |c_out|, plus D's own in float32."""
    out = abs(float(getattr(precond, row)()(jnp.asarray([level])).out[0]))
    for dtype, unit in (('float32', 2**-22), ('bfloat16', 2**-8)):
        assert conformance.denoiser_error(row, level, dtype) < 3 * unit * out + 2e-6 * max(1, level)


OPTIONS = [
    ('heun', dict(churn=30.0, churn_noise=1.0), 'VE', 100),
    ('heun', dict(churn=10.0, churn_max=1.0), 'VE', 100),
    ('ddim', dict(eta=0.5), 'VP', 200),
    ('dpmpp_2m', dict(eta=0.5), 'VE', 100),
    ('unipc', dict(order=3), 'VE', 100),
    ('sa_solver', dict(correct=0), 'VE', 100),
    ('euler_maruyama', dict(eta=0.4), 'VE', 200),
    ('predictor_corrector', dict(corrections=2), 'VE', 100),
    ('restart', dict(low=0.1, high=2.0, times=3, steps=8), 'VE', 100),
]


@pytest.mark.long
@pytest.mark.parametrize('name, options, kind, steps', OPTIONS)
def test_options_keep_the_law(name, options, kind, steps):
    sigmas = grids.karras()(conformance.PROCESSES[kind](), steps)
    check_law(draw(name, sigmas, 2, options=tuple(options.items()), count=20_000))


@pytest.mark.parametrize(
    'name, options, dim',
    [('heun', {}, 8), ('heun', {}, 64), ('ancestral', {}, 64), ('predictor_corrector', dict(annealed=False), 64)],
)
def test_law_is_recovered_in_more_dimensions(name, options, dim):
    """Where there are many, Langevin steps may be sized by norms, too."""
    law, count = oracle.several(dim), 1_000
    run = jax.jit(lambda sigmas: conformance.draw(law.images(), name, sigmas, (1, 1, dim), count, **options).x)
    points = np.asarray(run(grids.karras()(process.VE(), 60))).reshape(count, dim)
    error = 5 * np.sqrt(np.linalg.norm(law.cov(), 2) / count)
    np.testing.assert_allclose(points.mean(0), law.mean(), atol=error)
    np.testing.assert_allclose(np.cov(points.T), law.cov(), atol=2 * error)


@pytest.mark.parametrize('name', ODE)
def test_order_of_convergence(name):
    counts = np.array([128, 256, 512])
    errors = conformance.ode_errors(name, counts)
    slope = conformance.order(errors, counts)
    assert abs(slope - conformance.promise(name).order) < 0.2, (slope, errors)


@pytest.mark.long
@pytest.mark.parametrize('name', WEAK)
def test_weak_order_of_convergence(name):
    counts = np.array([512, 1024])
    errors = conformance.weak_errors(name, counts)
    slope = conformance.order(errors, counts)
    assert abs(slope - conformance.promise(name).order) < 0.2, (slope, errors)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('steps', [pytest.param(1, marks=pytest.mark.long), 7])
def test_number_of_evaluations(name, steps):
    calls = []

    def denoise(x, sigma):
        jax.debug.callback(lambda s: calls.append(float(s)), sigma[0])
        return x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)

    sigmas = grids.karras()(process.VE(), steps)
    keys = jax.random.split(jax.random.key(0), 1)
    found = jax.block_until_ready(conformance.SAMPLERS[name]()(denoise, jnp.ones((1, 1, 1, 1)), sigmas, keys))
    jax.effects_barrier()
    assert np.isfinite(found.x).all()
    assert len(calls) == found.nfe
    assert min(calls) > 0
    promised = conformance.promise(name)
    if promised.nfe and (steps == 7 or promised.order):
        assert found.nfe == promised.evaluations(steps)


@pytest.mark.long
@pytest.mark.parametrize('name', ['euler', 'heun', 'ancestral', 'ddim', 'dpmpp_2m_sde'])
def test_an_example_does_not_depend_on_the_size_of_its_batch(name):
    sigmas = grids.karras()(process.VE(), 12)
    together = draw(name, sigmas, 0, first=15, count=3)
    alone = draw(name, sigmas, 0, first=17, count=1)
    np.testing.assert_allclose(together[2], alone[0], atol=1e-5)


@pytest.mark.parametrize('name', NAMES)
def test_an_example_does_not_depend_on_its_batch(name):
    sigmas = grids.karras()(process.VE(), steps_of(name))
    one, other = draw(name, sigmas, 0), draw(name, sigmas, 0, first=10)
    np.testing.assert_allclose(one[17], other[7], atol=1e-5)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize(
    'low, high', [(1e-3, 1e3), *(pytest.param(*ends, marks=pytest.mark.long) for ends in ((1e-3, 1.0), (0.5, 1e3)))]
)
def test_float32_holds(name, low, high):
    """From noise levels of 1e3 and down to 1e-3 nothing overflows: every sample lies where the mixture does."""
    sigmas = grids.karras(7.0, low, high)(process.VE(), steps_of(name))
    points = np.asarray(draw(name, sigmas, 5))
    assert np.isfinite(points).all()
    assert np.abs(points).max() < 5


@pytest.mark.long
@pytest.mark.parametrize('name', ODE)
def test_float32_is_float64_within_1e_3_from_1e3_to_1e_3(name):
    """The same steps from sigma = 1e3 to 1e-3 in both, on data of unit size, whose own ODE magnifies nothing."""
    law, start = oracle.gaussian(), 1e3 * np.random.default_rng(0).normal(size=(64, 1, 1, 4))
    sigmas = np.asarray(grids.karras(7.0, 1e-3, 1e3)(process.VE(), 40), np.float64)

    def run(dtype):
        x, levels, keys = jnp.asarray(start, dtype), jnp.asarray(sigmas, dtype), jax.random.split(jax.random.key(0), 64)
        return np.asarray(jax.jit(lambda x, s: conformance.SAMPLERS[name]()(law.images(), x, s, keys).x)(x, levels))

    single = run(jnp.float32)
    with jax.enable_x64(True):
        double = run(jnp.float64)
    assert single.dtype == np.float32 and double.dtype == np.float64
    assert np.abs(single - double).max() < 1e-3


@pytest.mark.long
@pytest.mark.parametrize('name', WEAK)
def test_more_steps_refine_the_same_picture(name):
    """The noise of a step belongs to the example and the noise level: the composition stays."""
    counts = (10, 20, steps_of(name))
    few, more, most = (np.asarray(draw(name, grids.karras()(process.VE(), n), 0)) for n in counts)
    other = np.asarray(draw(name, grids.karras()(process.VE(), counts[-1]), 1))
    close, closer = (np.corrcoef(a.ravel(), most.ravel())[0, 1] for a in (few, more))
    assert closer > close > 0.6, (close, closer)
    assert closer > 0.75
    assert np.corrcoef(other.ravel(), most.ravel())[0, 1] < 0.5


def test_brownian_paths_are_brownian():
    """Increments over any intervals: unit variance, uncorrelated where they do not overlap, additive."""
    keys = jax.random.split(jax.random.key(0), 20_000)
    levels = jnp.asarray([80.0, 3.0, 2.9, 2.899, 0.1, 1e-4])
    places = [brownian.place(keys, (), level) for level in levels]
    steps = jnp.stack([brownian.between(keys, a, b) for a, b in itertools.pairwise(places)])
    np.testing.assert_allclose(np.cov(steps), np.eye(5), atol=0.05)
    whole = brownian.between(keys, places[0], places[2])
    widths = np.log(levels[:-1] / levels[1:])
    parts = (steps[0] * np.sqrt(widths[0]) + steps[1] * np.sqrt(widths[1])) / np.sqrt(widths[0] + widths[1])
    np.testing.assert_allclose(whole, parts, atol=1e-4)


def test_ancestral_variance_is_ddpms_posterior():
    """Ho et al. 2006.11239, Eq. 7: one step from t to t' of a DDPM with a denoiser that is always 0."""
    forward, t, before = process.VP(), 0.6, 0.5
    level, level_before = forward.alpha(t) ** 2, forward.alpha(before) ** 2
    beta = 1 - level / level_before
    expected = (1 - level_before) / (1 - level) * beta
    sigmas = jnp.asarray([forward.nsr(t), forward.nsr(before)])
    keys = jax.random.split(jax.random.key(0), 100_000)
    zero = jnp.zeros((100_000, 1, 1, 1))
    found = samplers.ancestral()(lambda x, sigma: zero, zero, sigmas, keys).x
    np.testing.assert_allclose(np.var(found) * level_before, expected, rtol=0.02)


@pytest.mark.parametrize(
    'name, options',
    [
        ('ddim', dict(eta=1.5)),
        ('dpmpp_2m', dict(eta=-1.0)),
        ('unipc', dict(order=0)),
        ('restart', dict(low=1.0, high=0.5)),
    ],
)
def test_options_out_of_range_are_refused(name, options):
    with pytest.raises(ValueError, match='must|need'):
        conformance.SAMPLERS[name](**options)
