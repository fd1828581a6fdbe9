"""Captions as BERT's tokens: words cut into the longest pieces that a vocabulary knows (Devlin et al. 1810.04805)."""

import dataclasses
import functools
import json
import unicodedata
from pathlib import Path

import numpy as np

START, END, UNKNOWN, PADDING = '[CLS]', '[SEP]', '[UNK]', '[PAD]'
LONGEST = 100  # characters of a word that is cut; a longer one is unknown
FILES = ('vocab.txt', 'tokenizer.json')


@dataclasses.dataclass(frozen=True, eq=False)
class WordPieces:
    """vocabulary: pieces to numbers, with the four special ones; lower: whether case and accents are dropped."""

    vocabulary: dict[str, int]
    lower: bool

    def encode(self, texts: list[str], length: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """ids: int32 [B, L], with start, end and padding; mask: bool [B, L], what is no padding.

        length: L, 0 for the longest. Raises ValueError for a text that has more tokens.
        """
        rows = [[self.vocabulary[START], *self._pieces(text), self.vocabulary[END]] for text in texts]
        longest = length or max(map(len, rows))
        ids = np.full((len(rows), longest), self.vocabulary[PADDING], np.int32)
        mask = np.zeros(ids.shape, bool)
        for i, row in enumerate(rows):
            if len(row) > longest:
                raise ValueError(f'{texts[i]!r} has {len(row)} tokens; this model takes at most {longest}')
            ids[i, : len(row)] = row
            mask[i, : len(row)] = True
        return ids, mask

    def _pieces(self, text):
        for word in _words(text, self.lower):
            yield from self._cut(word)

    @functools.cached_property
    def _cut(self):
        return functools.lru_cache(65536)(self._cut_word)

    def _cut_word(self, word):
        if len(word) > LONGEST:
            return [self.vocabulary[UNKNOWN]]
        found, begin = [], 0
        while begin < len(word):
            ends = range(len(word), begin, -1)
            names = ((end, ('##' if begin else '') + word[begin:end]) for end in ends)
            end, name = next((pair for pair in names if pair[1] in self.vocabulary), (0, ''))
            if not end:
                return [self.vocabulary[UNKNOWN]]
            found.append(self.vocabulary[name])
            begin = end
        return found


def opened(folder) -> WordPieces:
    """The tokens of a folder in Hugging Face's layout. Raises ValueError."""
    vocabulary, lower = None, True
    try:
        told = Path(folder, 'tokenizer_config.json')
        if told.is_file():
            lower = bool(json.loads(told.read_text(encoding='utf-8')).get('do_lower_case', True))
        if Path(folder, FILES[0]).is_file():
            lines = Path(folder, FILES[0]).read_text(encoding='utf-8').split('\n')
            vocabulary = {line.rstrip('\r'): number for number, line in enumerate(lines) if line.strip()}
        elif Path(folder, FILES[1]).is_file():
            stored = json.loads(Path(folder, FILES[1]).read_text(encoding='utf-8'))
            if stored['model'].get('type') != 'WordPiece':
                raise ValueError(f'its tokens are {stored["model"].get("type")}: WordPiece is read')
            vocabulary = {str(piece): int(number) for piece, number in stored['model']['vocab'].items()}
            lower = bool((stored.get('normalizer') or {}).get('lowercase', lower))
    except (OSError, KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f'{folder}: its tokenizer cannot be read ({type(error).__name__}: {error})') from error
    if vocabulary is None:
        raise ValueError(f'{folder} holds neither {" nor ".join(FILES)}, so its tokens are not known')
    missing = [piece for piece in (START, END, UNKNOWN, PADDING) if piece not in vocabulary]
    if missing:
        raise ValueError(f'{folder}: its vocabulary has no {missing[0]}: that of a BERT is wanted')
    return WordPieces(vocabulary, lower)


def _words(text: str, lower: bool) -> list[str]:
    """Words and single punctuation marks, as BERT's basic tokenizer tells them apart."""
    spaced = []
    for letter in text:
        kind = unicodedata.category(letter)
        if letter in '\t\n\r' or kind == 'Zs':
            spaced.append(' ')
        elif ord(letter) in (0, 0xFFFD) or kind.startswith('C'):
            continue
        elif _is_ideograph(ord(letter)):
            spaced.append(f' {letter} ')
        else:
            spaced.append(letter)
    text = ''.join(spaced)
    if lower:
        text = ''.join(c for c in unicodedata.normalize('NFD', text.lower()) if unicodedata.category(c) != 'Mn')
    return ''.join(f' {letter} ' if _is_punctuation(letter) else letter for letter in text).split()


def _is_punctuation(letter):
    return letter in '!"#$%&\'()*+,-./:;<=>?@[\\]^_`{|}~' or unicodedata.category(letter).startswith('P')


def _is_ideograph(code):
    ranges = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F))
    return any(low <= code <= high for low, high in (*ranges, (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F)))
