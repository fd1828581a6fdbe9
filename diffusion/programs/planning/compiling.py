"""The programs of a run, compiled for devices that are not there: nothing is computed, shapes stand for arrays."""

import contextlib
import dataclasses
import os
import re
import sys
import time

import jax
import numpy as np

from diffusion import build, usage
from diffusion.programs import drawing, loglikelihood, steps
from diffusion.runtime import hlo, mesh, state, topology, vitals

Memory = dict[str, int]


@dataclasses.dataclass(frozen=True)
class Built:
    """A compiled program. seconds: it took to compile; memory: bytes a device, by part; cost: of a device, None where
    it is not known; refused: what the compiler says, '' where it fits."""

    name: str
    seconds: float
    memory: Memory
    cost: hlo.Cost | None
    refused: str = ''


def training(run: build.Experiment, grid, where: topology.Topology) -> list[Built]:
    """The step that `diffusion train` compiles, for each shape of the images."""
    target = abstract(run, grid)
    named = len(run.facts.shapes) > 1
    found = []
    for shape in run.facts.shapes:
        name = f'train {shape[0]}x{shape[1]}' if named else 'train'
        step = steps.jitted(run, grid, target)
        lowered = _lowered(lambda shape=shape, step=step: step.lower(target, run.batch_shapes(shape)))
        found.append(_built(name, lowered, where))
    return found


def sampling(run: build.Experiment, grid, where: topology.Topology) -> Built:
    """The sampler of the sheets that a training draws, with its weights where the training has them."""
    config = run.config
    artist = drawing.artist(run, config, grid, config['sample']['batch'])
    weights = abstract(run, grid).ema['ema']
    everywhere = mesh.replicated(grid)
    fixed = _shapes((artist.sigmas, artist.scale, artist.beside), everywhere)
    inputs = {name: value[None] for name, value in run.null.items()} | {'seed': np.zeros(1, np.int32)}
    rows = _rows(inputs, artist.calls.batch, grid)
    return _built('sample', _lowered(lambda: artist.calls.function.lower((weights, *fixed), rows)), where, 1)


def evaluation(run: build.Experiment, grid, where: topology.Topology) -> Built:
    """The likelihood of `diffusion evaluate --metrics=bpd` (nll of data that are numbers) with its default flags, on a
    mesh whose devices hold all weights each, as there."""
    flat = mesh.make(list(grid.devices.flat))
    parser = usage.Parser('evaluate', '')
    loglikelihood.add_flags(parser)
    args, _ = parser.parse([])
    args.seed = 0
    metric = (loglikelihood.bpd if run.facts.dtype == 'uint8' else loglikelihood.nll)(run, flat, args)
    batch = run.config['sample']['batch']
    call = metric.programs(batch, batch)['exact']
    weights = _shapes(jax.eval_shape(run.network.init, jax.random.key(0)), mesh.replicated(flat))
    image = np.zeros((1, *run.facts.shape), run.facts.dtype)
    inputs = {'image': image, 'index': np.zeros(1, np.int32)} | {n: v[None] for n, v in run.null.items()}
    rows = _rows(inputs, call.batch, flat)
    return _built('evaluate', _lowered(lambda: call.function.lower(weights, rows)), where, 1)


def abstract(run: build.Experiment, grid) -> state.TrainState:
    return state.abstract(grid, run.network.init, run.optimizer, run.memory, run.ema)


def _shapes(tree, place):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), _dtype(x), sharding=place), tree)


def _dtype(x):
    return x.dtype if hasattr(x, 'dtype') else np.asarray(x).dtype


def _rows(inputs, batch, grid):
    place = mesh.batched(grid)
    return {
        name: jax.ShapeDtypeStruct((batch, *np.shape(value)[1:]), _dtype(value), sharding=place)
        for name, value in inputs.items()
    }


def _lowered(make):
    begin = time.monotonic()
    return make(), begin


def _built(name, lowered, where, unknown=None) -> Built:
    program, begin = lowered
    try:
        compiled = program.compile(where.options)
    except jax.errors.JaxRuntimeError as error:
        return Built(name, time.monotonic() - begin, {}, None, refusal(error))
    seconds = time.monotonic() - begin
    found = compiled.memory_analysis()
    memory = {
        'arguments': found.argument_size_in_bytes,
        'temporaries': found.temp_size_in_bytes,
        # What goes out into the memory of what came in costs none of its own.
        'results': found.output_size_in_bytes - found.alias_size_in_bytes,
        'program': found.generated_code_size_in_bytes,
    }
    return Built(name, seconds, {**memory, 'peak': sum(memory.values())}, _cost(compiled, where, unknown))


def _cost(compiled, where, unknown) -> hlo.Cost | None:
    """None for a program that this version of JAX cannot write as text: the compiler's own may be newer."""
    try:
        with _silent():
            text = compiled.as_text()
    except jax.errors.JaxRuntimeError:
        return None
    return hlo.cost(text, where.devices, unknown, vitals.RARE)


@contextlib.contextmanager
def _silent():
    """What libraries write to the standard error past Python is lost, of which a stack of theirs would be pages."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


# As it says it before and after it has laid out the memory.
_SIZES = (
    re.compile(r'Used ([\d.]+[KMGT]?) of ([\d.]+[KMGT]?) hbm'),
    re.compile(r'required for [^(]*\(([\d.]+[KMGT]?)\) exceeds available HBM \(([\d.]+[KMGT]?)\)'),
    re.compile(r'\(([\d.]+[KMGT]?)\) exceeds [^(]*\(([\d.]+[KMGT]?)\)'),
)


def refusal(error) -> str:
    """One line of the page that the compiler writes. Raises `error` where it is about something else than memory."""
    text = ' '.join(str(error).split())
    for pattern in _SIZES:
        if sizes := pattern.search(text):
            return f'needs {sizes[1]}iB of the {sizes[2]}iB that a device has'
    if 'RESOURCE_EXHAUSTED' in text or 'Oom' in text:
        return text[:300]
    raise error


def needed(built: Built) -> float | None:
    """Bytes a device: the peak, or what a refusal names; None where it names none."""
    if not built.refused:
        return built.memory['peak']
    found = re.match(r'needs ([\d.]+)([KMGT]?)iB', built.refused)
    return float(found[1]) * 1024 ** ' KMGT'.index(found[2] or ' ') if found else None
