"""Captions through a pretrained text encoder: read once on the host, and kept by the content of encoder and text."""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffusion import config as configs
from diffusion.data import wordpieces
from diffusion.nets import bert, safetensors
from diffusion.runtime import writer

KIND = 'encoder'
WEIGHTS, CONFIG = 'model.safetensors', 'config.json'
BLOCK = 2048  # captions of one file of the cache
BATCH = 64  # captions that are encoded together
ROUND = 8  # tokens a row that a length is rounded up to
STORED = np.float16  # of the states: their last layer is normalised


@dataclasses.dataclass(frozen=True)
class Encoder:
    """A pretrained encoder as the model knows it. sha256: of its files; length: L, tokens a row; width: D, features of
    a token; path: the folder of its files, where they are still needed; cache: where what it said is kept, '' for the
    user's own place. Two are equal where they say the same."""

    sha256: str
    length: int
    width: int
    path: str = dataclasses.field(compare=False)
    cache: str = dataclasses.field(default='', compare=False)

    size = 0  # numbers of a vocabulary: there is none, see width

    def encode(self, captions: Sequence[str]) -> np.ndarray:
        """float16 [B, L, D]: the states of each caption's tokens, then rows of zeros; the empty caption, and so the
        null condition, has none. Raises ValueError for a caption too long, and where the encoder is needed but gone."""
        found = self.states(captions)
        rows = np.zeros((len(captions), self.length, self.width), STORED)
        for i, caption in enumerate(captions):
            one = found[_key(caption)] if caption else rows[i, :0]
            if len(one) > self.length:
                raise ValueError(f'{caption!r} has {len(one)} tokens; this model takes at most {self.length}')
            rows[i, : len(one)] = one
        return rows

    def states(self, captions: Sequence[str]) -> dict[str, np.ndarray]:
        """float16 [l, D] of each caption that is not empty, by its `_key`; what is not known is encoded and kept."""
        kept = _cache(self.folder)
        wanted = {_key(caption): caption for caption in captions if caption}
        missing = [key for key in wanted if key not in kept]
        # Kept block by block, so that a start that was broken off goes on where it was.
        for start in range(0, len(missing), BLOCK):
            keys = missing[start : start + BLOCK]
            kept.add(keys, self._encoded([wanted[key] for key in keys]))
        return {key: kept[key] for key in wanted}

    def _encoded(self, captions) -> list[np.ndarray]:
        network = _opened(self.path)
        if network.sha256 != self.sha256:
            raise ValueError(
                f'{self.path} holds another text encoder ({network.sha256[:12]}) than this model was trained with '
                f'({self.sha256[:12]}): name that one by --config.text.path=DIR'
            )
        return network.states(captions)

    @property
    def folder(self) -> Path:
        """Of the cache of this encoder."""
        base = self.cache or os.path.join(
            os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache', 'diffusion', 'text'
        )
        return Path(base, self.sha256[:32])

    def to_json(self) -> dict:
        return {'kind': KIND, 'sha256': self.sha256, 'length': self.length, 'width': self.width}


