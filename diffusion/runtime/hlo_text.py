"""The text of a compiled program (HLO) as lines by computation, and how often each of them runs.

The grammar is that of `compiled.as_text()` of XLA for CPUs, GPUs and TPUs; a line of it looks like
`%name = f32[8,64]{1,0:T(8,128)S(1)} fusion(%one, %other), kind=kLoop, calls=%computation`.
"""

import collections
import dataclasses
import functools
import math
import re

WIDTH = {'pred': 1, 's8': 1, 'u8': 1, 's16': 2, 'u16': 2, 'bf16': 2, 'f16': 2, 's32': 4, 'u32': 4, 'f32': 4, 's64': 8}
WIDTH |= {'u64': 8, 'f64': 8, 'c64': 8, 'c128': 16, 'f8e4m3fn': 1, 'f8e5m2': 1}
_INSTRUCTION = re.compile(r'^\s+(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$')
_HEADER = re.compile(r'^(ENTRY )?%?([\w.\-]+) .*\{$')
_CALLED = re.compile(
    r'(calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)|branch_computations=\{([^}]*)\}'
)
_LIBRARY = re.compile(r'custom_call_target="__cu(?:dnn|blas)\$(?:lt\$)?(\w+)')
_SHAPE = re.compile(r'(\w+)\[([\d,]*)\](?:\{([^}]*)\})?')
_SAME = ('copy', 'bitcast', 'convert', 'reshape')  # of a scalar these hand on its value


@dataclasses.dataclass(frozen=True)
class Line:
    """An instruction. shape: its text; rest: all after the opening bracket of its operands."""

    name: str
    shape: str
    opcode: str
    rest: str
    root: bool

    @functools.cached_property
    def operands(self) -> tuple[str, ...]:
        return tuple(re.findall(r'%([\w.\-]+)', self.rest.split(')')[0]))

    @functools.cached_property
    def called(self) -> tuple[tuple[str, str], ...]:
        """(how, computation): 'calls', 'to_apply', 'body', 'condition' or 'branch'."""
        found = []
        for how, one, several in _CALLED.findall(self.rest):
            names = [one] if one else [part.strip().lstrip('%') for part in several.split(',')]
            found += [('branch' if not how or how.endswith('computation') else how, name) for name in names]
        return tuple(found)

    @functools.cached_property
    def library(self) -> str:
        """What it calls of cuBLAS or cuDNN, as 'gemm' or 'convForward'; '' where it calls neither."""
        found = _LIBRARY.search(self.rest) if self.opcode == 'custom-call' else None
        return found[1] if found else ''

    def number(self, key: str, otherwise: int) -> int:
        """The value of key=NUMBER."""
        found = re.search(rf'\b{key}=(\d+)', self.rest)
        return int(found[1]) if found else otherwise


@dataclasses.dataclass(frozen=True)
class Program:
    """computations: their lines by name, of each computation in order."""

    computations: dict[str, dict[str, Line]]
    entry: str


def parse(text: str) -> Program:
    computations, entry, inside = {}, '', None
    for row in text.splitlines():
        header = _HEADER.match(row)
        if header:
            inside = computations.setdefault(header[2], {})
            entry = header[2] if header[1] else entry
        elif (found := _INSTRUCTION.match(row)) and inside is not None:
            root, name, shape, opcode, rest = found.groups()
            inside[name] = Line(name, shape, opcode, rest, bool(root))
    return Program(computations, entry)


def arrays(shape: str, main: bool = False) -> list[tuple[int, list[int]]]:
    """(bytes a number, sides) of the arrays of a shape; main: of those alone that lie in the main memory of the device
    and not in a faster one, which the layout of a TPU names S(1) and so on."""
    found = _SHAPE.findall(shape)
    return [
        (WIDTH.get(kind, 0), [int(n) for n in sides.split(',') if n])
        for kind, sides, layout in found
        if not (main and re.search(r'S\([1-9]', layout))
    ]


def parts(shape: str) -> list[str]:
    """The shapes of the arrays of a tuple."""
    return [found[0] for found in _SHAPE.finditer(shape)]


def size(shape: str, main: bool = False) -> int:
    """Bytes."""
    return sum(width * math.prod(sides) for width, sides in arrays(shape, main))


def times(program: Program, unknown: int | None = None, rare: str = '') -> tuple[dict[str, float], set[str], int]:
    """How often each computation runs, which of them are steps of the program by themselves rather than parts of a
    fusion or of a reduction, and how many loops have a length that the text does not tell. unknown: the rounds that
    such a loop counts for, None: infinitely many; rare: the scope of conditionals whose branches are left out.
    """
    often: collections.Counter = collections.Counter()
    whole: set[str] = set()
    open_loops = set()

    def visit(name, count, apart, outer):
        often[name] += count
        if apart:
            whole.add(name)
        for line in program.computations[name].values():
            if line.opcode == 'while':
                known = trips(program, name, line, outer)
                if known is None:
                    open_loops.add((name, line.name))
                rounds = (math.inf if unknown is None else unknown) if known is None else known
            elif line.opcode == 'conditional' and rare and f'/{rare}/' in line.rest:
                continue
            else:
                rounds = 1
            inside = apart and line.opcode in ('while', 'conditional', 'call', 'async-start')
            for _, called in line.called:
                visit(called, count * rounds, inside, (*outer, (name, line)))

    visit(program.entry, 1, True, ())
    return often, whole, len(open_loops)


