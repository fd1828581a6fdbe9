"""What a set's columns, keys or features are used as: labels as numbers with names, captions as strings."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

LABELS = ('label', 'labels', 'class', 'cls', 'y')
CAPTIONS = ('caption', 'captions', 'text', 'prompt')
# A number that no set of classes reaches is not a class but a mistake, and every class costs a row of weights.
MOST_CLASSES = 100_000


def nearest(word: str, known: Iterable[str]) -> str:
    """'did you mean ...?' or what there is, at most twenty."""
    known = sorted(set(known))
    close = difflib.get_close_matches(word, known, 3, 0.5)
    return f'did you mean {", ".join(close)}?' if close else f'there are {", ".join(known[:20]) or "none"}'


def chosen(what: str, wanted: str, known: Sequence[str], likely: Sequence[str], where: str) -> str:
    """The field that serves as `what`: `wanted` itself, for 'auto' the first of `likely` that is there, for 'none' and
    where there is none ''. Raises ValueError for one that is not there."""
    if wanted == 'none':
        return ''
    if wanted == 'auto':
        return next((name for name in likely if name in known), '')
    if wanted not in known:
        raise ValueError(f'{where} has no {what} {wanted!r}: {nearest(wanted, known)}')
    return wanted


def numbered(values: Sequence[Any], names: Sequence[str], where: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Labels as classes and int32 [N]: -1 for None and -1; strings are numbered in sorted order, numbers keep theirs.

    names: of the classes, where the set knows them. Raises ValueError for a number out of range.
    """
    if any(isinstance(value, str) for value in values):
        names = names or sorted({value for value in values if isinstance(value, str)})
        numbers = {name: i for i, name in enumerate(names)}
        wrong = [value for value in values if value is not None and value not in numbers]
        if wrong:
            raise ValueError(f'{where}: label {wrong[0]!r} is none of the classes: {nearest(str(wrong[0]), names)}')
        return tuple(names), np.array([-1 if value is None else numbers[value] for value in values], np.int32)
    whole = [-1 if value is None else value for value in values]
    wrong = [i for i, value in enumerate(whole) if isinstance(value, bool) or int(value) != value]
    if wrong:
        raise ValueError(f'{where}: label {whole[wrong[0]]!r} is neither a whole number nor a name')
    labels = np.array(whole, np.int64)
    most = len(names) or MOST_CLASSES
    outside = np.flatnonzero((labels < -1) | (labels >= most))
    if len(outside):
        first = outside[0]
        raise ValueError(f'{where}: label {labels[first]} of example {first} is out of range: 0 to {most - 1}')
    count = len(names) or int(labels.max(initial=-1)) + 1
    return tuple(names) or tuple(map(str, range(count))), labels.astype(np.int32)


def text(value: Any) -> str:
    """A caption: of several the first, without space around it."""
    if isinstance(value, list | tuple | np.ndarray):
        value = value[0] if len(value) else None
    if isinstance(value, bytes):
        value = value.decode('utf-8', 'replace')
    return '' if value is None else str(value).strip()
