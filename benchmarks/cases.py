"""The networks that are measured: a config, what is changed in it, and batches of the shapes of its data."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from diffusion import build

BATCHES = 8
LATENTS = build.Facts((32, 32, 4), tuple(map(str, range(1000))), None, 'float32', 1_000_000, 'none')
# A config without pictures of its own; the latents are drawn.
DIT = ('configs/toy2d.py', ('net.name=DiT', 'train.batch=16', 'sample.batch=16'))


@dataclasses.dataclass(frozen=True)
class Case:
    """overrides: 'section.key=value'; known: facts of data that are drawn, None for the config's own; large: left out
    where nothing else is asked; ways: further settings with which our step is measured, by name."""

    config: str
    overrides: tuple[str, ...] = ()
    known: build.Facts | None = None
    large: bool = False
    ways: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=lambda: {'ours': ()})

    def resolved(self, more=()) -> dict:
        return build.resolve(self.config, [*self.overrides, *more])

    def facts(self, config) -> build.Facts:
        return self.known or build.facts(config, build.source(config))


def _dit(large, **net):
    config, overrides = DIT
    # PointNet's values go with it.
    ways = {'ours': (), 'ours, unrolled': ('net.unroll=True',)}
    return Case(config, (*overrides, *(f'net.{key}={value}' for key, value in net.items())), LATENTS, large, ways)


CASES = {
    'U-Net, 16 x 16, width 32': Case('configs/emoji.py'),
    'DiT, 64 tokens, width 192, depth 6': _dit(False, patch=4, width=192, depth=6, heads=3),
    'U-Net, 32 x 32, width 64': Case(
        'configs/emoji.py', ('data.image_size=32', 'net.width=64', 'train.batch=32'), large=True
    ),
    'DiT-S/2, 256 tokens, width 384, depth 12': _dit(True, patch=2, width=384, depth=12, heads=6),
}
EMOJI = next(iter(CASES))


def random_batches(batch: int, facts) -> list[dict]:
    """Batches of the shapes of the data, filled at random; the last positions of a caption are padding."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(BATCHES):
        rows = {'image': rng.integers(0, 256, (batch, *facts.shape), np.uint8)}
        if facts.dtype != 'uint8':
            rows['image'] = rng.standard_normal((batch, *facts.shape), np.float32)
        rows['label'] = rng.integers(0, max(len(facts.classes), 1), batch, np.int32)
        if facts.tokenizer:
            length = facts.tokenizer.length
            tokens = rng.integers(1, facts.tokenizer.size, (batch, length), np.int32)
            rows['tokens'] = np.where(np.arange(length) < rng.integers(1, length, (batch, 1)), tokens, 0)
        found.append({name: np.ascontiguousarray(value) for name, value in rows.items()})
    return found
