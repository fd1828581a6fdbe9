"""`diffusion train --replay=INCIDENT`: computes a step again that the guard skipped, and says which layers and examples
it broke on."""

import contextlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import build, usage
from diffusion import config as configs
from diffusion.data import pipeline
from diffusion.programs import beginning, logbook, opening, steps
from diffusion.runtime import checkpoint, guard, incidents, mesh, state, status, writer

# Of the config: where to compute, and where the data lie.
FREE = ('data.data_dir', 'runtime')


def main(folder: str, overrides: list[str]) -> int:
    """Exit status 0 where the step is skipped again, 1 where it is not, 2 for a wrong call."""
    with usage.checked():
        found = incidents.read(folder)
        workdir = Path(folder).resolve().parents[1]
        config = configs.restore(found['config'], build.SCHEMA)
        config = opening.choose(config, overrides, FREE, 'replaying')
        facts = build.facts_from_json(found['facts'], config)
        data = build.source(config)
        if data.fingerprint != facts.fingerprint:
            raise ValueError('the data are not those of the training: name another --config.data.data_dir')
        run = build.experiment(config, facts)
        grid = opening.devices(workdir, config, run.train.batch)
        saved = _opened(workdir, found)
    with contextlib.closing(saved) if saved else contextlib.nullcontext():
        step, before, batch = _until(run, data, grid, saved, found, workdir)
    report = _report(run, grid, step, before, batch, found)
    writer.write_json(Path(folder) / 'replay.json', report)
    print('\n'.join(_lines(report, found, folder)))
    return 0 if report['skipped'] else 1


def _opened(workdir, found):
    if not found['checkpoint']:
        return None
    saved = checkpoint.open_existing(workdir)
    with contextlib.ExitStack() as stack:
        stack.callback(saved.close)
        opening.kept(saved.steps(), found['checkpoint'])
        stack.pop_all()
    return saved


def _until(run, data, grid, saved, found, folder):
    """The compiled step, the state before the step in question, and its batch."""
    base, last = found['checkpoint'], found['step']
    target = state.abstract(grid, run.network.init, run.optimizer, run.memory, run.ema)
    current = saved.restore(base, target) if base else beginning.create(run, target, grid, folder)
    # As the training itself compiled it: another program might round otherwise.
    step = steps.compiled(run, grid, target)
    batches = pipeline.batches(
        data,
        batch=run.train.batch,
        seed=run.train.seed,
        encode=run.facts.tokenizer.encode if run.facts.tokenizer else None,
        start=base,
        offset=found['offset'],
    )
    with contextlib.closing(batches), status.Status('replay', last, base) as line:
        for done in range(base + 1, last):
            current, _ = step(current, mesh.put(grid, run.inputs(next(batches))))
            line.update(done)
        batch = next(batches)
    if batch['index'].tolist() != found['ids']:
        raise ValueError('the data give other examples for this step than were recorded')
    return step, current, batch


def _report(run, grid, step, before, batch, found) -> dict:
    inputs = run.inputs(batch)

    def judged(inputs):
        # The step takes its state's memory for its own.
        _, measured = step(jax.tree.map(jnp.copy, before), mesh.put(grid, inputs))
        return jax.device_get(measured)

    def broken_by(rows):
        blank = np.ones(len(batch['index']), bool)
        blank[rows] = False
        return not judged({**inputs, 'image': _blanked(inputs['image'], blank)})['guard']['ok']

    row = judged(inputs)
    verdict = row.pop('guard')
    names = guard.layer_names(before.params)
    sizes = dict(zip(names, jax.device_get(jax.jit(guard.layer_norms)(before.params)).tolist()))
    skipped = not verdict['ok']
    culprits = culprit_rows(broken_by, np.arange(len(batch['index']))) if skipped else []
    return {
        'step': found['step'],
        'skipped': skipped,
        'metrics': {name: incidents.spelt(value) for name, value in logbook.means(row).items()},
        'layers': [
            {'layer': name, 'gradient': incidents.spelt(norm), 'weights': incidents.spelt(sizes[name])}
            for name, norm in guard.largest(names, verdict['norms'], len(names))
        ],
        'examples': [int(batch['index'][i]) for i in culprits],
    }


def _blanked(image, blank):
    """image: [B, H, W, C] with the rows of blank: bool [B] set to 0."""
    return np.where(blank[:, None, None, None], np.zeros((), image.dtype), image)


def culprit_rows(broken_by, rows: np.ndarray) -> list[int]:
    """The rows that break a step each by itself. broken_by: rows -> whether a step with these alone is skipped."""
    if not broken_by(rows):
        return []
    if len(rows) == 1:
        return rows.tolist()
    half = len(rows) // 2
    return culprit_rows(broken_by, rows[:half]) + culprit_rows(broken_by, rows[half:])


def _lines(report, found, folder) -> list[str]:
    again = 'skipped again' if report['skipped'] else 'NOT skipped here'
    where = f'the checkpoint of step {found["checkpoint"]}' if found['checkpoint'] else 'the beginning'
    lines = [f'step {report["step"]}, computed again from {where}: {again}']
    lines += [f'  {name} {value}, recorded {found["metrics"].get(name)}' for name, value in report['metrics'].items()]
    lines += [f'  {"layer":48} {"gradient":>12} {"weights":>12}']
    lines += [
        f'  {r["layer"]:48} {_short(r["gradient"]):>12} {_short(r["weights"]):>12}' for r in report['layers'][:20]
    ]
    if report['skipped']:
        listed = ', '.join(map(str, report['examples'])) or 'none; the weights or all examples together'
        lines += [f'examples that break it by themselves: {listed}']
    else:
        platform, devices = found['devices']
        lines += [f'it was recorded on {devices} {platform} device(s): other hardware rounds otherwise']
    return [*lines, f'all layers are in {Path(folder) / "replay.json"}']


def _short(value) -> str:
    return value if isinstance(value, str) else f'{value:.4g}'
