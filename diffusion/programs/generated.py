"""Samples for the metrics of `diffusion evaluate`: drawn with the run's sampler, seen by a feature network."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from diffusion import build, usage
from diffusion.programs import blocks, clipscore, drawing, examples, measures, networks, opening, results

NUM = 2048
SEEDS = 1_000_000  # of samples that each --seed has for itself


@dataclasses.dataclass(frozen=True)
class Drawn:
    """What was drawn: features [N, D] and logits [N, K] of samples; nfe: evaluations a sample, [N]; images: uint8
    [N, H, W, C] where a metric looks at them."""

    features: np.ndarray
    logits: np.ndarray
    nfe: np.ndarray
    images: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which samples are drawn, how, and for which metrics. told: the conditions, and against: the reference, as far as
    they are known before anything is computed, JSON values; captions: of the conditions, if any; see: of
    `networks.Extractor.on`; said: of `cells.Cell`; repeats: blocks of seeds that are measured each for itself; trained:
    () -> the training images, trained_on: their fingerprint; scorer: of `clip`; bandwidth: of `measures.Seen`."""

    metrics: tuple[str, ...]
    artist: drawing.Artist
    config: dict
    seeds: np.ndarray
    cond: dict
    told: dict
    captions: list[str] | None
    extractor: networks.Extractor
    see: Callable
    weights: str
    against: dict
    said: dict[str, str]
    repeats: int
    trained: Callable
    trained_on: str
    scorer: clipscore.Scorer | None
    bandwidth: float | None

    def requests(self) -> dict[str, dict]:
        """What is known of the protocol of each result, by the name of its file."""
        return {slug: {'metric': name, **_request(self, name)} for name in self.metrics for slug in self.slugs(name)}

    def label(self, name: str) -> str:
        """What names of a metric's results are qualified by."""
        return '' if measures.METRICS[name].pixels else self.extractor.label

    def slugs(self, name: str) -> list[str]:
        """The names of the files of a metric's results."""
        label = self.label(name)
        return [f'{part}_{label}' if label else part for part in measures.METRICS[name].parts or (name,)]

    @property
    def pixels(self) -> bool:
        """Whether the samples themselves are wanted."""
        return any(measures.METRICS[name].pixels for name in self.metrics)

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
            'images': self.pixels,
            **_drawn_by(self.config),
        }
        return blocks.plan(folder, f'samples_step_{taken.step}', about, len(self.seeds), self.artist.calls.batch)


def repeats(args) -> int:
    return 1 if args.repeats is None else args.repeats


def number(args) -> int:
    """Samples in all, of every block of seeds."""
    return (NUM if args.num is None else args.num) * repeats(args)


def check(args, metrics, facts) -> None:
    """Raises ValueError for too few samples, seeds that there are not, and metrics that the run knows nothing of."""
    num = NUM if args.num is None else args.num
    if not 0 <= args.seed < 2**31 // SEEDS:
        raise ValueError(f'--seed={args.seed}: of samples it lies in [0, {2**31 // SEEDS})')
    if repeats(args) < 1:
        raise ValueError(f'--repeats={args.repeats}: at least 1')
    if number(args) > SEEDS:
        raise ValueError(f'--num={num}: at most {SEEDS:,} samples, all --repeats together')
    for name in metrics:
        if num < measures.METRICS[name].needed:
            raise ValueError(f'--num={num}: {name} needs at least {measures.METRICS[name].needed} samples')
    if args.reference and not any(measures.METRICS[name].referenced for name in metrics):
        raise ValueError(f'--reference: {", ".join(metrics)} are held against none, leave it out')
    captioned = [name for name in metrics if measures.METRICS[name].captioned]
    if captioned and not facts.tokenizer:
        raise ValueError(f'{", ".join(captioned)}: of a model that was trained on text, and this one was not')
    if (args.clip is None) == ('clip' in metrics):
        raise ValueError('--metrics=clip and --clip=FOLDER, where the files of a CLIP lie, belong together')
    if args.bandwidth is not None and ('mmd' not in metrics or not args.bandwidth > 0):
        raise ValueError(f'--bandwidth={args.bandwidth:g}: a number above 0, of --metrics=mmd')


