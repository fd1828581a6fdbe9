"""Tensors of a `.pth` file without PyTorch and without unpickling: its program is followed, but of all that it may name
only the rebuilding of tensors in a dictionary is done, and nothing is imported or called."""

import dataclasses
import io
import math
import pickletools
import zipfile

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C  # of files from before PyTorch 1.6, which are no archives
_TYPES = {'Float': '<f4', 'Half': '<f2', 'Double': '<f8', 'Long': '<i8', 'Int': '<i4', 'Byte': 'u1', 'Bool': '?'}
_DICTIONARY = 'collections OrderedDict'
_TENSOR = 'torch._utils _rebuild_tensor_v2'
_PARAMETER = 'torch._utils _rebuild_parameter'
_STORAGES = {f'torch {name}Storage': np.dtype(kind) for name, kind in _TYPES.items()}
_NAMES = {_DICTIONARY, _TENSOR, _PARAMETER, *_STORAGES}
_MARK = object()


@dataclasses.dataclass(frozen=True)
class _Name:
    word: str


@dataclasses.dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    count: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple
    strides: tuple


def read(data: bytes) -> dict[str, np.ndarray]:
    """A state dictionary, names to arrays, of a file that torch.save wrote. Raises ValueError for anything else."""
    try:
        return _archive(data) if data.startswith(b'PK') else _plain(io.BytesIO(data))
    except (IndexError, KeyError, TypeError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f'damaged or no file of tensors ({type(error).__name__}: {error})') from error


def _archive(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        programs = [name for name in archive.namelist() if name.endswith('/data.pkl')]
        if len(programs) != 1:
            raise ValueError('an archive without data.pkl: not written by torch.save')
        root = programs[0].removesuffix('data.pkl')
        order = archive.read(f'{root}byteorder') if f'{root}byteorder' in archive.namelist() else b'little'
        if order != b'little':
            raise ValueError('its numbers are stored big-endian, which is not read')
        found = _followed(archive.open(programs[0]))
        return _tensors(found, lambda storage: archive.read(f'{root}data/{storage.key}'))


def _plain(file):
    if _followed(file) != MAGIC or _followed(file) != 1001:
        raise ValueError('neither an archive nor the older format of torch.save')
    _followed(file)  # the machine it was written on
    found = _followed(file)
    keys = _followed(file)
    sizes = {storage.key: storage for storage in (one.storage for one in _flat(found).values())}
    stored = {}
    for key in keys:
        count = int.from_bytes(file.read(8), 'little')
        if key not in sizes or count != sizes[key].count:
            raise ValueError(f'storage {key} is not of the size that is said')
        stored[key] = file.read(count * sizes[key].dtype.itemsize)
    return _tensors(found, lambda storage: stored[storage.key])


def _flat(found):
    if isinstance(found, dict) and isinstance(found.get('state_dict'), dict):
        found = found['state_dict']
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ValueError('it holds no dictionary of tensors')
    return {name: one for name, one in found.items() if isinstance(one, _Tensor)}


def _tensors(found, stored):
    return {name: _array(name, one, stored(one.storage)) for name, one in _flat(found).items()}


def _array(name, tensor, data):
    values = np.frombuffer(data, tensor.storage.dtype)
    if len(values) != tensor.storage.count:
        raise ValueError(f'{name}: {len(values)} numbers where {tensor.storage.count} are said')
    if min((tensor.offset, *tensor.shape, *tensor.strides)) < 0 or len(tensor.shape) != len(tensor.strides):
        raise ValueError(f'{name}: no shape {tensor.shape} with strides {tensor.strides}')
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides))
    if not math.prod(tensor.shape):
        return np.zeros(tensor.shape, values.dtype)
    if last >= len(values):
        raise ValueError(f'{name}: reaches beyond its storage')
    step = values.dtype.itemsize
    strides = [stride * step for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.shape, strides).copy()


