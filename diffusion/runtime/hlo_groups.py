"""Which devices a collective of a compiled program joins, in each of the forms that HLO writes them."""

import math
import re

import numpy as np


def groups(rest: str, devices: int) -> tuple[tuple[int, ...], ...]:
    """The numbers of the devices that exchange. rest: of the line, after its operands; devices: of the program. Raises
    ValueError for a form that is not known."""
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
