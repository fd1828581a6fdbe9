"""TPU types: how many hosts, chips and which names the two APIs of Google Cloud give them.

Sources: cloud.google.com/tpu/docs/v5e, v5p, v6e, v4 (types and topologies), /tpu/docs/runtimes (runtime versions),
cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus (node labels), read in 2026. None of it was run on a TPU.
"""

import dataclasses
import math
import re

from diffusion import usage


@dataclasses.dataclass(frozen=True)
class Generation:
    """counted: what the number in a type's name counts for one chip; flat: two-dimensional slices, of which one host
    has up to 8 chips; api: the type's name before its number at the TPU API, '' where that has no queued resources."""

    api: str
    gke: str
    runtime: str
    counted: int
    flat: bool


GENERATIONS = {
    'v4': Generation('v4', 'tpu-v4-podslice', 'tpu-ubuntu2204-base', 2, False),
    'v5e': Generation('v5litepod', 'tpu-v5-lite-podslice', 'v2-alpha-tpuv5-lite', 1, True),
    'v5p': Generation('v5p', 'tpu-v5p-slice', 'v2-alpha-tpuv5', 2, False),
    'v6e': Generation('v6e', 'tpu-v6e-slice', 'v2-alpha-tpuv6e', 1, True),
    'tpu7x': Generation('', 'tpu7x', '', 2, False),
}
FLAT = {1: '1x1', 4: '2x2', 8: '2x4', 16: '4x4', 32: '4x8', 64: '8x8', 128: '8x16', 256: '16x16'}
# The usual shape of each number of chips; others are asked for as v5p:4x4x8.
DEEP = {4: '2x2x1', 8: '2x2x2', 16: '2x2x4', 32: '2x4x4', 64: '4x4x4', 128: '4x4x8', 256: '4x8x8', 512: '8x8x8'}


@dataclasses.dataclass(frozen=True)
class Slice:
    """One slice of a TPU pod."""

    generation: str
    topology: str

    @property
    def _of(self) -> Generation:
        return GENERATIONS[self.generation]

    @property
    def chips(self) -> int:
        return math.prod(map(int, self.topology.split('x')))

    @property
    def hosts(self) -> int:
        return 1 if self._of.flat and self.chips <= 8 else max(self.chips // 4, 1)

    @property
    def chips_a_host(self) -> int:
        return self.chips // self.hosts

    @property
    def api(self) -> str:
        """The accelerator type of the TPU API, v5litepod-16; '' where it has none."""
        return self._of.api and f'{self._of.api}-{self.chips * self._of.counted}'

    @property
    def gke(self) -> str:
        return self._of.gke

    @property
    def runtime(self) -> str:
        return self._of.runtime


def tpu(name: str) -> Slice | None:
    """v5e-16, v5litepod-16 (as Google Cloud counts) or v5e:4x4; None where it is no TPU."""
    found = re.fullmatch(r'(v[0-9]+[a-z]*|tpu7x|tpuv7x)[-:]([0-9x]+)', name)
    if not found:
        return None
    kind = {'v5litepod': 'v5e', 'v5lite': 'v5e', 'v7x': 'tpu7x', 'tpuv7x': 'tpu7x'}.get(found[1], found[1])
    if kind not in GENERATIONS:
        raise usage.UsageError(usage.unknown('TPU', found[1], GENERATIONS))
    generation = GENERATIONS[kind]
    shapes = FLAT if generation.flat else DEEP
    if ':' in name:
        sides = found[2].split('x')
        if not re.fullmatch(r'\d+(x\d+)+', found[2]) or len(sides) != (2 if generation.flat else 3):
            wanted = ', '.join(shapes.values())
            raise usage.UsageError(f'--type={name}: the shape of a {kind} slice is one of {wanted}, or larger')
        return Slice(kind, found[2])
    number = int(found[2]) / generation.counted if found[2].isdecimal() else 0
    if number not in shapes:
        sizes = ', '.join(f'{kind}-{chips * generation.counted}' for chips in shapes)
        raise usage.UsageError(f'--type={name}: there are {sizes}; other shapes as {kind}:{list(shapes.values())[-1]}')
    return Slice(kind, shapes[int(number)])
