"""The conformance table: what every method of `core` does to a law that is known exactly.

    python benchmarks/oracle.py --write=docs/conformance.md

The law is the Gaussian mixture of `tests/oracle.py`; the methods are enumerated from their modules. About three
minutes on one CPU core. Without --write the tables are printed.
"""

import argparse
import importlib.metadata
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from diffusion.core import (
    bound,
    density,
    divergence,
    grids,
    guidance,
    latents,
    likelihood,
    ode,
    precond,
    process,
    randomness,
    weighting,
)
from tests import conformance, oracle

LAW = oracle.plane()
COUNT = 20_000
# Of the two-sample Kolmogorov-Smirnov statistic of COUNT points each, exceeded once in 1,000 by equal laws.
CRITICAL = 1.95 * (2 / COUNT) ** 0.5


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--write', metavar='FILE', help='write the page there instead of printing it')
    args = parser.parse_args(argv)
    jax.config.update('jax_platforms', 'cpu')
    text = '\n'.join([HEAD.format(versions=_versions()), *(part() for part in PARTS)])
    if args.write:
        Path(args.write).write_text(text, encoding='utf-8')
    else:
        print(text)
    return 0


HEAD = """# Is the mathematics right?

Every method of `diffusion/core/` is run on a Gaussian mixture whose denoiser, score, density and samples are known in
closed form (`tests/oracle.py`). Nothing here is trained, so what is left is the error of the method. This page is
written by `python benchmarks/oracle.py --write=docs/conformance.md`, from the modules themselves; the tests in
`tests/core/` hold the same facts to fixed bounds. {versions}.
"""


def _versions() -> str:
    return ', '.join(f'{name} {importlib.metadata.version(name)}' for name in ('jax', 'numpy', 'scipy')) + ', on a CPU'


def table(title: str, text: str, columns: list[str], rows: list[list]) -> str:
    lines = [' | '.join(str(cell) for cell in row) for row in (columns, ['---'] * len(columns), *rows)]
    return '\n'.join([f'## {title}', '', text.strip(), '', *(f'| {line} |' for line in lines), ''])


def _progress(name: str) -> None:
    print(name, file=sys.stderr, flush=True)


def sampler_table() -> str:
    rows = [_sampler_row(name) for name in conformance.SAMPLERS]
    text = f"""
`--sampler=NAME`. *Order*: promised, and found from the slope of the error. Of ODE samplers that is the distance from
the solution of the probability-flow ODE (scipy, DOP853 at 1e-12) at N = 128, 256, 512; of stochastic ones ("weak") the
error of the variance that they give to a Gaussian, computed from their linear coefficients without any sampling, at
N = 512 and 1024. *Error* at N = 32 is the same distance or error. *Law*: the largest two-sample Kolmogorov-Smirnov
statistic over three directions between {COUNT:,} samples of N = 50 (first order and stochastic: 200) and as many exact
ones; equal laws exceed {CRITICAL:.3f} once in 1,000. *NFE*: evaluations of the denoiser, as counted and returned, for
N = 20. All from sigma = 80 to 0.002 on Karras's grid but for the orders, whose grid is refined evenly.
"""
    return table('Samplers', text, ['sampler', 'order', 'found', 'error, N = 32', 'law', 'NFE, N = 20'], rows)


def _sampler_row(name):
    _progress(name)
    promised = conformance.promise(name)
    found = error = '–'
    if promised.order:
        measure = conformance.weak_errors if promised.weak else conformance.ode_errors
        counts = np.array([512, 1024] if promised.weak else [128, 256, 512])
        found = f'{conformance.order(measure(name, counts), counts):.2f}'
        error = f'{measure(name, [32])[0]:.1e}'
    steps = 200 if promised.order == 1 or promised.weak or not promised.order else 50
    drawn = jax.jit(lambda sigmas: conformance.draw(LAW.images(), name, sigmas, (1, 1, 2), COUNT))
    points = np.asarray(drawn(grids.karras()(process.VE(), steps)).x).reshape(COUNT, 2)
    short = conformance.draw(LAW.images(), name, grids.karras()(process.VE(), 20), (1, 1, 2), 1)
    nfe = int(short.nfe[0]) if promised.nfe else f'{int(short.nfe[0])} (adaptive)'
    order = 'adaptive' if not promised.nfe else promised.order or 'none'
    return [f'`{name}`', f'{order}{" (weak)" if promised.weak else ""}', found, error, f'{_ks(points):.3f}', nfe]


