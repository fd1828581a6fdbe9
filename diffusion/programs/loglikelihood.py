"""The metrics `bpd` and `nll` of `diffusion evaluate`: how probable a model finds its data."""

import collections
import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from diffusion import build, usage
from diffusion.core import bound, dequantisation, divergence, likelihood, loss, randomness
from diffusion.programs import blocks, calls, opening, results, solving

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


@dataclasses.dataclass(frozen=True)
class Examples:
    """What is measured. arrays: [N, ...], 'image', the conditions in use, 'index'; batch: examples a call."""

    arrays: dict
    batch: int
    seed: int
    fingerprint: str

    def __len__(self):
        return len(self.arrays['index'])


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """A metric of a run. asked: how it is computed, JSON values; dims: values of an image; programs: (batch, count) ->
    `calls.Calls` by name, compiled once; unfinished: (images, count) -> what to say of those without a result."""

    unit: Unit
    asked: dict
    dims: int
    programs: Callable[[int, int], dict[str, calls.Calls]]
    unfinished: Callable[[int, int], str]

    def request(self, examples: Examples, weights: str) -> dict:
        """The protocol, which is known before anything is computed."""
        chosen = {'fingerprint': examples.fingerprint, 'count': len(examples), 'seed': examples.seed}
        return {'metric': self.unit.name, **chosen, 'weights': weights, **self.asked}

    def batch(self, examples: Examples) -> int:
        return self.programs(examples.batch, len(examples))['exact'].batch

    def blocks(self, folder: Path, examples: Examples, taken: opening.Taken) -> blocks.Blocks:
        """Where the estimates of a checkpoint are kept; the same for any number of examples."""
        about = {'checkpoint': taken.mark, 'fingerprint': examples.fingerprint, 'seed': examples.seed, **self.asked}
        name = f'{self.unit.name}_step_{taken.step}'
        return blocks.plan(folder, name, about, len(examples), self.batch(examples))

    def measure(self, examples, chosen, taken, kept, slugs, at) -> list[results.Result] | None:
        """See `cells.Cell`. chosen: `blocks.asked`."""
        compute = functools.partial(self.estimate, taken.weights, examples)
        found = kept.fill(self.unit.name, chosen, at, compute)
        if found is None:
            return None
        report, lines = self.summary(found)
        asked = self.request(examples, taken.name)
        return [results.Result(self.unit.name, self.unit.name, report, asked, '', tuple(lines))]

    def estimate(self, weights, examples: Examples, span, report=lambda done: None) -> dict[str, np.ndarray]:
        """What the programs find of the examples from span[0] to span[1], 'PROGRAM FIELD' to [n, ...]."""
        programs = self.programs(examples.batch, len(examples))
        found: dict[str, list] = collections.defaultdict(list)
        count, done = span[1] - span[0], 0
        rows_of = functools.partial(_rows, examples.arrays, span[0])
        for name, compiled in programs.items():
            for part in compiled.over(weights, rows_of, count):
                arrays = {field: value for field, value in part._asdict().items() if value is not None}
                for field, value in arrays.items():
                    found[f'{name} {field}'].append(value)
                done += len(value)
                report(done // len(programs))
        joined = {key: np.concatenate(parts) for key, parts in found.items()}
        late = int((~joined['exact finished']).sum())
        if late:
            raise usage.UsageError(self.unfinished(late, count))
        return joined

    def summary(self, found: dict[str, np.ndarray]) -> tuple[dict, list[str]]:
        """JSON values, and what to print of them."""
        scale = self.unit.scale / self.dims
        report, lines = _summary(self.unit, -scale * found['exact value'], found['exact nfe'])
        parts = {key.split()[1]: scale * value for key, value in found.items() if key.startswith('bound ')}
        if parts:
            report['bound'] = _bound(self.unit, parts)
            value, error = report['bound']['value'], _shown(report['bound']['standard_error'])
            lines.append(f'bound {value:.4f} ± {error} {self.unit.label} ({self.asked["bound_steps"]} steps)')
        return report, lines


def _rows(arrays, start, rows):
    return {name: value[start + rows] for name, value in arrays.items()}


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

    @functools.cache
    def programs(batch, count):
        found = {'exact': exact, 'bound': bounded} if args.bound else {'exact': exact}
        return {name: calls.compiled(calls.precise(one), grid, batch, count) for name, one in found.items()}

    asked = {
        'dequantisation': dequantised,
        'probe': args.probe,
        'probes': probes,
        'solver': dataclasses.asdict(method),
        'sigma_min': low,
        'sigma_max': high,
        'bound_steps': args.bound,
    }
    unfinished = functools.partial(_unfinished, args)
    return Likelihood(unit, asked, math.prod(run.facts.shape), programs, unfinished)


def _unfinished(args, late, count):
    return solving.unfinished(late, count, args)


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