def encoder(path: str = '', length: int = 0, cache: str = '', captions: Sequence[str] = ()) -> Encoder:
    """A folder of a BERT in Hugging Face's layout: config.json, model.safetensors, vocab.txt or tokenizer.json.

    length: tokens a row, 0 for the next multiple of 8 above the longest caption; cache: a folder for what it says.
    Encodes the captions that the cache does not hold. Raises ValueError.
    """
    if not path:
        raise ValueError(
            'path is missing: the folder of a pretrained encoder (config.json, model.safetensors, vocab.txt)'
        )
    network = _opened(path)
    made = Encoder(network.sha256, length, network.sizes.width, path, cache)
    found = made.states(captions)
    longest = max((len(one) for one in found.values()), default=0)
    if length and length < longest:
        raise ValueError(f'length={length}: the longest caption has {longest} tokens; use 0 or at least that')
    return dataclasses.replace(made, length=length or min((longest // ROUND + 1) * ROUND, network.sizes.positions))


def from_json(stored: dict, section: dict) -> Encoder:
    """What `to_json` described, with the places that the section `text` of a config names."""
    return Encoder(stored['sha256'], stored['length'], stored['width'], section['path'], section['cache'])


@dataclasses.dataclass(frozen=True, eq=False)
class _Network:
    sha256: str
    sizes: bert.Sizes
    tokens: wordpieces.WordPieces
    tensors: dict[str, np.ndarray]

    def states(self, captions) -> list[np.ndarray]:
        """In the order of captions; those of like length go together, which costs least."""
        order = sorted(range(len(captions)), key=lambda i: len(captions[i]))
        found: list = [None] * len(captions)
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            ids, mask = self.tokens.encode([captions[i] for i in some])
            if ids.shape[1] > self.sizes.positions:
                longest = captions[some[int(mask.sum(1).argmax())]]
                raise ValueError(f'{longest!r} has {ids.shape[1]} tokens; this encoder takes {self.sizes.positions}')
            every = bert.states(self.tensors, self.sizes, ids, mask)
            for i, rows, shown in zip(some, every, mask):
                found[i] = rows[shown].astype(STORED)
        return found


@functools.lru_cache(1)
def _opened(path: str) -> _Network:
    files = [Path(path, name) for name in (CONFIG, WEIGHTS)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ValueError(
            f'the text encoder is not in {path!r}: {missing[0]} is missing; name its folder by --config.text.path=DIR'
        )
    tokenizers = [Path(path, name) for name in wordpieces.FILES if Path(path, name).is_file()][:1]
    mark = hashlib.sha256()
    for file in (*files, *tokenizers):
        mark.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    try:
        told = json.loads(files[0].read_text(encoding='utf-8'))
        tensors, _ = safetensors.unpacked(files[1].read_bytes())
        found = bert.sizes(told if isinstance(told, dict) else {})
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error
    return _Network(mark.hexdigest(), found, wordpieces.opened(path), tensors)


def _key(caption: str) -> str:
    return hashlib.sha256(caption.encode()).hexdigest()[:32]


@functools.lru_cache(4)
def _cache(folder: Path) -> '_Cache':
    return _Cache(folder)


class _Cache:
    """States by key, in blocks: NAME.json has the keys and the tokens of each, NAME.npy all states one after the other.

    A block is written whole under a name of its content, so that processes may write at once.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._places: dict[str, tuple[str, int, int]] = {}
        self._blocks: dict[str, np.ndarray] = {}
        for path in sorted(folder.glob('*.json')) if folder.is_dir() else ():
            self._read(path)

    def _read(self, path):
        try:
            told = json.loads(path.read_text(encoding='utf-8'))
            values = np.load(path.with_suffix('.npy'), mmap_mode='r', allow_pickle=False)
            ends = np.cumsum(told['tokens'])
            if len(ends) != len(told['keys']) or ends[-1] != len(values) or values.dtype != STORED:
                return
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return  # cut short by a full disk, say: it is encoded again
        self._blocks[path.stem] = values
        for key, count, end in zip(told['keys'], told['tokens'], ends.tolist()):
            self._places[key] = (path.stem, end - count, end)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __getitem__(self, key: str) -> np.ndarray:
        name, begin, end = self._places[key]
        return np.asarray(self._blocks[name][begin:end])

    def add(self, keys: list[str], states: list[np.ndarray]) -> None:
        """One block."""
        path = self._folder / hashlib.sha256(''.join(keys).encode()).hexdigest()[:32]
        with writer.atomic(path.with_suffix('.npy')) as file:
            np.save(file, np.concatenate(states), allow_pickle=False)
        writer.write_json(path.with_suffix('.json'), {'keys': keys, 'tokens': [len(one) for one in states]})
        self._read(path.with_suffix('.json'))


def configured(config: configs.Config) -> bool:
    """Whether a config's text goes through a pretrained encoder."""
    return config.get('text', {}).get('name') == KIND
