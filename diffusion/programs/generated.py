"""The metrics of `diffusion evaluate` that look at samples: drawn with the run's sampler, seen by a feature network."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from diffusion import build, usage
from diffusion.data import pipeline
from diffusion.evaluation import frechet, kernels, neighbours, scores
from diffusion.programs import blocks, drawing, networks, opening, references, results

# The fewest samples, and pictures of the reference, that each can be asked of.
NEEDED = {'fid': 2, 'kid': 20, 'is': 20, 'prdc': 6, 'fid_inf': 100, 'mmd': 20}
MOMENTS = ('fid', 'fid_inf')  # what the mean and covariance of a reference suffice for
PARTS = ('precision', 'recall', 'density', 'coverage')  # of prdc
NUM = 2048
SEEDS = 1_000_000  # of samples that each --seed has for itself


@dataclasses.dataclass(frozen=True)
class Drawn:
    """What was drawn: features [N, D] and logits [N, K] of samples; nfe: evaluations a sample, [N]."""

    features: np.ndarray
    logits: np.ndarray
    nfe: np.ndarray


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which samples are drawn, how, and for which metrics. told: the conditions, and against: the reference, as far as
    they are known before anything is computed, JSON values; see: of `networks.Extractor.on`; said: of `cells.Cell`."""

    metrics: tuple[str, ...]
    artist: drawing.Artist
    config: dict
    seeds: np.ndarray
    cond: dict
    told: dict
    extractor: networks.Extractor
    see: Callable
    weights: str
    against: dict
    said: dict[str, str]

    def requests(self) -> dict[str, dict]:
        """What is known of the protocol of each result, by the name of its file."""
        return {slug: {'metric': name, **_request(self, name)} for name in self.metrics for slug in self.slugs(name)}

    def slugs(self, name: str) -> list[str]:
        """The names of the files of a metric's results."""
        parts = PARTS if name == 'prdc' else (name,)
        return [f'{part}_{self.extractor.label}' if self.extractor.label else part for part in parts]

    def drawn_as(self, config: dict) -> bool:
        """Whether samples are drawn as this config says."""
        return _drawn_by(self.config) == _drawn_by(config)

    def of(self, slugs: list[str]) -> 'Plan':
        """The plan with those metrics alone that give one of these results."""
        wanted = tuple(name for name in self.metrics if set(self.slugs(name)) & set(slugs))
        return dataclasses.replace(self, metrics=wanted)

    def blocks(self, folder: Path, taken: opening.Taken) -> blocks.Blocks:
        """Where what is drawn of a checkpoint is kept."""
        about = {
            'checkpoint': taken.mark,
            'features': self.extractor.told,
            'first seed': int(self.seeds[0]),
            'conditions': {key: value for key, value in self.told.items() if key != 'sha256'},
            **_drawn_by(self.config),
        }
        return blocks.plan(folder, f'samples_step_{taken.step}', about, len(self.seeds), self.artist.calls.batch)


def check(args, metrics) -> None:
    """Raises ValueError for too few samples, or seeds that there are not."""
    num = NUM if args.num is None else args.num
    if not 0 <= args.seed < 2**31 // SEEDS:
        raise ValueError(f'--seed={args.seed}: of samples it lies in [0, {2**31 // SEEDS})')
    if num > SEEDS:
        raise ValueError(f'--num={num}: at most {SEEDS:,} samples')
    for name in metrics:
        if num < NEEDED[name]:
            raise ValueError(f'--num={num}: {name} needs at least {NEEDED[name]} samples')


def plans(run: build.Experiment, drawings, weights, data, grid, args, metrics, extractor, against) -> list[Plan]:
    """One for each of the weights and drawings (of `cells.drawings`), all of one set of samples. Raises ValueError for
    what the model cannot draw."""
    num = NUM if args.num is None else args.num
    seeds = args.seed * SEEDS + np.arange(num)
    cond, told = _conditions(run, data, num, args.seed)
    artists = drawing.artists(run, [config for _, config in drawings], grid, num)
    see = extractor.on(grid, artists[0].calls.batch, num)
    return [
        Plan(tuple(metrics), artist, config, seeds, cond, told, extractor, see, name, against, said)
        for name in weights
        for artist, (said, config) in zip(artists, drawings)
    ]


