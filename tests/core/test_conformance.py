"""What the parts do together, by enumeration: every process with the likelihood, every guidance with the samplers; and
whether the conformance page names all there is."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import build
from diffusion.core import chain, divergence, grids, guidance, likelihood, ode, process, randomness
from tests import conformance, oracle

LAW = oracle.plane()
PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'conformance.md'


@jax.jit
def log_density(x, low, high):
    trace = divergence.exact(None, x.shape[1:], 1)
    return likelihood.log_density(LAW.denoise, trace, x, low, high, ode.Method()).value[:, 0]


@pytest.mark.parametrize('name', conformance.PROCESSES)
def test_bits_per_dim_over_the_range_of_every_process(name):
    """Within 1e-3 of exact, and what the normal prior misses at a small sigma_max: m / (2 sigma_max**2) nats."""
    low, high = conformance.PROCESSES[name]().nsr_range()
    low = jnp.maximum(low, 1e-3)  # below, the exact law itself is at the end of float32
    x = LAW.sample(jax.random.key(2), 128)
    exact = LAW.log_density(x, jnp.full(128, low))
    missed = np.mean(np.asarray(x) ** 2) / (2 * float(high) ** 2)
    found = likelihood.bits_per_dim(log_density(x, low, high), 2)
    bound = 1e-3 + 2 * missed / np.log(2)
    assert abs(np.mean(found) - np.mean(likelihood.bits_per_dim(exact, 2))) < bound


@pytest.mark.parametrize('name', guidance.__all__)
def test_samples_of_every_guidance_at_scale_one_are_conditional(name):
    conditional, part = LAW.conditional(), LAW.component(1)

    @jax.jit
    def draw(sigmas, scale):
        keys = randomness.examples(jax.random.key(0), jnp.arange(2_000))
        wanted, null = {'label': jnp.ones(2_000, jnp.int32)}, {'label': jnp.full(2_000, -1)}
        beside = guidance.Beside(null, weak=lambda x, sigma, cond: conditional(x, sigma, null))
        make = getattr(guidance, name)
        rule = (make(scale) if name != 'none' else make())(conditional, wanted, beside)
        sampler = conformance.SAMPLERS['dpmpp_2m']()
        return chain.generate(rule, sampler, sigmas, keys, (1, 1, 2)).x.reshape(-1, 2)

    points = np.asarray(draw(grids.karras()(process.VE(), 40), 1.0))
    np.testing.assert_allclose(points.mean(0), part.mean(), atol=5 * 0.4 / np.sqrt(2_000))
    np.testing.assert_allclose(np.cov(points.T), part.cov(), atol=0.03)


def test_the_page_names_every_method():
    text = PAGE.read_text(encoding='utf-8')
    names = [
        f'`{name}`' for section in ('sampler', 'process', 'grid', 'precond', 'guidance') for name in names_of(section)
    ]
    names += [f'`{section}.{name}`' for section in ('density', 'weighting') for name in names_of(section)]
    missing = [name for name in names if name not in text]
    assert not missing, f'write the page anew: python benchmarks/oracle.py --write=docs/conformance.md ({missing})'


def names_of(section):
    return build.SCHEMA[section].constructors
