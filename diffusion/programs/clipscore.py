"""The CLIP score of samples: how near a pretrained network puts a picture to the caption it was drawn from."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffusion.evaluation import byte_pairs, tensorfile
from diffusion.nets import clip, functional
from diffusion.programs import calls
from diffusion.runtime import mesh as meshes

WEIGHT = 2.5  # of Hessel et al. 2104.08718, equation of section 3


@dataclasses.dataclass(frozen=True)
class Scorer:
    """told: of the network, JSON values, for the protocol."""

    told: dict
    image: Any
    text: Any
    words: byte_pairs.Vocabulary
    grid: jax.sharding.Mesh
    batch: int
    channels: int

    def scores(self, images: np.ndarray, captions: list[str]) -> np.ndarray:
        """2.5 max(cosine, 0) of each picture, uint8 [N, H, W, C], and its caption: [N] in [0, 2.5]."""
        return WEIGHT * np.maximum(self.cosines(images, captions), 0)

    def cosines(self, images: np.ndarray, captions: list[str]) -> np.ndarray:
        tokens, ends = self.words.encode(captions)
        rgb = images if self.channels == 3 else np.repeat(images, 3, -1)
        seen = self._over(self.image, {'images': rgb})
        read = self._over(self.text, {'tokens': tokens, 'ends': ends})
        return (seen.astype(np.float64) * read).sum(1)

    def _over(self, tower, inputs):
        params, apply = tower
        count = len(next(iter(inputs.values())))
        compiled = calls.compiled(
            calls.precise(lambda params, given: apply(params, *(given[name] for name in inputs))),
            self.grid,
            self.batch,
            count,
        )
        fixed = jax.device_put(params, meshes.replicated(self.grid))
        return np.concatenate(list(compiled.over(fixed, lambda rows: {k: v[rows] for k, v in inputs.items()}, count)))


def opened(folder: str, channels: int, grid, batch: int) -> Scorer:
    """CLIP of a folder in the layout of Hugging Face: model.safetensors, vocab.json, merges.txt. Raises ValueError."""
    path = Path(folder, 'model.safetensors')
    if not path.is_file():
        raise ValueError(
            f'--clip={folder}: there is no {path.name}; a folder with model.safetensors, vocab.json and merges.txt of '
            'a CLIP in the layout of Hugging Face is wanted, as openai/clip-vit-base-patch32 has them; without it '
            '--metrics=captions tells whether samples are those of their captions'
        )
    if channels not in (1, 3):
        raise ValueError(f'CLIP sees RGB or grey pictures, these have {channels} channels')
    tensors, _, mark = tensorfile.read(path)
    try:
        (image, image_params), (text, text_params) = clip.image_tower(tensors), clip.text_tower(tensors)
        words = byte_pairs.Vocabulary(folder, text['length'])
        if words.size > text['vocabulary']:
            raise ValueError(f'vocab.json has {words.size} tokens, the network knows {text["vocabulary"]}')
    except ValueError as error:
        raise ValueError(f'--clip={folder}: {error}') from error
    files = b''.join(Path(folder, name).read_bytes() for name in ('vocab.json', 'merges.txt'))
    told = {
        'network': 'clip',
        'sha256': mark,
        'words': hashlib.sha256(files).hexdigest()[:16],
        'resize': f'bicubic to {image["patch"] * image["side"]} with antialias, as Pillow on floats',
        'prompt': 'the caption as it is',
    }
    towers = [
        (image_params, functional.functional(lambda rngs: clip.ImageTower(**image, rngs=rngs)).apply),
        (text_params, functional.functional(lambda rngs: clip.TextTower(**text, rngs=rngs)).apply),
    ]
    return Scorer(told, *towers, words, grid, batch, channels)
