"""The metrics of samples by name: what each needs, and what it makes of samples and a reference."""

import dataclasses
from collections.abc import Callable

import numpy as np

from diffusion.data import sources
from diffusion.evaluation import frechet, interval, kernels, neighbours, retrieval, scores
from diffusion.programs import clipscore, references
from diffusion.runtime import pictures

# What a metric is held against.
NOTHING, MOMENTS, FEATURES, TRAINING, CLIP = 'nothing', 'mean and covariance', 'features', 'training images', 'clip'
CMMD_BANDWIDTH = 10.0
PAIRS = 16  # samples on a sheet beside their nearest training images


@dataclasses.dataclass(frozen=True)
class Seen:
    """One set of samples. features: [N, D]; logits: [N, K]; images: uint8 [N, H, W, C] where a metric looks at them;
    captions: what they were drawn from, where they were drawn from captions; label: what names of results are qualified
    by, '' for nothing; bandwidth: of `mmd`, None for the median distance; seed: of random choices among them."""

    features: np.ndarray
    logits: np.ndarray
    images: np.ndarray | None
    seeds: np.ndarray
    captions: list[str] | None
    label: str
    bandwidth: float | None
    seed: int

    def named(self, name: str) -> str:
        return f'{name}[{self.label}]' if self.label else name


@dataclasses.dataclass(frozen=True)
class Found:
    """shown: the name with what qualifies it; settings: for the protocol, and more: for the file, JSON values; picture:
    uint8 [H, W, 3] that goes with it."""

    shown: str
    value: interval.Interval
    settings: dict = dataclasses.field(default_factory=dict)
    note: str = ''
    more: dict = dataclasses.field(default_factory=dict)
    picture: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Metric:
    """measure: (seen, what it is held against) -> what it found of each of its parts; against: a part of a
    `references.Reference`, the training images' `sources.Source`, a `clipscore.Scorer`, or nothing; captioned: whether
    it is of samples drawn from captions; needed: the fewest samples, and pictures of the reference, for it."""

    measure: Callable
    needed: int
    against: str = FEATURES
    parts: tuple[str, ...] = ()
    captioned: bool = False

    @property
    def pixels(self) -> bool:
        """Whether it looks at the pictures themselves, not at features."""
        return self.against in (TRAINING, CLIP)

    @property
    def referenced(self) -> bool:
        """Whether it is held against a reference, as a network sees it."""
        return self.against in (MOMENTS, FEATURES)


def _fid(seen, reference):
    count = len(seen.features)
    few = min(count, reference.count or count) < frechet.ENOUGH
    note = f'biased: under {frechet.ENOUGH:,} samples or pictures of the reference' if few else ''
    value = frechet.fid(seen.features, reference.moments, seed=seen.seed)
    return [Found(frechet.name(count, seen.label), value, note=note)]


def _fid_inf(seen, reference):
    count, wide = seen.features.shape
    smallest = count // frechet.PARTS
    note = f'unreliable: parts of {smallest} samples for {wide} features' if smallest < 2 * wide else ''
    value = frechet.fid_infinity(seen.features, reference.moments, seen.seed)
    return [Found(frechet.name(count, seen.label, limit=True), value, {'seed of the parts': seen.seed}, note)]


def _kid(seen, reference):
    value = kernels.over_blocks(seen.features, reference.features, kernels.cubic, seen.seed)
    return [Found(seen.named('KID'), value, {'kernel': '(x.y / D + 1)^3', 'seed of the blocks': seen.seed})]


def _mmd(seen, reference):
    width = seen.bandwidth or kernels.median_distance(reference.features)
    said = 'as given' if seen.bandwidth else 'the median distance in the reference'
    said = "CMMD's" if seen.bandwidth == CMMD_BANDWIDTH else said
    value = kernels.over_blocks(seen.features, reference.features, kernels.gaussian(width), seen.seed)
    settings = {'kernel': f'Gaussian of bandwidth {width:.6g}, {said}', 'seed of the blocks': seen.seed}
    return [Found(seen.named('MMD'), value, settings)]


def _score(seen, reference):
    value = scores.inception_score(seen.logits, seen.seed)
    return [Found(seen.named('IS'), value, {'splits': scores.SPLITS, 'seed of the splits': seen.seed})]


def _prdc(seen, reference):
    found = neighbours.measures(seen.features, reference.features)
    k = {'neighbours': f'{neighbours.PRECISION_NEIGHBOURS}, of density and coverage {neighbours.DENSITY_NEIGHBOURS}'}
    return [Found(seen.named(part), found[part], k) for part in PRDC]


