"""What an edit leaves: the results, put back into what is kept, their figures of merit, and a sheet to look at."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from diffusion import build, usage
from diffusion.core import chain, loss
from diffusion.evaluation import ensemble
from diffusion.programs import inputs, merits
from diffusion.runtime import pictures, writer

SHEET, REPORT = 'sheet.png', 'edit.json'
FIELD = ('interval', 'truth')  # flags for runs on numbers
SUMMARY = ('mean', 'spread', 'low', 'high')  # of an ensemble


@dataclasses.dataclass(frozen=True)
class Store:
    """Where the results of seeds go, and for fields what of the ensemble is wanted: the interval's probability, and the
    truth [H, W, C] it is held against."""

    folder: Path
    seeds: list[int]
    suffix: str
    interval: float
    truth: np.ndarray | None

    def path(self, seed: int) -> Path:
        return self.folder / f'{seed}{self.suffix}'


def add_flags(parser) -> None:
    parser.add_argument(
        '--interval', type=float, metavar='P', help='of a run on numbers: the probability of low.npy to high.npy (0.9)'
    )
    parser.add_argument('--truth', metavar='FILE', help='of a run on numbers: an .npy that the interval should cover')


def open(args, facts: build.Facts, seeds: list[int], shape: tuple[int, ...]) -> Store:
    """Raises ValueError where results are there already, and for flags that mean nothing here."""
    numbers = facts.dtype != 'uint8'
    interval, path = (getattr(args, name, None) for name in FIELD)
    if not numbers and (interval is not None or path):
        raise ValueError('--interval and --truth are for runs on numbers, and this one draws pictures')
    interval = 0.9 if interval is None else interval
    if not 0 < interval < 1:
        raise ValueError(f'--interval={interval:g}: a probability, in (0, 1)')
    truth = inputs.read(path, facts).values if path else None
    if truth is not None and truth.shape != shape:
        raise ValueError(f'--truth={path} has shape {truth.shape}, the results have {shape}')
    folder = Path(args.out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f'--out={args.out} is a file')
    store = Store(folder, seeds, '.npy' if numbers else '.png', interval, truth)
    summary = [folder / f'{name}.npy' for name in SUMMARY] if numbers else [folder / SHEET]
    there = [path for path in (*map(store.path, seeds), *summary, folder / REPORT) if path.exists()]
    if there and not args.overwrite:
        raise ValueError(f'--out={args.out} holds {there[0].name} already: name another folder, or add --overwrite')
    return store


def write(store: Store, wanted, drawn: Iterable[chain.Sampled], about: dict) -> None:
    """Writes each result as it comes, prints its figures, and writes the sheet or the ensemble, and the report.

    wanted: `restoring.Wanted`; drawn: the samples, in the order of the store's seeds; about: for the report.
    """
    before, change = wanted.before, wanted.change
    if change is not None:
        counts = [int(np.sum(part)) for part in (change == 1, (change > 0) & (change < 1), change == 0)]
        print('mask: {} pixels change, {} change partly, {} are kept'.format(*counts))
    kept, results, rows, seeds = [], [], [], iter(store.seeds)
    for part in drawn:
        if not part.finished.all():
            raise usage.UsageError('a result is not finite or ran out of steps: take more --steps or another --method')
        for raw in part.x:
            seed = next(seeds)
            result = raw if change is None else inputs.blended(before, raw, change)
            path = store.path(seed)
            _save(path, result)
            figures = _figures(wanted, raw, _load(path, before.shape))
            print(f'{path.name}: {_said(figures)}')
            rows.append({'seed': seed, 'file': path.name, **figures})
            results.append(result)
    kept = np.stack(results)
    if before.dtype == np.uint8:
        pictures.save(store.folder / SHEET, _sheet(wanted, store, kept))
    else:
        about = {**about, **_ensemble(store, change, kept)}
    writer.write_json(store.folder / REPORT, json.loads(json.dumps({**about, 'results': rows}, default=str)))
    print(f'{len(kept)} results and {REPORT} in {store.folder}')


def _save(path, values):
    (pictures.save if values.dtype == np.uint8 else pictures.save_array)(path, values)


def _load(path, shape):
    """The file as anybody will read it."""
    return pictures.load(path, shape) if path.suffix == '.png' else np.load(path, allow_pickle=False)


def _figures(wanted, raw, result) -> dict:
    """raw: as it was drawn; result: as the file holds it."""
    figures, scale = {}, 127.5 if result.dtype == np.uint8 else 1.0
    if wanted.task.operator:
        arrays = wanted.task.arrays
        measurement = wanted.task.measurement(arrays)
        residual = np.asarray(measurement.residual(np.asarray(loss.to_unit(raw))[None]))
        if wanted.change is not None:
            residual = residual[0][wanted.change == 0]  # of what must stay
        figures['consistency_rms'] = merits.consistency(residual * scale)
    if wanted.change is not None:
        figures['outside_max'] = merits.outside(wanted.before, result, wanted.change)
        seam = merits.jump(result, wanted.change)
        figures['jump'], figures['gradient'] = seam or (None, None)
    return figures


def _said(figures) -> str:
    words = []
    if 'outside_max' in figures:
        words.append(f'outside the mask max |Δ| {figures["outside_max"]:g}')
    if figures.get('jump') is not None:
        words.append(f'across its boundary {figures["jump"]:.3g}, between kept neighbours {figures["gradient"]:.3g}')
    if 'consistency_rms' in figures:
        put = ' before it was put back' if 'outside_max' in figures else ''
        words.append(f'off the measurement by {figures["consistency_rms"]:.3g} RMS{put}')
    return '; '.join(words) or 'nothing is measured'


def _sheet(wanted, store, results) -> np.ndarray:
    """Before, mask, and up to 16 results."""
    shown, labels = [wanted.before], ['before']
    if wanted.change is not None:
        levels = np.rint(wanted.change * 255).astype(np.uint8)[..., None]
        shown.append(np.broadcast_to(levels, wanted.before.shape).copy())
        labels.append('mask')
    some = results[:16]
    labels += [f'seed {seed}' for seed in store.seeds[: len(some)]]
    return pictures.sheet(np.stack([*shown, *some]), labels, columns=min(len(labels), 6))


def _ensemble(store, change, members) -> dict:
    """Writes what the results have in common; the coverage of a truth over what was missing."""
    found = ensemble.summary(members, store.interval)
    told = {'interval': store.interval}
    for name in SUMMARY:
        values = getattr(found, name)
        if values is not None:
            pictures.save_array(store.folder / f'{name}.npy', values)
    if found.low is None:
        print(f'too few results for an interval of {store.interval:g}: take {ensemble.least(store.interval)} or more')
    if store.truth is not None:
        hidden = change > 0
        told['rmse'] = float(np.sqrt(np.mean((found.mean - store.truth)[hidden] ** 2)))
        print(f'the mean is off the truth by {told["rmse"]:.3g} RMS where it was missing')
        if found.low is not None:
            told['coverage'] = float(np.mean(ensemble.covered(found, store.truth)[hidden]))
            print(f'the {store.interval:g} interval covers {told["coverage"]:.1%} of the missing values')
    return told
