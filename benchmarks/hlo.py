"""What a compiled program does on each device, read from its HLO: multiplications and bytes exchanged.

XLA's own cost analysis counts the body of a loop once; here it counts as often as it runs.
"""

import collections
import dataclasses
import math
import re

import numpy as np

WIDTH = {'pred': 1, 's8': 1, 'u8': 1, 's16': 2, 'u16': 2, 'bf16': 2, 'f16': 2, 's32': 4, 'u32': 4, 'f32': 4, 's64': 8}
WIDTH |= {'u64': 8, 'f64': 8}
COLLECTIVES = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute')
_INSTRUCTION = re.compile(r'^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$')
_HEADER = re.compile(r'^(ENTRY )?%?([\w.\-]+) .*\{$')
_CALLED = re.compile(r'(?:calls|to_apply|body|condition)=%?([\w.\-]+)|branch_computations=\{([^}]*)\}')
_SHAPE = re.compile(r'(\w+)\[([\d,]*)\]')


@dataclasses.dataclass(frozen=True)
class Collective:
    """kind: of COLLECTIVES; bytes: of the larger of what goes in and comes out, a device; times: it runs; groups: the
    numbers of the devices that exchange."""

    kind: str
    bytes: int
    times: int
    groups: tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class Cost:
    """flops: of matrix products and convolutions on one device, two a multiplication."""

    flops: int
    collectives: tuple[Collective, ...]

    def exchanged(self, kind: str | None = None, crossing: int = 0) -> int:
        """Bytes a device; crossing: only between groups of so many neighbouring devices."""
        return sum(
            found.bytes * found.times
            for found in self.collectives
            if kind in (None, found.kind)
            and (not crossing or any(len({device // crossing for device in group}) > 1 for group in found.groups))
        )


@dataclasses.dataclass(frozen=True)
class _Line:
    name: str
    shape: str
    opcode: str
    rest: str


def cost(text: str, devices: int) -> Cost:
    """The cost of `compiled.as_text()` for a program on so many devices. Raises ValueError for a loop of unknown length
    around something that counts."""
    computations, entry = _parse(text)
    times: collections.Counter = collections.Counter()
    _count(computations, entry, 1, times)
    flops, collectives = 0, []
    for name, count in times.items():
        shapes = {line.name: line.shape for line in computations[name]}
        for line in computations[name]:
            flops += count * _flops(line, shapes)
            kind = line.opcode.removesuffix('-start')
            if kind in COLLECTIVES:
                size = max(_bytes(line.shape), sum(_bytes(shapes[name]) for name in _operands(line)))
                if math.isinf(count):
                    raise ValueError(f'{line.name} runs in a loop of unknown length')
                collectives.append(Collective(kind, size, count, _groups(line.rest, devices)))
    if math.isinf(flops) or math.isnan(flops):
        raise ValueError('a product runs in a loop of unknown length')
    return Cost(flops, tuple(collectives))


def _parse(text):
    computations, entry, inside = {}, None, None
    for row in text.splitlines():
        header = _HEADER.match(row)
        if header:
            inside = computations.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
        elif (found := _INSTRUCTION.match(row)) and inside is not None:
            inside.append(_Line(*found.groups()))
    return computations, entry


def _count(computations, name, count, times):
    times[name] += count
    for line in computations[name]:
        trips = re.search(r'known_trip_count":\{"n":"(\d+)"', line.rest)
        often = (int(trips[1]) if trips else math.inf) if line.opcode == 'while' else 1
        for one, several in _CALLED.findall(line.rest):
            for called in [one] if one else [part.strip().lstrip('%') for part in several.split(',')]:
                _count(computations, called, count * often, times)


def _sizes(shape):
    return [(WIDTH.get(kind, 0), [int(n) for n in dims.split(',') if n]) for kind, dims in _SHAPE.findall(shape)]


def _bytes(shape):
    return sum(width * math.prod(dims) for width, dims in _sizes(shape))


def _operands(line):
    return re.findall(r'%([\w.\-]+)', line.rest.split(')')[0])


def _flops(line, shapes):
    if line.opcode not in ('dot', 'convolution'):
        return 0
    made = math.prod(_sizes(line.shape)[0][1])
    left, right = (_sizes(shapes[name])[0][1] for name in _operands(line)[:2])
    if line.opcode == 'dot':
        axes = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', line.rest)[1]
        return 2 * made * math.prod(left[int(axis)] for axis in axes.split(',') if axis)
    kernel = re.search(r'dim_labels=\w+_(\w+)->', line.rest)[1]
    return 2 * made * math.prod(right) // right[kernel.index('o')]


def _groups(rest, devices):
    listed = re.search(r'(?:source_target_pairs|replica_groups)=\{(\{.*?\})\}', rest)
    if listed:
        return tuple(tuple(map(int, group.split(','))) for group in re.findall(r'\{([\d,]+)\}', listed[1]))
    iota = re.search(r'replica_groups=\[([\d,]+)\]<=(\S+)', rest)
    if iota:
        return tuple(map(tuple, _iota(iota[2]).reshape(_ints(iota[1])).tolist()))
    named = re.search(r'replica_groups=mesh\[(.*?)\](?:, device_ids=\((\[.*?\)?)\))? \{(.*?)\}', rest)
    if named:
        return _named(*named.groups())
    if 'replica_groups={}' not in rest and 'replica_groups=' in rest:
        raise ValueError(f'groups of devices in an unknown form: {rest}')
    return (tuple(range(devices)),)


def _ints(text):
    return [int(n) for n in text.split(',') if n]


def _iota(text):
    """'[2,4]T(1,0)': the numbers from 0 in that shape, transposed, in a row."""
    shape, axes = re.match(r'\[([\d,]+)\](?:T\(([\d,]+)\))?', text).groups()
    numbers = np.arange(math.prod(_ints(shape))).reshape(_ints(shape))
    return (numbers.transpose(_ints(axes)) if axes else numbers).reshape(-1)


def _named(mesh, order, along):
    """Groups along some axes of a mesh: "'a'=2,'b'=4", an order of its devices, "'a','b':(2)2" (the 2 within the 2)."""
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh)}
    numbers = _iota(order or f'[{math.prod(sizes.values())}]')
    parts = {name: [size] for name, size in sizes.items()}
    chosen = []
    for name, before, size in re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", along):
        if size:
            parts[name] = [int(before), int(size), sizes[name] // (int(before) * int(size))]
        chosen.append((name, 1 if size else 0))
    axes = [(name, i) for name in sizes for i in range(len(parts[name]))]
    grid = numbers.reshape([parts[name][i] for name, i in axes])
    grid = np.moveaxis(grid, [axes.index(axis) for axis in chosen], range(-len(chosen), 0))
    width = math.prod(parts[name][i] for name, i in chosen)
    return tuple(map(tuple, grid.reshape(-1, width).tolist()))