def trips(program: Program, caller: str, line: Line, outer=()) -> int | None:
    """The rounds of a loop, None where they depend on what is computed. outer: (computation, line) that led to it."""
    told = re.search(r'known_trip_count":\{"n":"(\d+)"', line.rest)
    if told:
        return int(told[1])
    called = dict(line.called)
    condition, body = called['condition'], called['body']
    compared = _compared(program, condition)
    if compared is None:
        return None
    counter, limit, direction = compared
    where = (*outer, (caller, line))
    end = limit[1] if limit[0] == 'constant' else _value(program, where, limit[1])
    start = _value(program, where, counter[1])
    pace = _pace(program, body, counter[1])
    if end is None or start is None or not pace:
        return None
    end += {'LT': 0, 'GT': 0, 'LE': 1, 'GE': -1, 'NE': 0}.get(direction, 0)
    return max(-(-(end - start) // pace), 0)


def _root(program, name):
    return next(line for line in reversed(program.computations[name].values()) if line.root)


def _compared(program, condition):
    """(('element', index), what it is held against, direction) of the condition of a loop that counts."""
    compare = root = _root(program, condition)
    inside = condition
    if root.opcode == 'fusion':
        inside = dict(root.called)['calls']
        compare = _root(program, inside)
    if compare.opcode != 'compare':
        return None

    def source(name):
        found = _source(program, inside, name)
        if found[0] == 'parameter' and inside != condition:
            return _source(program, condition, root.operands[found[1]])
        return found

    direction = re.search(r'direction=(\w+)', compare.rest)[1]
    left, right = map(source, compare.operands[:2])
    if left[0] != 'element':
        left, right = right, left
        direction = {'LT': 'GT', 'GT': 'LT', 'LE': 'GE', 'GE': 'LE'}.get(direction, direction)
    if left[0] != 'element' or right[0] not in ('constant', 'element'):
        return None
    return left, right, direction


def _source(program, computation, name):
    """('constant', value), ('element', index of the computation's tuple), ('parameter', number) or ('other', line)."""
    lines = program.computations[computation]
    line = lines.get(name)
    while line is not None and line.opcode in _SAME and line.operands:
        line = lines.get(line.operands[0])
    if line is None:
        return 'other', None
    if line.opcode == 'constant' and re.match(r'-?\d+\)', line.rest):
        return 'constant', int(line.rest.split(')')[0])
    if line.opcode == 'parameter':
        return 'parameter', int(line.rest.split(')')[0])
    if line.opcode == 'get-tuple-element' and lines[line.operands[0]].opcode == 'parameter':
        return 'element', line.number('index', 0)
    return 'other', line


def _value(program, where, index):
    """What element of the tuple that a loop begins with is, where that is a constant. where: what led to the loop."""
    *outer, (caller, line) = where
    begun = program.computations[caller].get(line.operands[0])
    if begun is None or begun.opcode != 'tuple':
        return None
    kind, found = _source(program, caller, begun.operands[index])
    if kind == 'constant':
        return found
    # A constant that an outer loop hands from round to round unchanged.
    if kind == 'element' and outer and outer[-1][1].opcode == 'while':
        name, loop = outer[-1]
        if dict(loop.called).get('body') == caller and _kept(program, caller, found):
            return _value(program, (*outer[:-1], (name, loop)), found)
    return None


def _kept(program, body, index):
    root = _root(program, body)
    return root.opcode == 'tuple' and _source(program, body, root.operands[index]) == ('element', index)


def _pace(program, body, index):
    """What a round adds to the counter; None where that is no constant."""
    root = _root(program, body)
    if root.opcode != 'tuple':
        return None
    kind, line = _source(program, body, root.operands[index])
    computation = body
    if kind == 'other' and line is not None and line.opcode == 'fusion':
        computation = dict(line.called)['calls']
        line = _root(program, computation)
    if kind != 'other' or line is None or line.opcode not in ('add', 'subtract'):
        return None
    steps = [_source(program, computation, name) for name in line.operands[:2]]
    if computation != body:  # a constant may come from outside the fusion
        outer = program.computations[body][root.operands[index]]
        steps = [
            _source(program, body, outer.operands[found]) if how == 'parameter' else (how, found)
            for how, found in steps
        ]
    constants = [found for how, found in steps if how == 'constant']
    return (constants[0] if line.opcode == 'add' else -constants[0]) if constants else None
