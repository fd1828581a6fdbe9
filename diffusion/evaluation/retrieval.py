"""The nearest training images of pictures, by pixels: whether pictures show what their captions say, and whether they
repeat what the model was trained on. No pretrained network is needed."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from diffusion.evaluation import interval

RATIO = 0.5
CALL = 1024  # references that are looked at at once


@dataclasses.dataclass(frozen=True)
class Nearest:
    """Of N pictures: index of the nearest reference, int64 [N], and the squared distance to it, summed over pixels,
    float64 [N]; -1 and infinity where there is none."""

    index: np.ndarray
    squared: np.ndarray


def nearest(images: np.ndarray, parts: Iterable[tuple[np.ndarray, np.ndarray]], others: bool = False) -> Nearest:
    """images: [N, ...]; parts: indices [m] and the references of these, [m, ...]. The first of equally near ones.

    others: equal pictures are passed over, so that a reference finds its neighbour and not itself or its copies. Exact
    for pictures of 8 bits: integers in float64.
    """
    queries = np.reshape(images, (len(images), -1)).astype(np.float64)
    size = (queries**2).sum(1)
    index, squared = np.full(len(queries), -1), np.full(len(queries), np.inf)
    for ids, part in parts:
        found = np.reshape(part, (len(part), -1)).astype(np.float64)
        distance = np.maximum(size[:, None] + (found**2).sum(1) - 2 * queries @ found.T, 0)
        if others:
            distance[distance == 0] = np.inf
        best = distance.argmin(1)
        least = distance[np.arange(len(queries)), best]
        closer = least < squared
        index[closer], squared[closer] = ids[best[closer]], least[closer]
    return Nearest(index, squared)


def caption_match(found: np.ndarray, captions: list[str], reference_captions: list[str]) -> interval.Interval:
    """Share of pictures whose nearest reference carries the caption they were drawn from. found: its index, [N]."""
    hits = [index >= 0 and reference_captions[index] == caption for index, caption in zip(found, captions, strict=True)]
    return interval.share(np.asarray(hits), 'share of the samples')


@dataclasses.dataclass(frozen=True)
class Repeats:
    """share: of samples that are taken as memorised; ratio: [N], distance to the nearest training image over that
    image's own distance to its nearest different one; order: [N], the samples by ratio, the most alike first."""

    share: interval.Interval
    ratio: np.ndarray
    order: np.ndarray


def memorisation(samples: np.ndarray, own: np.ndarray, bound: float = RATIO) -> Repeats:
    """A sample is taken as memorised where it lies nearer to its nearest training image than `bound` times that image's
    distance to its nearest different training image; both squared, [N].

    The distance is judged by how densely the training images lie there, as the calibrated distances of Carlini et al.
    2301.13188 and Stein et al. 2306.04675 judge it by the mean of fifty neighbours. Of fresh examples of the training
    images' own law in d dimensions a share of bound^d passes where bound <= 1/2 (exact for a Poisson process): of
    pictures, with many dimensions, none.
    """
    ratio = np.sqrt(np.asarray(samples, np.float64) / np.asarray(own, np.float64))
    return Repeats(interval.share(ratio < bound, 'share of the samples'), ratio, np.argsort(ratio, kind='stable'))