def _followed(file):
    """The value that a pickle's program makes; its place in the file is then after it."""
    stack, memo = [], {}
    for code, value, _ in pickletools.genops(file):
        if code.name == 'STOP':
            return stack.pop()
        _step(code.name, value, stack, memo)
    raise EOFError


def _step(code, value, stack, memo):
    """One instruction. Raises ValueError for what no tensors need."""
    if code in ('PROTO', 'FRAME'):
        return
    if code in _CONSTANTS:
        stack.append(_CONSTANTS[code]())
    elif code in _LITERALS:
        stack.append(value)
    elif code in ('BINPUT', 'LONG_BINPUT'):
        memo[value] = stack[-1]
    elif code == 'MEMOIZE':
        memo[len(memo)] = stack[-1]
    elif code in ('BINGET', 'LONG_BINGET'):
        stack.append(memo[value])
    elif code in ('TUPLE1', 'TUPLE2', 'TUPLE3'):
        count = int(code[-1])
        stack[-count:] = [tuple(stack[-count:])]
    elif code == 'TUPLE':
        stack.append(tuple(_marked(stack)))
    elif code in ('SETITEM', 'SETITEMS'):
        pairs = _marked(stack) if code == 'SETITEMS' else [stack.pop() for _ in range(2)][::-1]
        stack[-1].update(zip(pairs[::2], pairs[1::2]))
    elif code in ('APPEND', 'APPENDS'):
        values = _marked(stack) if code == 'APPENDS' else [stack.pop()]
        stack[-1].extend(values)
    elif code == 'GLOBAL':
        stack.append(_name(value))
    elif code == 'STACK_GLOBAL':
        name, module = stack.pop(), stack.pop()
        stack.append(_name(f'{module} {name}'))
    elif code == 'BINPERSID':
        stack.append(_storage(stack.pop()))
    elif code == 'REDUCE':
        given, name = stack.pop(), stack.pop()
        stack.append(_made(name, given))
    elif code == 'BUILD' and isinstance(stack[-2], dict):
        stack.pop()  # what PyTorch notes of the versions of its modules
    else:
        raise ValueError(f'its program does what no file of tensors needs ({code}): not read')


_CONSTANTS = {
    'MARK': lambda: _MARK,
    'NONE': lambda: None,
    'NEWTRUE': lambda: True,
    'NEWFALSE': lambda: False,
    'EMPTY_DICT': dict,
    'EMPTY_LIST': list,
    'EMPTY_TUPLE': tuple,
}
_LITERALS = {'BINUNICODE', 'SHORT_BINUNICODE', 'BININT', 'BININT1', 'BININT2', 'LONG1', 'BINFLOAT'}


def _marked(stack):
    place = len(stack) - 1 - stack[::-1].index(_MARK) if _MARK in stack else -1
    if place < 0:
        raise ValueError('damaged: a list without a beginning')
    values = stack[place + 1 :]
    del stack[place:]
    return values


def _name(word):
    if word not in _NAMES:
        raise ValueError(f'its program names {word.replace(" ", ".")!r}, which no file of tensors needs: not read')
    return _Name(word)


def _storage(told):
    kind, name, key, _, count = told[:5]
    if kind != 'storage' or not isinstance(name, _Name) or name.word not in _STORAGES:
        raise ValueError('a reference to something that is no storage of numbers')
    return _Storage(str(key), _STORAGES[name.word], int(count))


def _made(name, given):
    if not isinstance(name, _Name):
        raise ValueError('its program calls what is no name: not read')
    if name.word == _DICTIONARY:
        return dict(*given)
    if name.word == _TENSOR:
        storage, offset, shape, strides = given[:4]
        if not isinstance(storage, _Storage):
            raise ValueError('a tensor without a storage')
        return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))
    if name.word == _PARAMETER and isinstance(given[0], _Tensor):
        return given[0]
    raise ValueError(f'its program calls {name.word.replace(" ", ".")!r}: not read')
