"""The forward and the reverse process of a run, level by level: what becomes of images of its data, and what its
sampler sees on the way to a sample."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import build
from diffusion.core import loss
from diffusion.programs import drawing, opening
from diffusion.runtime import ema

LEVELS = 8
DENOISED = 'D(x; σ)'
PICTURES, POINTS = 3, 512  # examples that are shown
# Of the config: where to compute, and where the data lie.
FREE = ('data.data_dir', 'data.path', 'runtime')


@dataclasses.dataclass(frozen=True)
class Strip:
    """labels: of the L levels; rows: (name, one picture a level, uint8 [L, H, W, C], or one cloud of points a level,
    float [L, N, 2]); said: what it shows."""

    labels: list[str]
    rows: list[tuple[str, np.ndarray]]
    said: str


@dataclasses.dataclass(frozen=True)
class Opened:
    """A run ready to be drawn from. data: the set, or the error that says why it is not here."""

    folder: str
    config: dict
    run: build.Experiment
    mesh: Any
    data: Any


def chosen(stored: dict, overrides: list[str]) -> dict:
    """The config of a run with what a call chooses, on the CPU where it says nothing else: an accelerator may be busy
    with this very run. Raises ValueError."""
    return opening.choose(stored, ['runtime.platform=cpu', 'runtime.devices=1', *overrides], FREE, 'reporting')


def opened(folder: str, overrides: list[str]) -> Opened:
    """Raises ValueError for a run that this version cannot build, or without its devices."""
    stored, facts = opening.read(folder)
    config = chosen(stored, overrides)
    run = build.experiment(stored, facts)
    mesh = opening.devices(folder, config, 1)
    return Opened(folder, config, run, mesh, _data(config, facts))


def _data(config, facts):
    try:
        data = build.source(config)
        if data.fingerprint != facts.fingerprint:
            return ValueError('the data here are not those of the training')
        return data
    except (ValueError, OSError) as error:
        return error


def forward(from_: Opened) -> Strip:
    """Images of the data at levels of the run's process, evenly spread in t. Raises ValueError without data."""
    run, data = from_.run, from_.data
    if isinstance(data, Exception):
        raise ValueError(str(data)) from data
    batch = data.gather(_spread(len(data), _count(run)), run.facts.shape[:2])
    x0 = loss.to_unit(batch['image'])
    t = np.linspace(run.process.t_min, run.process.t_max, LEVELS - 1, dtype=np.float32)
    sigma = np.asarray(run.process.nsr(t))
    noise = np.random.default_rng(run.train.seed).standard_normal(x0.shape, np.float32)
    # At one scale for every process: for a variance preserving one this is x_t itself.
    x = [(x0 + level * noise) / np.hypot(1, level) for level in sigma]
    labels = ['data', *(f't {time:.2f}, σ {level:.3g}' for time, level in zip(t.tolist(), sigma.tolist()))]
    said = f'{type(run.process).__name__}: images of the data and (x₀ + σ ε) / √(1 + σ²), at even steps in t.'
    return Strip(labels, _rows(run, np.stack([x0, *x]), _names(run, data, batch)), said)


def reverse(from_: Opened) -> Strip:
    """What the run's own sampler is given on its way, x, and what the model makes of it, D(x; sigma), with the averaged
    weights of the newest good checkpoint. Raises ValueError without one."""
    run, config, mesh = from_.run, from_.config, from_.mesh
    weights, step = opening.weights(from_.folder, run, mesh, ema.MAIN)
    cond, names = _conditions(run, from_.data)
    seen = []

    def watched(denoise):
        def watching(x, sigma):
            found = denoise(x, sigma)
            seen.append((float(sigma[0]), *(np.asarray(each) for each in (x, jax.tree.leaves(found)[0]))))
            return found

        return watching

    sampling = build.sampling(_compiled(run), config, around=watched)
    scale = jnp.float32(config['guidance'].get('scale', 1.0))
    seeds = jnp.arange(len(next(iter(cond.values()))) if cond else _count(run))
    # Step by step in Python, where `watched` sees numbers; the network alone is compiled.
    with jax.disable_jit():
        drawn = sampling(
            weights,
            seeds,
            jax.tree.map(jnp.asarray, cond),
            build.sigmas(run, config),
            scale,
            build.UNSTEERED.arrays(run),
        )
    kept = [seen[i] for i in _spread(len(seen), LEVELS - 1)]
    labels = [f'σ {sigma:.3g}' for sigma, _, _ in kept]
    end = loss.to_unit(np.asarray(drawn.x))
    x = np.stack([*(x / np.hypot(1, sigma) for sigma, x, _ in kept), end])
    denoised = np.stack([*(found for _, _, found in kept), end])
    rows = zip(_rows(run, x, names), _rows(run, denoised, [DENOISED] * len(names)))
    steps = 'steps of its own' if build.paces_itself(config) else f'{config["sample"]["steps"]} steps'
    said = (
        f'{config["sampler"]["name"]} sampler, {steps}, {len(seen)} evaluations, guidance {float(scale):g}, averaged '
        f'weights of step {step:,}, seeds 0 to {len(seeds) - 1}. Above x / √(1 + σ²), below D(x; σ), what the model '
        'expects the sample to be; at the end the sample itself.'
    )
    return Strip([*labels, 'sample'], [row for pair in rows for row in pair], said)


def _compiled(run):
    """The run whose network is compiled also where nothing else is."""

    def compiled(function):
        fast = jax.jit(function)

        def call(*args):
            with jax.disable_jit(False):
                return fast(*args)

        return call

    moments = run.moments and compiled(run.moments)
    return dataclasses.replace(run, denoiser=compiled(run.denoiser), moments=moments)


def _count(run):
    return PICTURES if is_picture(run.facts) else POINTS


def is_picture(facts: build.Facts) -> bool:
    """Whether examples are shown as pictures and not as points of the plane. Raises ValueError for neither."""
    height, width, channels = facts.shape
    if height * width * channels == 2:
        return False
    if height * width == 1 or channels not in (1, 3, 4):
        raise ValueError(f'data of {height} × {width} × {channels} are neither pictures nor points of the plane')
    return True


def _spread(length, count):
    """`count` places in range(length), the first and the last among them, or all."""
    return np.unique(np.linspace(0, length - 1, min(count, length)).round().astype(np.int64))


def _names(run, data, batch):
    if 'caption' in batch:
        return list(batch['caption'])
    if 'label' in batch and data.classes and is_picture(run.facts):
        return [data.classes[label] if label >= 0 else '' for label in batch['label']]
    return [''] * len(batch['image'])


def _conditions(run, data):
    """Captions of the data, or without these the config's unseen prompts; classes in turn; or seeds alone."""
    count, facts = _count(run), run.facts
    if facts.tokenizer:
        prompts = list(run.preview.unseen[:count])
        if not isinstance(data, Exception):
            prompts = data.gather(_spread(len(data), count), facts.shape[:2])['caption']
        opening.check_conditioned(run, prompts, ())
        return drawing.conditions(run, count, prompts=prompts), (prompts * count)[:count] or [''] * count
    labels = [facts.classes[i % len(facts.classes)] for i in range(count)] if facts.classes else []
    return drawing.conditions(run, count, labels=labels), labels if is_picture(facts) and labels else [''] * count


def _rows(run, x, names):
    """Rows of x: [L, N, H, W, C] in [-1, 1]: one an example, of pictures as bytes; one for all, of points."""
    if is_picture(run.facts):
        return list(zip(names, np.moveaxis(np.asarray(loss.to_uint8(x)), 1, 0)))
    return [(names[0], x.reshape(*x.shape[:2], 2))]
