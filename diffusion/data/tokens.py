"""Captions as rows of numbers. Number 0 is padding; a row of zeros is the empty prompt, the null
condition."""

import builtins
import dataclasses
import difflib
import re
from collections.abc import Sequence

import numpy as np

__all__ = ['bytes', 'words']

# Letters and digits, joined by hyphens or apostrophes inside a word: 'heart-eyes', "o'clock".
_WORD = re.compile(r"[^\W_]+(?:[-'][^\W_]+)*")


@dataclasses.dataclass(frozen=True)
class Words:
    """Word i of the vocabulary is number i + 1. length: L, numbers a row."""

    vocabulary: tuple[str, ...]
    length: int

    @property
    def size(self) -> int:
        """How many numbers there are, padding among them."""
        return len(self.vocabulary) + 1

    def encode(self, captions: Sequence[str]) -> np.ndarray:
        """captions: B strings -> int32 [B, length]. Raises ValueError for an unknown word or a
        caption too long."""
        numbers = {word: i for i, word in enumerate(self.vocabulary, start=1)}
        rows = []
        for caption in captions:
            split = _split(caption)
            for word in split:
                if word not in numbers:
                    near = difflib.get_close_matches(word, self.vocabulary, 3, 0.5)
                    hint = f'nearest: {", ".join(near)}' if near else 'no trained caption has one like it'
                    raise ValueError(f'unknown word {word!r} in {caption!r}; {hint}')
            rows.append([numbers[word] for word in split])
        return _pad(rows, captions, self.length, 'words')

    def to_json(self) -> dict:
        return {'kind': 'words', 'vocabulary': list(self.vocabulary), 'length': self.length}


@dataclasses.dataclass(frozen=True)
class Bytes:
    """Byte b of a caption's UTF-8 is number b + 1. length: L, numbers a row."""

    length: int

    @property
    def size(self) -> int:
        """How many numbers there are, padding among them."""
        return 257

    def encode(self, captions: Sequence[str]) -> np.ndarray:
        """captions: B strings -> int32 [B, length]. Raises ValueError for a caption too long."""
        rows = [[byte + 1 for byte in caption.encode('utf-8')] for caption in captions]
        return _pad(rows, captions, self.length, 'bytes')

    def to_json(self) -> dict:
        return {'kind': 'bytes', 'vocabulary': [], 'length': self.length}


def words(captions: Sequence[str], length: int = 0) -> Words:
    """One number a word of `captions`, in the order of the alphabet.

    Words are told apart without case. length: 0 for the next multiple of 4 above the longest
    caption, which leaves room for prompts a little longer. Raises ValueError for a length that a
    caption exceeds.
    """
    rows = [_split(caption) for caption in captions]
    vocabulary = tuple(sorted({word for row in rows for word in row}))
    if not vocabulary:
        raise ValueError('words: the captions hold no word')
    return Words(vocabulary, _length(rows, length, 4, 'words'))


def bytes(captions: Sequence[str], length: int = 0) -> Bytes:
    """One number a UTF-8 byte. length: 0 for the next multiple of 16 above the longest caption."""
    return Bytes(_length([caption.encode('utf-8') for caption in captions], length, 16, 'bytes'))


def from_json(stored: dict) -> Words | Bytes:
    """The tokenizer that `to_json` described. Raises ValueError for a kind that is none."""
    if stored.get('kind') == 'words':
        return Words(tuple(stored['vocabulary']), stored['length'])
    if stored.get('kind') == 'bytes':
        return Bytes(stored['length'])
    raise ValueError(f'tokenizer kind {stored.get("kind")!r}: there are words and bytes')


def _split(caption):
    return _WORD.findall(caption.lower().replace('’', "'"))


def _length(rows: Sequence[Sequence[str] | builtins.bytes], length, step, unit):
    longest = max((len(row) for row in rows), default=0)
    if length and length < longest:
        raise ValueError(f'length={length}: the longest caption has {longest} {unit}; use 0 or at least that')
    return length or (longest // step + 1) * step


def _pad(rows, captions, length, unit):
    padded = np.zeros((len(rows), length), np.int32)
    for row, numbers, caption in zip(padded, rows, captions):
        if len(numbers) > length:
            raise ValueError(f'{caption!r} has {len(numbers)} {unit}; this model takes at most {length}')
        row[: len(numbers)] = numbers
    return padded
