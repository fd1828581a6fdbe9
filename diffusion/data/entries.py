"""Examples as a set stores them, by index: the one form that every format is brought into."""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Example:
    """name: where it lies, for people ('cat/0001.png', 'train-3.parquet[17]'); image: the bytes of an encoded image
    file, or an array [H, W] or [H, W, C]; label: -1 where there is none; caption: '' where there is none."""

    name: str
    image: bytes | np.ndarray
    label: int = -1
    caption: str = ''


@dataclasses.dataclass(frozen=True)
class Entries:
    """A set of examples.

    fingerprint: names the content, equal for equal data on whatever machine; classes: their names, () where there are
    no labels; captioned: whether there are captions; read: int64 [B] in [0, length) -> B examples, from several threads
    at once; an image that cannot be read is `b''`, what cannot be told apart from that is an error of `open`;
    captions: all of them in index order, without reading an image; name: index -> `Example.name`.
    """

    length: int
    fingerprint: str
    classes: tuple[str, ...]
    captioned: bool
    read: Callable[[np.ndarray], list[Example]]
    captions: Callable[[], list[str]]
    name: Callable[[int], str]