def plans(
    run: build.Experiment, drawings, weights, data, grid, args, metrics, extractor, against, trained, scorer
) -> list[Plan]:
    """One for each of the weights and drawings (of `cells.drawings`), all of one set of samples. Raises ValueError for
    what the model cannot draw."""
    if 'is' in metrics and not extractor.classes:
        raise ValueError(f'is needs a network that tells classes apart, and {extractor.told["network"]} does not')
    num = number(args)
    seeds = args.seed * SEEDS + np.arange(num)
    cond, told, captions = examples.conditions(run, data, num, args.seed)
    artists = drawing.artists(run, [config for _, config in drawings], grid, num)
    see = extractor.on(grid, artists[0].calls.batch, num)
    return [
        Plan(
            metrics=tuple(metrics),
            artist=artist,
            config=config,
            seeds=seeds,
            cond=cond,
            told=told,
            captions=captions,
            extractor=extractor,
            see=see,
            weights=name,
            against=against,
            said=said,
            repeats=repeats(args),
            trained=trained,
            trained_on=run.facts.fingerprint,
            scorer=scorer,
            bandwidth=args.bandwidth,
        )
        for name in weights
        for artist, (said, config) in zip(artists, drawings)
    ]


def evaluate(planned: Plan, against, chosen, seed: int, taken: opening.Taken, kept: blocks.Blocks, slugs, at):
    """The results of these names; None where samples beyond the chosen ones are not drawn. against: () -> the
    reference; chosen: `blocks.asked`. Raises UsageError."""
    referenced = any(measures.METRICS[name].referenced for name in planned.metrics)
    if referenced and chosen is None:
        with usage.checked():  # what cannot be measured against it is refused before anything is drawn
            against()
    arrays = kept.fill('samples', chosen, at, functools.partial(_block, planned, taken.weights))
    if arrays is None:
        return None
    with usage.checked():
        found = measure(planned.of(slugs), Drawn(**arrays), against() if referenced else None, seed)
    return [result for result in found if result.slug in slugs]


def _block(planned, weights, span, report) -> dict[str, np.ndarray]:
    """The arrays of `Drawn` of the samples from span[0] to span[1]. Raises UsageError where a sample is not finite or
    did not come to its end."""
    rows = slice(*span)
    seeds, cond = planned.seeds[rows], {name: value[rows] for name, value in planned.cond.items()}
    nfe: list[np.ndarray] = []
    kept: list[np.ndarray] = []

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
            kept.append(drawn.x)
            done += len(drawn.x)
            report(done)
            yield drawn.x

    features, logits = (np.concatenate(some) for some in zip(*planned.see(images())))
    arrays = {'features': features, 'logits': logits, 'nfe': np.concatenate(nfe)}
    return arrays | ({'images': np.concatenate(kept)} if planned.pixels else {})


def measure(planned: Plan, drawn: Drawn, reference, seed: int) -> list[results.Result]:
    """Every metric, with its protocol. Raises ValueError for what cannot be measured."""
    size = len(planned.seeds) // planned.repeats
    spans = [slice(start, start + size) for start in range(0, len(planned.seeds), size)]
    found = []
    for name in planned.metrics:
        metric = measures.METRICS[name]
        held = {measures.TRAINING: planned.trained, measures.CLIP: lambda: planned.scorer}
        against = held.get(metric.against, lambda: reference)()
        sets = [metric.measure(_seen(planned, drawn, rows, name, seed), against) for rows in spans]
        for slug, parts in zip(planned.slugs(name), zip(*sets)):
            one = (
                parts[0] if len(parts) == 1 else measures.over_repeats(parts, [_range(planned, rows) for rows in spans])
            )
            report = {**one.value.to_json(), 'evaluations': float(drawn.nfe.mean()), **one.more}
            asked = {'metric': name, **_protocol(planned, drawn, reference, name), **one.settings}
            lines = (_line(one.shown, report, one.note),)
            found.append(results.Result(slug, one.shown, report, asked, one.note, lines, one.picture))
    return found


def _seen(planned, drawn, rows, name, seed):
    return measures.Seen(
        features=drawn.features[rows],
        logits=drawn.logits[rows],
        images=None if drawn.images is None else drawn.images[rows],
        seeds=planned.seeds[rows],
        captions=planned.captions and planned.captions[rows],
        label=planned.label(name),
        bandwidth=planned.bandwidth,
        seed=seed,
    )


def _range(planned, rows):
    return f'{planned.seeds[rows][0]}-{planned.seeds[rows][-1]}'


def _request(planned, name):
    """What another result must share to be compared, as far as it is known before anything is computed."""
    metric = measures.METRICS[name]
    none = {measures.NOTHING: None, measures.CLIP: None, measures.TRAINING: {'training images': planned.trained_on}}
    seen = {measures.TRAINING: {'network': 'none: pixels'}, measures.CLIP: planned.scorer and planned.scorer.told}
    return {
        'reference': none.get(metric.against, planned.against),
        'features': seen.get(metric.against, planned.extractor.told),
        'count': len(planned.seeds) // planned.repeats,
        'seeds': _range(planned, slice(None)),
        **({'repeats': planned.repeats} if planned.repeats > 1 else {}),
        **({'bandwidth': planned.bandwidth} if name == 'mmd' and planned.bandwidth else {}),
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
        **({'reference': reference.told} if measures.METRICS[name].referenced else {}),
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
