"""safetensors files as arrays of numpy, and arrays as the bytes of such a file."""

import json
import math

import numpy as np

_TYPES = {'F64': '<f8', 'F32': '<f4', 'F16': '<f2', 'I64': '<i8', 'I32': '<i4', 'U8': 'u1', 'BOOL': '?'}
_LARGEST_HEADER = 100_000_000  # bytes, as the format says
METADATA = '__metadata__'


def packed(tensors: dict[str, np.ndarray], told: dict[str, str]) -> bytes:
    """float32 tensors and what is said of them as the bytes of a .safetensors file."""
    header, place = {METADATA: told}, 0
    for name in sorted(tensors):
        size = tensors[name].size * 4
        shape = list(tensors[name].shape)
        header[name] = {'dtype': 'F32', 'shape': shape, 'data_offsets': [place, place + size]}
        place += size
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)
    body = (np.ascontiguousarray(tensors[name], '<f4').tobytes() for name in sorted(tensors))
    return b''.join([len(text).to_bytes(8, 'little'), text, *body])


def unpacked(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors by name and what the file says of itself. Raises ValueError, one line."""
    size = int.from_bytes(data[:8], 'little')
    if len(data) < 8 or size > min(len(data) - 8, _LARGEST_HEADER):
        raise ValueError('neither a .safetensors file nor one of torch.save, or cut short')
    try:
        header = json.loads(data[8 : 8 + size])
        told = header.pop(METADATA, {})
        body = memoryview(data)[8 + size :]
        return {name: _tensor(name, one, body) for name, one in header.items()}, told
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f'damaged .safetensors file ({type(error).__name__}: {error})') from error


def _tensor(name, one, body):
    if one['dtype'] not in _TYPES:
        raise ValueError(f'{name} is stored as {one["dtype"]}: {", ".join(_TYPES)} are read')
    kind = np.dtype(_TYPES[one['dtype']])
    begin, end = one['data_offsets']
    if not 0 <= begin <= end <= len(body) or end - begin != kind.itemsize * math.prod(one['shape']):
        raise ValueError(f'{name} does not lie where the header says: cut short or damaged')
    return np.frombuffer(body[begin:end], kind).reshape(one['shape'])