def _ks(points) -> float:
    exact = np.asarray(LAW.sample(jax.random.key(99), len(points)))
    return max(_distance(points @ np.asarray(axis), exact @ np.asarray(axis)) for axis in ([1, 0], [0, 1], [0.6, 0.8]))


def _distance(a, b):
    every = np.sort(np.concatenate([a, b]))
    return np.max(np.abs(np.searchsorted(np.sort(a), every) - np.searchsorted(np.sort(b), every))) / len(a)


def adaptive_table() -> str:
    start, truth = conformance.ode_truth()
    x = jnp.asarray(start, jnp.float32).reshape(len(start), 1, 1, -1)
    rows = []
    for name in ode.__all__:
        for tolerance in (1e-2, 1e-3, 1e-4, 1e-5):
            sampler = getattr(ode, name)(rtol=tolerance, atol=tolerance)
            found = jax.jit(sampler, static_argnums=0)(LAW.images(), x, jnp.asarray([10.0, 1e-3, 0.0]), None)
            error = np.abs(np.asarray(found.x).reshape(truth.shape) - truth).mean()
            counts = (found.nfe, found.accepted, found.rejected)
            rows.append([f'`{name}`', f'{tolerance:g}', f'{error:.1e}', *(f'{np.mean(c):.1f}' for c in counts)])
    text = """
rtol = atol. Mean distance from the solution of the ODE from sigma = 10, in float32; evaluations, accepted and rejected
steps are means over 64 examples, each of which takes steps of its own.
"""
    columns = ['solver', 'tolerance', 'error', 'NFE', 'accepted', 'rejected']
    return table('Adaptive solvers', text, columns, rows)


def refinement_table() -> str:
    rows = []
    for name in conformance.SAMPLERS:
        if not conformance.promise(name).weak:
            continue
        _progress(f'{name}: refinement')
        points = {}
        for seed, steps in ((0, 10), (0, 20), (0, 40), (0, 80), (1, 80)):
            sigmas = grids.karras()(process.VE(), steps)
            points[seed, steps] = np.asarray(conformance.draw(LAW.images(), name, sigmas, (1, 1, 2), 2_000, seed).x)
        finest = points[0, 80].ravel()
        others = [points[key].ravel() for key in ((0, 10), (0, 20), (0, 40), (1, 80))]
        rows.append([f'`{name}`', *(f'{np.corrcoef(other, finest)[0, 1]:.3f}' for other in others)])
    text = """
Correlation, over 2,000 seeds, of the samples of N steps with those of 80 steps from the same seeds; the last column is
what other seeds give. The noise of a step is the increment of the example's own Brownian path between two noise levels,
so more steps refine the same picture. Where few steps decide for another mode of the mixture, they differ.
"""
    return table('The same seed with more steps', text, ['sampler', '10', '20', '40', 'another seed'], rows)