def _conditions(run, data, num, seed):
    """The conditions of the data's own examples in a random order, and again from the start where there are fewer."""
    if not run.null:
        return {}, {'conditions': 'none'}
    ids, parts = pipeline.example_ids(np.arange(num), len(data), seed), []
    for start in range(0, num, 1024):
        batch = data.gather(ids[start : start + 1024])
        if run.facts.tokenizer:
            batch['tokens'] = run.facts.tokenizer.encode(batch['caption'])
        parts.append({name: np.asarray(batch[name]) for name in run.null})
    cond = {name: np.concatenate([part[name] for part in parts]) for name in run.null}
    mark = hashlib.sha256()
    for name in sorted(cond):
        mark.update(name.encode() + np.ascontiguousarray(cond[name], '<i4').tobytes())
    told = {'conditions': ', '.join(sorted(cond)), 'distribution': "the data's", 'sha256': mark.hexdigest()[:16]}
    return cond, {**told, 'conditions of': data.fingerprint}


def evaluate(planned: Plan, against, chosen, seed: int, taken: opening.Taken, kept: blocks.Blocks, slugs, at):
    """The results of these names; None where samples beyond the chosen ones are not drawn. against: () -> the
    reference; chosen: `blocks.asked`. Raises UsageError."""
    if chosen is None:
        with usage.checked():  # what cannot be measured against it is refused before anything is drawn
            against()
    arrays = kept.fill('samples', chosen, at, functools.partial(_block, planned, taken.weights))
    if arrays is None:
        return None
    with usage.checked():
        found = measure(planned.of(slugs), Drawn(**arrays), against(), seed)
    return [result for result in found if result.slug in slugs]


def _block(planned, weights, span, report) -> dict[str, np.ndarray]:
    """The arrays of `Drawn` of the samples from span[0] to span[1]. Raises UsageError where a sample is not finite or
    did not come to its end."""
    rows = slice(*span)
    seeds, cond = planned.seeds[rows], {name: value[rows] for name, value in planned.cond.items()}
    nfe: list[np.ndarray] = []

    def images():
        done = 0
        for drawn in planned.artist.draw(weights, seeds, cond):
            failed = seeds[done:][: len(drawn.x)][~drawn.finished]
            if len(failed):
                raise usage.UsageError(
                    f'{len(failed)} of {len(drawn.x)} samples (seed {failed[0]} is the first) are not finite or ran '
                    'out of steps before the end: nothing is measured; take more --steps or '
                    '--config.sampler.max_steps, or another --step'
                )
            nfe.append(drawn.nfe)
            done += len(drawn.x)
            report(done)
            yield drawn.x

    features, logits = (np.concatenate(some) for some in zip(*planned.see(images())))
    return dataclasses.asdict(Drawn(features, logits, np.concatenate(nfe)))


def check_reference(metrics, reference: references.Reference) -> None:
    """Raises ValueError where a metric needs more of the reference than there is."""
    for name in metrics:
        if name not in (*MOMENTS, 'is') and reference.features is None:
            raise ValueError(f'{name} needs the features of the reference, and it holds mean and covariance alone')
        if name != 'is' and reference.count is not None and reference.count < NEEDED[name]:
            raise ValueError(
                f'{name} needs at least {NEEDED[name]} pictures of the reference, it has {reference.count}'
            )


def measure(planned: Plan, drawn: Drawn, reference: references.Reference, seed: int) -> list[results.Result]:
    """Every metric, with its protocol. Raises ValueError for what cannot be measured."""
    label = planned.extractor.label
    found = []
    for name in planned.metrics:
        asked = {'metric': name, **_protocol(planned, drawn, reference, name)}
        for part, shown, value, settings, note in MEASURES[name](drawn, reference, label, seed):
            slug = f'{part}_{label}' if label else part
            report = {**value.to_json(), 'evaluations': float(drawn.nfe.mean())}
            lines = (_line(shown, report, note),)
            found.append(results.Result(slug, shown, report, {**asked, **settings}, note, lines))
    return found