def _captions(seen, trained: sources.Source):
    found = retrieval.nearest(seen.images, trained.parts(retrieval.CALL))
    value = retrieval.caption_match(found.index, seen.captions, trained.captions())
    return [Found('caption match', value, {'distance': 'squared, over pixels'})]


def _clip(seen, scorer: clipscore.Scorer):
    value = interval.examples(scorer.scores(seen.images, seen.captions), 'mean over the samples')
    return [Found('CLIP score', value, {'scale': f'{clipscore.WEIGHT} max(cosine, 0)'})]


def _memorisation(seen, trained: sources.Source):
    near = retrieval.nearest(seen.images, trained.parts(retrieval.CALL))
    indices, places = np.unique(near.index, return_inverse=True)
    images = trained.gather(indices)['image']
    own = retrieval.nearest(images, trained.parts(retrieval.CALL), others=True)
    if not np.isfinite(own.squared).all():
        raise ValueError('memorisation needs at least two training images that differ')
    repeats = retrieval.memorisation(near.squared, own.squared[places])
    shown = repeats.order[:PAIRS]
    pairs = [
        {
            'seed': int(seen.seeds[i]),
            'training image': int(near.index[i]),
            'distance': float(np.sqrt(near.squared[i] / seen.images[i].size)),
            'ratio': float(repeats.ratio[i]),
        }
        for i in shown
    ]
    settings = {'distance': 'Euclidean, over pixels', 'memorised': f'ratio below {retrieval.RATIO}'}
    more = {'nearest': pairs, 'distance unit': 'root mean square over pixels, 0 to 255'}
    sheet = _beside(seen.images[shown], images[places[shown]], pairs)
    return [Found('memorised share', repeats.share, settings, more=more, picture=sheet)]


def _beside(samples, training, pairs):
    """Samples beside their nearest training images; red where one is taken as memorised."""
    both = np.stack([samples, training], 1).reshape(-1, *samples.shape[1:])
    labels = [
        label
        for pair in pairs
        for label in (
            f'seed {pair["seed"]}',
            f'{"*" * (pair["ratio"] < retrieval.RATIO)}no. {pair["training image"]}: ratio {pair["ratio"]:.2f}',
        )
    ]
    return pictures.sheet(both, labels, columns=8)


PRDC = ('precision', 'recall', 'density', 'coverage')
METRICS = {
    'fid': Metric(_fid, 2, MOMENTS),
    'kid': Metric(_kid, 20),
    'is': Metric(_score, 20, NOTHING),
    'prdc': Metric(_prdc, 6, parts=PRDC),
    'fid_inf': Metric(_fid_inf, 100, MOMENTS),
    'mmd': Metric(_mmd, 20),
    'captions': Metric(_captions, 2, TRAINING, captioned=True),
    'clip': Metric(_clip, 2, CLIP, captioned=True),
    'memorisation': Metric(_memorisation, 2, TRAINING),
}


def over_repeats(found: list[Found], seeds: list[str]) -> Found:
    """The mean over disjoint blocks of seeds with their spread, and the least of them, which published tables tend to
    give (Karras et al. 2206.00364). found: of one part, by block; seeds: what they are."""
    values = [one.value.value for one in found]
    value = interval.repeated([one.value for one in found], 'blocks of seeds')
    spread = {'sd': float(np.std(values, ddof=1)), 'min': min(values), 'max': max(values)}
    parts = [{'seeds': which, **one.value.to_json()} for which, one in zip(seeds, found)]
    more = {**found[0].more, 'over the blocks': spread, 'blocks': parts}
    said = f'over {len(values)} blocks of seeds: sd {spread["sd"]:.4g}, min {spread["min"]:.5g}'
    note = '; '.join(filter(None, (said, found[0].note)))
    return dataclasses.replace(found[0], value=value, note=note, more=more)


def check_reference(names, reference: references.Reference) -> None:
    """Raises ValueError where a metric needs more of the reference than there is."""
    for name in names:
        metric = METRICS[name]
        if metric.against == FEATURES and reference.features is None:
            raise ValueError(f'{name} needs the features of the reference, and it holds mean and covariance alone')
        if metric.referenced and reference.count is not None and reference.count < metric.needed:
            raise ValueError(
                f'{name} needs at least {metric.needed} pictures of the reference, it has {reference.count}'
            )
