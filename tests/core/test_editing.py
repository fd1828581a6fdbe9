"""Editors on laws whose posterior is known in closed form."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.core import (
    chain,
    editing,
    editing_guided,
    editing_stepped,
    grids,
    operators,
    process,
    randomness,
    samplers,
)
from tests import inverse, oracle

COUNT = 1000
SIGMAS = grids.karras()(process.VE(sigma_min=0.005, sigma_max=80.0), 30)


def led(problem, editor):
    """The denoiser that an editor hands to its sampler: (x: [B, H, W, C], sigma) -> [B, D]."""

    def shown(denoise, x, sigmas, keys):
        return denoise(x, sigmas)

    return lambda x, sigma: editor(shown, problem.measurement())(problem.law.images(), x, sigma, None)


@pytest.mark.parametrize('name,noise', [('mask', 0.0), ('downsample', 0.0), ('grey', 0.0), ('blur', 0.3)])
def test_guided_denoisers_are_those_of_the_exact_posterior(name, noise):
    """Moment matching for any Gaussian; ΠGDM for one of independent values of its spread."""
    problem = inverse.problem(name, 1, noise)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(6, *problem.shape)), jnp.float32)
    sigma = jnp.asarray([0.05, 0.2, 0.5, 1.0, 3.0, 30.0])
    x = x * (1 + sigma[:, None, None, None])
    plain = problem._replace(
        law=oracle.Mixture(np.ones(1), np.full((1, 0 + x[0].size), 0.2), 0.49 * np.eye(x[0].size)[None])
    )
    cases = (problem, editing_guided.mmps(iterations=16)), (plain, editing_guided.pigdm(spread=0.7))
    for law, editor in cases:
        found = np.asarray(jax.jit(led(law, editor))(x, sigma)).reshape(len(x), -1)
        exact = law.posterior().denoise(x.reshape(len(x), -1), sigma)
        np.testing.assert_allclose(found, exact, atol=3e-3)


def test_conjugate_gradients_solve_each_example():
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(3, 5, 4))
    matrices = jnp.asarray(roots @ roots.transpose(0, 2, 1), jnp.float32)  # singular, of rank 4
    right = jnp.einsum('bij,bj->bi', matrices, jnp.asarray(rng.normal(size=(3, 5)), jnp.float32)).at[2].set(0.0)
    multiply = functools.partial(jnp.einsum, 'bij,bj->bi', matrices)
    found = editing_guided.conjugate_gradients(multiply, right, 12)
    wanted = np.stack([np.linalg.pinv(a, rcond=1e-5) @ b for a, b in zip(np.asarray(matrices, float), right)])
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)


@functools.cache
def error(name, **options):
    problem = inverse.problem('mask', 3)
    return inverse.error(
        problem, inverse.points(inverse.sampled(problem, inverse.EDITORS[name](**options), len(SIGMAS) - 1, COUNT))
    )


def test_replacement_has_its_known_error_and_repaint_and_pigdm_a_smaller_one():
    """Of the mean, in deviations of the exact posterior of half of the pixels of a mixture; 0.03 is chance."""
    plain, again, guided = error('replacement'), error('repaint', resamplings=6), error('pigdm')
    assert plain.mean > 0.5 and again.mean < 0.5 * plain.mean and guided.mean < 0.8 * plain.mean
    assert abs(again.spread - 1) < 0.25 and abs(guided.spread - 1) < 0.25 and plain.spread > 1.3


@pytest.mark.long
def test_dps_and_ddnm_are_biased_as_they_say():
    assert error('dps').mean < 0.5 and 0.6 < error('dps').spread < 1.1
    # The law of the known part is that of replacement, but for its dependence between levels.
    assert abs(error('ddnm').mean - error('replacement').mean) < 0.2


@pytest.mark.long
@pytest.mark.parametrize('name,operator', [('replacement', 'blur'), ('repaint', 'downsample'), ('ddnm', 'grey')])
def test_a_measurement_without_noise_is_met(name, operator):
    problem = inverse.problem(operator)
    points = inverse.points(inverse.sampled(problem, inverse.EDITORS[name](), 4, 8))
    seen = points @ inverse.matrix(problem.operator, problem.shape).T
    np.testing.assert_allclose(seen, np.broadcast_to(problem.value.ravel(), seen.shape), atol=2e-4)


def test_ddnm_counts_the_noise_of_the_measurement_as_noise_of_the_step():
    """Where the prediction is the truth, x' - truth has variance sigma'**2 in every direction, over draws of y too."""
    operator = operators.blur(0.7)
    noise, start = np.random.default_rng(0).normal(size=(2, 4000, 4, 4, 1)).astype(np.float32)
    noise = 0.4 * noise
    measurement = operators.Measurement(operator, noise, 0.4)
    sample = editing_stepped.ddnm()(None, measurement)
    for sigma, following in ((2.0, 1.5), (0.5, 0.3), (0.5, 0.0)):
        levels = jnp.asarray([sigma, following])
        own = randomness.examples(jax.random.key(3), jnp.arange(len(noise)))
        found = jax.jit(lambda x, s, k: sample(lambda x, sigma: jnp.zeros_like(x), x, s, k).x)(
            sigma * start, levels, own
        )
        variance = np.var(np.asarray(found).reshape(len(noise), -1), 0)
        np.testing.assert_allclose(variance, following**2, rtol=0.12, atol=1e-6)


def test_repaint_goes_up_and_down_again():
    # The route of the authors' README for single jumps taken twice, from 249 down.
    route = editing_stepped.there_and_back(250, 2, 1)
    assert (249 - route[:10]).tolist() == [249, 248, 249, 248, 247, 248, 247, 246, 247, 246]
    route = editing_stepped.there_and_back(9, 3, 4)
    assert np.all(np.abs(np.diff(route)) == 1) and route[0] == 0 and route[-1] == 9 and np.sum(route == 9) == 1
    assert np.sum(np.diff(route) > 0) == 9 + 2 * 4 * 2


def test_sdedit_on_a_gaussian_is_its_exact_flow():
    """From x + sigma z the flow gives a normal law around the mean of the data, whose moments follow from its map."""
    law, picture = oracle.gaussian(2), np.float32([[[[1.5, -0.5]]]])
    sigmas = editing.shortened(grids.karras()(process.VE(), 40), 0.4)
    assert len(sigmas) == 17
    keys = randomness.examples(jax.random.key(0), jnp.arange(4000))
    drawn = jax.jit(lambda s: chain.generate(law.images(), samplers.heun(), s, keys, (1, 1, 2), picture).x)(sigmas)
    ends = oracle.flow_map(law, np.asarray([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), float(sigmas[0]))
    shift, matrix = ends[0], (ends[1:] - ends[0]).T
    points = np.asarray(drawn).reshape(-1, 2)
    deviation = float(sigmas[0]) * np.sqrt(np.diag(matrix @ matrix.T))
    assert np.all(np.abs(points.mean(0) - shift - matrix @ picture.ravel()) < 5 * deviation / 4000**0.5 + 2e-3)
    np.testing.assert_allclose(np.cov(points.T), sigmas[0] ** 2 * matrix @ matrix.T, rtol=0.12, atol=2e-3)
    for strength in (0.0, 1.2):
        with pytest.raises(ValueError, match='above 0'):
            editing.shortened(sigmas, strength)


@pytest.mark.long
def test_a_soft_mask_of_one_value_is_sdedit_and_a_hard_one_replacement():
    law, picture = oracle.plane(), jnp.asarray([[[[1.0, 0.5]]]])
    keys = randomness.examples(jax.random.key(0), jnp.arange(2000))
    start = chain.initial_noise(keys, (1, 1, 2), SIGMAS[0])

    def soft(change):
        measurement = operators.Measurement(operators.mask(jnp.ones(2)), picture, change=jnp.asarray(change))
        sample = editing_stepped.differential()(None, measurement)
        return np.asarray(jax.jit(lambda x: sample(law.images(), x, SIGMAS, keys).x)(start)).reshape(-1, 2)

    found = soft([0.5, 0.5])
    short = editing.shortened(SIGMAS, 0.5)
    drawn = jax.jit(lambda s: chain.generate(law.images(), samplers.ancestral(), s, keys, (1, 1, 2), picture).x)(short)
    wanted = np.asarray(drawn).reshape(-1, 2)
    np.testing.assert_allclose(found.mean(0), wanted.mean(0), atol=0.07)
    np.testing.assert_allclose(np.cov(found.T), np.cov(wanted.T), atol=0.07)
    half = soft([0.0, 1.0])
    assert np.all(half[:, 0] == 1.0) and half[:, 1].std() > 0.1
    np.testing.assert_array_equal(soft([0.0, 0.0]), np.broadcast_to(picture.reshape(1, 2), (2000, 2)))


@pytest.mark.long
@pytest.mark.parametrize('name', ['repaint', 'mmps'])
def test_an_example_does_not_depend_on_its_batch(name):
    problem = inverse.problem('mask')
    many, few = (inverse.sampled(problem, inverse.EDITORS[name](), 3, count).x for count in (5, 2))
    np.testing.assert_allclose(many[:2], few, atol=2e-4)


def test_the_page_names_every_method():
    text = (pathlib.Path(__file__).parents[2] / 'docs' / 'inverse.md').read_text(encoding='utf-8')
    missing = [name for name in inverse.EDITORS if f'`{name}`' not in text]
    assert not missing, f'write the page anew: python benchmarks/inverse.py --write=docs/inverse.md ({missing})'


@pytest.mark.parametrize(
    'make',
    [
        lambda: editing_guided.pigdm(0.0),
        lambda: editing_guided.mmps(0),
        lambda: editing_stepped.dps(-1.0),
        lambda: editing_stepped.repaint(0),
    ],
)
def test_options_out_of_range_are_refused(make):
    with pytest.raises(ValueError):
        make()
