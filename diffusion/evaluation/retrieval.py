"""Whether pictures show what their captions say, measured without a pretrained network."""

import numpy as np


def nearest(images: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Index of the reference with the least squared pixel distance to each image.

    images: [N, ...] and references: [M, ...] of one shape and range; returns [N] int.
    """
    a = images.reshape(len(images), -1).astype(np.float64)
    b = references.reshape(len(references), -1).astype(np.float64)
    return np.argmin((b**2).sum(1) - 2 * a @ b.T, axis=1)


def caption_match(images, captions: list[str], references, reference_captions: list[str]) -> float:
    """Share of images whose nearest reference carries the caption the image was drawn from; in [0, 1]."""
    found = [reference_captions[index] for index in nearest(images, references)]
    return float(np.mean([a == b for a, b in zip(found, captions, strict=True)]))