def process_table() -> str:
    rows = []
    for name in conformance.PROCESSES:
        forward = conformance.PROCESSES[name]()
        low, high = (float(value) for value in forward.nsr_range())
        t = jnp.linspace(forward.t_min, forward.t_max, 2001)[1:-1]
        inverse = np.max(np.abs(np.asarray(forward.nsr_inverse(forward.nsr(t)) - t)))
        drawn = jax.jit(lambda sigmas: conformance.draw(LAW.images(), 'heun', sigmas, (1, 1, 2), COUNT))
        points = np.asarray(drawn(grids.karras()(forward, 60)).x).reshape(COUNT, 2)
        rows.append([f'`{name}`', f'{low:.2g} – {high:.3g}', f'{inverse:.0e}', f'{_ks(points):.3f}'])
    text = f"""
`--config.process.name=NAME`. The noise-to-signal ratios that it spans, the largest |nsr_inverse(nsr(t)) - t| in
float32, and the law of Heun's samples on its range as above ({CRITICAL:.3f}). Drift, diffusion and the reverse SDE of
each are held to the moments' equations in `tests/core/test_sde.py` and `test_process.py`.
"""
    return table('Processes', text, ['process', 'sigma', 'inverse', 'law'], rows)


def precision_table() -> str:
    levels = (1e-3, 1e-1, 1.0, 1e1, 1e3)
    rows = []
    for row in precond.__all__:
        for kind in ('float32', 'bfloat16'):
            errors = [conformance.denoiser_error(row, level, kind) for level in levels]
            rows.append([f'`{row}`', kind, *(f'{error:.0e}' for error in errors)])
    text = """
`--config.precond.name=NAME`: error of D, root mean square, where the network is the exact one and rounds its output to
the type given; data have unit size. It is the rounding of F times |c_out|: with `eps`, noise at sigma = 1000 leaves
nothing of the image in bfloat16, which `edm`, `v`, `x0` and `flow` do not suffer from.
"""
    return table('Prediction types and precision', text, ['row', 'F in', *(f'sigma = {s:g}' for s in levels)], rows)


def grid_table() -> str:
    rows = []
    for name in grids.__all__:
        sigmas = np.asarray(getattr(grids, name)()(process.VP(), 20))
        assert len(sigmas) == 21 and sigmas[-1] == 0
        rows.append([f'`{name}`', len(sigmas) - 1, *(f'{s:.3g}' for s in sigmas[[0, 10, -2, -1]])])
    text = '`--grid=NAME`: the noise levels of 20 steps of the VP process.'
    return table('Grids', text, ['grid', 'steps', 'first', 'middle', 'last but one', 'last'], rows)


def training_table() -> str:
    u = (jnp.arange(4000) + 0.5) / 4000
    rows = []
    for name in density.__all__:
        sigma = np.asarray(getattr(density, name)()(process.VP(), u))
        rows.append([f'`density.{name}`', ', '.join(f'{q:.3g}' for q in np.quantile(sigma, [0.1, 0.5, 0.9]))])
    for name in weighting.__all__:
        weight = np.asarray(conformance.weight(name, jnp.asarray([0.01, 1.0, 100.0])))
        rows.append([f'`weighting.{name}`', ', '.join(f'{w:.3g}' for w in weight)])
    text = """
Densities: sigma at the quantiles 0.1, 0.5, 0.9 of the VP process. Weightings: the weight on |D - x0|² at sigma = 0.01,
1 and 100, of a network that predicts noise.
"""
    return table('What training sees', text, ['', 'values'], rows)


