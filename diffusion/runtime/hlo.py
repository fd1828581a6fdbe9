"""What a compiled program does on each device, read from its HLO: multiplications, bytes moved and bytes exchanged.

XLA's own cost analysis counts the body of a loop once; here it counts as often as it runs.
"""

import dataclasses
import math
import re

from diffusion.runtime import hlo_groups, hlo_products, hlo_text, hlo_traffic

BETWEEN = 'between slices'  # what XLA for TPUs gives to the hosts to send
COLLECTIVES = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute')


@dataclasses.dataclass(frozen=True)
class Collective:
    """kind: of COLLECTIVES, or BETWEEN; bytes: of the larger of what goes in and comes out, a device; times: it runs;
    groups: the numbers of the devices that exchange; name: what of the source it comes from, as far as that is told."""

    kind: str
    bytes: int
    times: int
    groups: tuple[tuple[int, ...], ...]
    name: str = ''

    def sent(self, neighbours: int) -> tuple[float, float]:
        """(to neighbours, beyond them) that a device must send at least, in bytes over all runs, where so many devices
        are neighbours: of rings (Patarasuk & Yuan 2009), first among neighbours, then each with its part beyond."""
        whole = self.bytes * self.times
        if self.kind in ('collective-permute', BETWEEN):
            return (0.0, whole) if self.crosses(neighbours) else (whole, 0.0)
        group = max(self.groups, key=len)
        apart = len({device // neighbours for device in group})
        near = len(group) / apart
        whole *= 2 if self.kind == 'all-reduce' else 1
        return whole * (near - 1) / near, whole * (apart - 1) / apart / near

    def crosses(self, neighbours: int) -> bool:
        """Whether it joins devices of different groups of so many neighbours."""
        return any(len({device // neighbours for device in group}) > 1 for group in self.groups)


@dataclasses.dataclass(frozen=True)
class Cost:
    """flops: of matrix products and convolutions on one device, two a multiplication, products with padding left out;
    work: the same times the passes that the matrix units of a TPU take for the precision asked for (six in bfloat16 for
    a float32 product of `jax.lax.Precision.HIGHEST`); bytes: to and from its main memory; open: loops of unknown length
    that counted as `cost` was told."""

    flops: int
    work: int
    bytes: int
    collectives: tuple[Collective, ...]
    open: int = 0

    def exchanged(self, kind: str | None = None, crossing: int = 0) -> int:
        """Bytes a device; crossing: only between groups of so many neighbouring devices."""
        return sum(
            found.bytes * found.times
            for found in self.collectives
            if kind in (None, found.kind) and (not crossing or found.crosses(crossing))
        )


def cost(text: str, devices: int, unknown: int | None = None, rare: str = '') -> Cost:
    """The cost of `compiled.as_text()` for a program on so many devices.

    unknown: the rounds that a loop of unknown length counts for; None: such a loop around something that counts
    raises ValueError. rare: a `jax.named_scope` whose branches (`lax.cond`) are left out.
    """
    program = hlo_text.parse(text)
    often, whole, loops = hlo_text.times(program, unknown, rare)
    flops, work, moved, collectives = 0, 0, 0, []
    for name, count in often.items():
        lines = program.computations[name]
        shapes = {line.name: line.shape for line in lines.values()}
        for line in lines.values():
            if products := hlo_products.flops(line, shapes):
                flops += count * products
                work += count * products * hlo_products.passes(line, shapes)
            if name in whole:
                size = hlo_traffic.moved(program, name, line)
                # What a loop of unknown length moves is not known, but no reason to refuse the rest.
                moved += size * (1 if math.isinf(count) else count)
            kind = line.opcode.removesuffix('-start')
            if kind == 'send' and 'megascale' in line.rest:
                size = hlo_text.size(shapes[line.operands[0]])
                # Groups are numbered within a slice there: this is any that joins two.
                collectives.append((line, Collective(BETWEEN, size, int(count), ((0, devices - 1),))))
            if kind in COLLECTIVES:
                if math.isinf(count):
                    raise ValueError(f'{line.name} runs in a loop of unknown length')
                collectives.append((line, _collective(name, line, kind, shapes, count, devices)))
    if math.isinf(flops) or math.isnan(flops):
        raise ValueError('a product runs in a loop of unknown length')
    return Cost(int(flops), int(work), int(moved), _once(collectives), loops)


def _collective(computation, line, kind, shapes, count, devices):
    inside = sum(hlo_text.size(shapes.get(name, '')) for name in line.operands)
    # What is under way is a tuple of what went in and what comes out.
    outside = hlo_text.size(line.shape) - (inside if line.opcode.endswith('-start') and kind != 'all-reduce' else 0)
    # XLA for TPUs writes a reduce-scatter as a fusion of this name around an all-reduce and a slice.
    kind = 'reduce-scatter' if 'all-reduce-scatter' in computation and kind == 'all-reduce' else kind
    told = re.search(r'op_name="([^"]*)"', line.rest)
    groups = hlo_groups.groups(line.rest, devices)
    return Collective(kind, max(inside, outside), int(count), groups, told[1] if told else '')


def _once(found) -> tuple[Collective, ...]:
    """XLA for TPUs moves a part of a collective along in each of several fusions: they are one, of one channel, which
    runs as often as the fusion that begins it."""
    apart, joined = [], {}
    for line, collective in found:
        if 'async_collective_fusion_config' in line.rest:
            before = joined.setdefault(line.number('channel_id', 0), collective)
            joined[line.number('channel_id', 0)] = min(before, collective, key=lambda one: one.times)
        else:
            apart.append(collective)
    return (*apart, *joined.values())
