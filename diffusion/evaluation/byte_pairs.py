"""Captions as CLIP's tokens: byte pairs joined in the order that its files tell (Sennrich et al. 1508.07909)."""

import functools
import itertools
import json
import re
import unicodedata
from pathlib import Path

import numpy as np

START, END = '<|startoftext|>', '<|endoftext|>'
_ENDINGS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


class Vocabulary:
    """Tokens of captions by the files vocab.json and merges.txt of a folder. Raises ValueError for other files."""

    def __init__(self, folder, length: int):
        """length: tokens of a caption, with its start and end."""
        self._length = length
        try:
            tokens = json.loads(Path(folder, 'vocab.json').read_text(encoding='utf-8'))
            lines = Path(folder, 'merges.txt').read_text(encoding='utf-8').split('\n')
            pairs = [tuple(line.split()) for line in lines if line.strip() and not line.startswith('#version')]
            self._tokens = {str(word): int(token) for word, token in tokens.items()}
            self._start, self.end = self._tokens[START], self._tokens[END]
        except FileNotFoundError as error:
            raise ValueError(f'{error.filename} is missing: CLIP’s tokens are in vocab.json and merges.txt') from error
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ValueError(f'{folder}: vocab.json and merges.txt are not those of CLIP ({error})') from error
        if not all(len(pair) == 2 for pair in pairs):
            raise ValueError(f'{folder}: merges.txt holds a line that is no pair')
        self._rank = {pair: rank for rank, pair in enumerate(pairs)}
        self._joined = functools.cache(self._join)

    @property
    def size(self) -> int:
        """One above the largest token."""
        return 1 + max(self._tokens.values())

    def encode(self, captions: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Tokens int32 [B, length], filled up with the end, and the place of the first end, [B]; long ones are cut."""
        tokens = np.full((len(captions), self._length), self.end, np.int32)
        ends = np.zeros(len(captions), np.int32)
        for row, caption in enumerate(captions):
            text = re.sub(r'\s+', ' ', unicodedata.normalize('NFC', caption)).lower()
            found = [token for word in _words(text) for token in self._joined(word)][: self._length - 2]
            tokens[row, : len(found) + 1] = [self._start, *found]
            ends[row] = len(found) + 1
        return tokens, ends

    def _join(self, word):
        parts = [_letters()[byte] for byte in word.encode()]
        parts[-1] += '</w>'
        while len(parts) > 1:
            ranks = [self._rank.get(pair, np.inf) for pair in itertools.pairwise(parts)]
            rank, first = min(zip(ranks, itertools.count()))
            if rank == np.inf:
                break
            pair = (parts[first], parts[first + 1])
            joined, place = [], 0
            while place < len(parts):
                both = tuple(parts[place : place + 2]) == pair
                joined.append(''.join(pair) if both else parts[place])
                place += 2 if both else 1
            parts = joined
        return [self._tokens.get(part, self.end) for part in parts]


def _words(text):
    """Runs of letters, single digits, runs of anything else but spaces; the endings of English contractions apart."""
    place = 0
    while place < len(text):
        ending = next((one for one in _ENDINGS if text.startswith(one, place)), None)
        if ending:
            yield ending
            place += len(ending)
            continue
        kind, start = _kind(text[place]), place
        place += 1
        if kind == 'space':
            continue
        while kind != 'digit' and place < len(text) and _kind(text[place]) == kind:
            place += 1
        yield text[start:place]


def _kind(letter):
    if letter.isspace():
        return 'space'
    return {'L': 'letter', 'N': 'digit'}.get(unicodedata.category(letter)[0], 'other')


@functools.cache
def _letters():
    """A printable letter for each byte: itself where it is one, another from 256 on where not."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]