def guidance_table() -> str:
    cond = {'label': jnp.asarray([0, 1, 2, 0, 1, 2])}
    null = {'label': jnp.full(6, -1)}
    x, sigma = jax.random.normal(jax.random.key(0), (6, 1, 1, 2)), jnp.asarray([1e-3, 0.2, 0.5, 1.0, 10.0, 1e3])
    x = x * (1 + sigma[:, None, None, None])
    batches = []

    def conditional(x, sigma, cond):
        batches.append(len(x))
        return LAW.conditional()(x, sigma, cond)

    rows = []
    for name in guidance.__all__:
        beside = guidance.Beside(null, weak=lambda x, sigma, cond: conditional(x, sigma, null))

        def at(scale, name=name, beside=beside):
            rule = getattr(guidance, name)
            return (rule(scale) if name != 'none' else rule())(conditional, cond, beside)(x, sigma)

        plain = np.asarray(jax.jit(lambda: conditional(x, sigma, cond))())
        one = np.abs(np.asarray(jax.jit(lambda at=at: at(1.0))()) - plain).max()
        batches.clear()
        finite = 'yes' if np.isfinite(at(3.0)).all() else 'NO'
        rows.append([f'`{name}`', f'{one:g}', ' + '.join(str(n // 6) for n in batches), finite])
    text = """
`--config.guidance.name=NAME`. The largest difference from the conditional model at scale 1; the batches that one
evaluation calls the network with, in multiples of the images; and whether scale 3 is finite from sigma = 1e-3 to 1e3.
What each rule computes is held to the exact tilted and conditional laws in `tests/core/test_guidance.py`.
"""
    return table('Guidance', text, ['rule', 'difference at scale 1', 'batches', 'finite'], rows)


def likelihood_table() -> str:
    rows, low, high = [], 0.01, 3000.0
    for law in (oracle.plane(), oracle.gaussian(16), oracle.several(16), oracle.gaussian(64)):
        _progress(f'likelihood, {law.dim} dimensions')
        x = law.sample(jax.random.key(2), 128)
        keys = randomness.examples(jax.random.key(0), jnp.arange(128))
        exact = likelihood.bits_per_dim(law.log_density(x, jnp.full(128, low)), law.dim)
        for probe, count in (('exact', 1), ('rademacher', 8), ('gaussian', 8)):
            trace = getattr(divergence, probe)(keys, x.shape[1:], count)
            found = jax.jit(likelihood.log_density, static_argnums=(0, 1, 5))(
                law.denoise, trace, x, low, high, ode.Method()
            )
            bits = likelihood.bits_per_dim(found.value, law.dim)
            spread = np.std(np.asarray(bits).mean(0), ddof=1) / count**0.5 if count > 1 else 0
            off = float(jnp.mean(bits) - jnp.mean(exact))
            bar = f'± {spread:.1e}' if count > 1 else ''
            kind = f'{len(law.weights)} × {law.dim}'
            rows.append([kind, probe, f'{float(jnp.mean(exact)):.4f}', f'{off:+.1e} {bar}', f'{found.nfe.mean():.0f}'])
        for steps in (10, 100, 1000):
            levels = bound.levels(low, high, steps)
            terms = jax.jit(bound.variational, static_argnums=(0, 4))(law.denoise, x, levels, keys, bound.gaussian)
            # The bound is on the density of x_0 itself, the ODE's on that of x at sigma = low.
            clean = likelihood.bits_per_dim(law.log_density(x, jnp.zeros(128)), law.dim)
            off = float(jnp.mean(likelihood.bits_per_dim(-sum(terms), law.dim)) - jnp.mean(clean))
            rows.append([kind, f'bound, {steps} steps', f'{float(jnp.mean(clean)):.4f}', f'{off:+.1e}', steps + 1])
        found = jax.jit(latents.encode, static_argnums=(0, 4))(law.denoise, x, low, high, ode.Method())
        back = jax.jit(latents.decode, static_argnums=(0, 4))(law.denoise, found.state, low, high, ode.Method())
        error = float(jnp.max(jnp.abs(back.state - x)))
        rows.append([kind, 'decode(encode(x))', '', f'{error:.1e} at most', f'{found.nfe.mean():.0f}'])
    text = """
Bits per dimension of 128 samples by the probability-flow ODE at sigma = 0.01, less the exact value, for mixtures of K
Gaussians in d dimensions (K × d): exact trace, and Skilling-Hutchinson with 8 probes and its error bar; the variational
bound, less the exact value at sigma = 0; the largest error of a picture that is encoded and decoded.
"""
    return table('Likelihood and latent codes', text, ['law', 'method', 'exact', 'difference', 'NFE'], rows)


PARTS = (
    sampler_table,
    adaptive_table,
    refinement_table,
    process_table,
    grid_table,
    precision_table,
    training_table,
    guidance_table,
    likelihood_table,
)

if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
