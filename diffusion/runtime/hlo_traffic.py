"""Bytes that the steps of a compiled program move to and from the main memory of a device.

What a fusion computes on the way stays inside; of an array that it only slices it reads the slice, and of one that it
updates in place it writes the update: as XLA's own cost analysis counts (xla/service/hlo_cost_analysis.cc), which takes
the body of a loop once.
"""

from diffusion.runtime import hlo_text

_NOTHING = (
    *('parameter', 'constant', 'get-tuple-element', 'tuple', 'bitcast', 'after-all', 'partition-id', 'replica-id'),
    *('while', 'conditional', 'call', 'async-start', 'async-update', 'domain', 'add-dependency', 'opt-barrier'),
)
_SLICES = ('dynamic-slice', 'slice', 'gather')


def moved(program: hlo_text.Program, computation: str, line: hlo_text.Line) -> int:
    """Bytes of one run of an instruction that stands by itself."""
    if line.opcode in _NOTHING or line.opcode.endswith('-done'):
        return 0
    if line.opcode == 'custom-call' and 'AllocateBuffer' in line.rest:
        return 0
    lines = program.computations[computation]
    shapes = [lines[name].shape if name in lines else '' for name in line.operands]
    if line.opcode in ('copy-start', 'slice-start'):
        # (there, from where, context) of a copy, (from where, there, context) of a slice.
        there = hlo_text.parts(line.shape)[0 if line.opcode == 'copy-start' else 1]
        return hlo_text.size(there, True) + (hlo_text.size(there) if hlo_text.size(shapes[0], True) else 0)
    if line.opcode == 'fusion':
        fused = dict(line.called)['calls']
        read = sum(_read(program, fused, number, shape) for number, shape in enumerate(shapes))
        return read + _written(program, fused, line.shape)
    if line.opcode in _SLICES:
        return 2 * hlo_text.size(line.shape, True)
    if line.opcode == 'dynamic-update-slice':
        return 2 * hlo_text.size(shapes[1], True)
    if line.opcode == 'scatter':
        return hlo_text.size(shapes[1], True) + 3 * hlo_text.size(shapes[2], True)
    made = hlo_text.parts(line.shape)
    if line.library and len(made) > 1:
        made = made[:-1]  # the last is what the library works in
    return sum(hlo_text.size(shape, True) for shape in (*made, *shapes))


def _read(program, fused, number, shape):
    """Bytes that a fusion reads of its operand of this number and shape."""
    whole = hlo_text.size(shape, True)
    if not whole:
        return 0
    lines = program.computations[fused]
    own = next((x for x in lines.values() if x.opcode == 'parameter' and x.rest.startswith(f'{number})')), None)
    if own is None:
        return whole
    total, aliases = 0, [own.name]
    for name in aliases:
        for user in lines.values():
            if name not in user.operands:
                continue
            if user.opcode == 'bitcast':
                aliases.append(user.name)
            elif user.opcode == 'tuple' and user.root:
                continue  # handed on as it is
            elif user.opcode in _SLICES and user.operands[0] == name:
                total += hlo_text.size(user.shape)
            elif user.opcode == 'dynamic-update-slice' and user.operands[0] == name:
                continue
            elif user.opcode == 'fusion':
                inner = dict(user.called)['calls']
                total += sum(_read(program, inner, i, shape) for i, each in enumerate(user.operands) if each == name)
            else:
                return whole
    return min(total, whole)


def _written(program, fused, shape):
    """Bytes that a fusion of that shape writes."""
    lines = program.computations[fused]
    root = next(line for line in lines.values() if line.root)
    parts = [lines[name] for name in root.operands] if root.opcode == 'tuple' else [root]
    wholes = hlo_text.parts(shape)
    if len(parts) != len(wholes):
        return hlo_text.size(shape, True)
    total = 0
    for part, whole in zip(parts, wholes):
        while part.opcode == 'bitcast' and part.operands[0] in lines:
            part = lines[part.operands[0]]
        if part.opcode == 'parameter' and root.opcode == 'tuple':
            continue
        updated = part.opcode == 'dynamic-update-slice' and hlo_text.size(whole, True)
        total += hlo_text.size(lines[part.operands[1]].shape if updated else whole, not updated)
    return total