# Each gives (name of the file, name with what qualifies it, interval, what the protocol says of it, a note).
def _fid(drawn, reference, label, seed):
    count = len(drawn.features)
    few = min(count, reference.count or count) < frechet.ENOUGH
    note = f'biased: under {frechet.ENOUGH:,} samples or pictures of the reference' if few else ''
    value = frechet.fid(drawn.features, reference.moments, seed=seed)
    return [('fid', frechet.name(count, label), value, {}, note)]


def _fid_inf(drawn, reference, label, seed):
    count, wide = drawn.features.shape
    smallest = count // frechet.PARTS
    note = f'unreliable: parts of {smallest} samples for {wide} features' if smallest < 2 * wide else ''
    value = frechet.fid_infinity(drawn.features, reference.moments, seed)
    return [('fid_inf', frechet.name(count, label, limit=True), value, {'seed of the parts': seed}, note)]


def _kid(drawn, reference, label, seed):
    value = kernels.over_blocks(drawn.features, reference.features, kernels.cubic, seed)
    return [('kid', _named('KID', label), value, {'kernel': '(x.y / D + 1)^3', 'seed of the blocks': seed}, '')]


def _mmd(drawn, reference, label, seed):
    width = kernels.median_distance(reference.features)
    value = kernels.over_blocks(drawn.features, reference.features, kernels.gaussian(width), seed)
    settings = {'kernel': f'Gaussian of bandwidth {width:.6g}, the median distance in the reference'}
    return [('mmd', _named('MMD', label), value, {**settings, 'seed of the blocks': seed}, '')]


def _score(drawn, reference, label, seed):
    value = scores.inception_score(drawn.logits, seed)
    return [('is', _named('IS', label), value, {'splits': scores.SPLITS, 'seed of the splits': seed}, '')]


def _prdc(drawn, reference, label, seed):
    found = neighbours.measures(drawn.features, reference.features)
    k = {'neighbours': f'{neighbours.PRECISION_NEIGHBOURS}, of density and coverage {neighbours.DENSITY_NEIGHBOURS}'}
    return [(part, _named(part, label), found[part], k, '') for part in PARTS]


MEASURES = {'fid': _fid, 'kid': _kid, 'is': _score, 'prdc': _prdc, 'fid_inf': _fid_inf, 'mmd': _mmd}


def _named(name, label):
    return f'{name}[{label}]' if label else name


def _request(planned, name):
    """What another result must share to be compared, as far as it is known before anything is computed."""
    return {
        'reference': None if name == 'is' else planned.against,
        'features': planned.extractor.told,
        'count': len(planned.seeds),
        'seeds': f'{planned.seeds[0]}-{planned.seeds[-1]}',
        'images': 'uint8, 0 to 255',
        **planned.told,
        'weights': planned.weights,
        **_drawn_by(planned.config),
    }


def _drawn_by(config):
    return {
        'sampler': config['sampler'],
        'grid': config['grid'],
        'steps': None if build.paces_itself(config) else config['sample']['steps'],
        'guidance': config['guidance'],
        'threshold': config.get('threshold'),
    }


def _protocol(planned, drawn, reference, name):
    """All that another result must share to be compared with this one; not the checkpoint."""
    nfe = drawn.nfe
    return {
        **_request(planned, name),
        'reference': None if name == 'is' else reference.told,
        'nfe': int(nfe[0]) if (nfe == nfe[0]).all() else 'as many as each sample takes',
    }


def recipe(config) -> str:
    """How samples are drawn, for the first line of the output."""
    steps = 'steps of its own' if build.paces_itself(config) else f'{config["sample"]["steps"]} steps'
    return f'{config["sampler"]["name"]} sampler, {steps}, guidance {config["guidance"].get("scale", 1.0):g}'


def _line(shown, report, note) -> str:
    """What is printed of a result."""
    value, error, found = report['value'], report['standard_error'], report['error']
    spread = 'error unknown'
    if error is not None:
        low, high = report['interval']
        spread = f'± {error:.4g} (95 %: {low:.4g} to {high:.4g}; {found["method"]}, {found["repeats"]})'
    return f'{shown} {value:.5g} {spread}' + (f'; {note}' if note else '')
