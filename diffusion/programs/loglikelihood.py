"""The metrics `bpd` and `nll` of `diffusion evaluate`: how probable a model finds its data."""

import dataclasses
import math

import jax
import numpy as np

from diffusion import build, usage
from diffusion.core import bound, dequantisation, divergence, likelihood, loss, randomness
from diffusion.programs import calls, solving
from diffusion.runtime import status

DEQUANTISATION = 'uniform'


def add_flags(parser) -> None:
    group = parser.add_argument_group('bpd and nll')
    group.add_argument('--probes', type=int, metavar='N', help='random directions an image (default: 1)')
    group.add_argument('--probe', choices=divergence.__all__, default='rademacher', help='(default: rademacher)')
    group.add_argument(
        '--dequantisation', choices=dequantisation.__all__, help=f'of 8-bit images (default: {DEQUANTISATION})'
    )
    group.add_argument('--bound', type=int, metavar='N', help='the variational bound of N ancestral steps as well')
    solving.add_flags(group)


@dataclasses.dataclass(frozen=True)
class Unit:
    """What a metric counts in. scale: values of it in a nat an image value."""

    name: str
    label: str
    scale: float


def bpd(run: build.Experiment, grid, args):
    """Bits a value of 8-bit images; an upper bound on them, by dequantisation."""
    if run.facts.dtype != 'uint8':
        raise ValueError(
            "bpd counts bits of 8-bit images; this run's data are numbers, which have a density: --metrics=nll"
        )
    return _metric(run, grid, args, Unit('bpd', 'bits/dim', 1 / math.log(2)), args.dequantisation or DEQUANTISATION)


def nll(run: build.Experiment, grid, args):
    """Nats a value of the density of data that are numbers."""
    if run.facts.dtype == 'uint8':
        raise ValueError("nll is of the density of numbers; this run's data are 8-bit images: --metrics=bpd")
    if args.dequantisation:
        raise ValueError("--dequantisation is for 8-bit images; this run's data are numbers: leave it out")
    return _metric(run, grid, args, Unit('nll', 'nats/dim of the density', 1.0), None)


def _metric(run, grid, args, unit, dequantised):
    """(weights, inputs, count, batch) -> the report, a dict of JSON values, and what to print of it."""
    method = solving.method(args)
    probes = _probes(args, math.prod(run.facts.shape))
    if args.bound is not None and args.bound < 1:
        raise ValueError(f'--bound={args.bound}: at least 1 step')
    low, high = map(float, run.process.nsr_range())
    noise = dequantised and getattr(dequantisation, dequantised)
    start = jax.random.key(args.seed)

    def exact(params, inputs):
        keys = _keys(start, 'likelihood', inputs)
        x, cond = _split(inputs)
        x, known = loss.to_unit(x), 0.0
        if noise:
            u, known = noise(randomness.substream(keys, 'dequantisation'), x.shape[1:], low)
            x, known = x + u, known[:, None]
        trace = getattr(divergence, args.probe)(randomness.substream(keys, 'probes'), x.shape[1:], probes)
        found = likelihood.log_density(build.denoise(run, params, cond), trace, x, low, high, method)
        return found._replace(value=found.value - known, code=None)

    def bounded(params, inputs):
        keys = _keys(start, 'bound', inputs)
        x, cond = _split(inputs)
        decoder = bound.eight_bit if noise else bound.gaussian
        levels = bound.levels(low, high, args.bound)
        return bound.variational(build.denoise(run, params, cond), loss.to_unit(x), levels, keys, decoder)

    def measure(weights, inputs, count, batch):
        scale = unit.scale / math.prod(run.facts.shape)
        found = _over(calls.compiled(calls.precise(exact), grid, batch, count), weights, inputs, count, unit.name)
        if not found.finished.all():
            raise usage.UsageError(solving.unfinished(int((~found.finished).sum()), count, args))
        report, lines = _summary(unit, -scale * found.value, found.nfe)
        report['protocol'] = {
            'dequantisation': dequantised,
            'probe': args.probe,
            'probes': probes,
            'solver': dataclasses.asdict(method),
            'sigma_min': low,
            'sigma_max': high,
            'bound_steps': args.bound,
        }
        if args.bound:
            parts = _over(calls.compiled(calls.precise(bounded), grid, batch, count), weights, inputs, count, 'bound')
            report['bound'] = _bound(unit, {name: scale * part for name, part in parts._asdict().items()})
            lines.append(
                f'bound {report["bound"]["value"]:.4f} ± {_shown(report["bound"]["standard_error"])} {unit.label} '
                f'({args.bound} steps)'
            )
        return report, lines

    return measure


def _probes(args, dims):
    if args.probe == 'exact':
        if args.probes is not None:
            raise ValueError('--probe=exact takes the trace itself: leave out --probes')
        divergence.check_exact(dims)
        return 1
    probes = 1 if args.probes is None else args.probes
    if probes < 1:
        raise ValueError(f'--probes={probes}: at least 1')
    return probes


def _keys(start, name, inputs):
    return randomness.examples(randomness.stream(start, name), inputs['index'])


def _split(inputs):
    return inputs['image'], {name: value for name, value in inputs.items() if name not in ('image', 'index')}


def _over(compiled, weights, inputs, count, name):
    """The results of all calls, end to end."""
    parts, done = [], 0
    with status.Status(name, count) as line:
        for part in compiled.over(weights, inputs, count):
            parts.append(part)
            done = min(done + compiled.batch, count)
            line.update(done)
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def _summary(unit, estimates, nfe):
    """estimates: [N, P] of each image and probe, in the unit."""
    count, probes = estimates.shape
    report = {
        'value': float(estimates.mean()),
        'standard_error': _error(estimates.mean(1)),
        'unit': unit.label,
        # What of the standard error comes of the probes, and would shrink with more of them.
        'probe_error': float(np.sqrt(estimates.var(1, ddof=1).mean() / probes / count)) if probes > 1 else None,
        'evaluations': {'mean': float(nfe.mean()), 'most': int(nfe.max())},
    }
    lines = [f'{unit.name} {report["value"]:.4f} ± {_shown(report["standard_error"])} {unit.label}']
    if probes > 1:
        lines[0] += f', of which the probes {report["probe_error"]:.4f}'
    lines.append(f'{nfe.mean():.0f} evaluations of the model an image, {nfe.max()} at most')
    return report, lines


def _bound(unit, parts):
    total = sum(parts.values())
    means = {name: float(part.mean()) for name, part in parts.items()}
    return {'value': float(total.mean()), 'standard_error': _error(total), 'unit': unit.label, **means}


def _error(values):
    """The standard error of the mean; None for one value, which tells nothing of it."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


def _shown(error):
    return 'unknown' if error is None else f'{error:.4f}'
