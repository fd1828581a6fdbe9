"""Named tensors in files: safetensors and `.pth`; each known by the hash of its bytes."""

import hashlib
from pathlib import Path

import numpy as np

from diffusion.evaluation import torchfile
from diffusion.nets import safetensors


def read(path) -> tuple[dict[str, np.ndarray], dict[str, str], str]:
    """The tensors by name, what the file says of itself, and its SHA-256. Raises ValueError, one line, OSError."""
    data = Path(path).read_bytes()
    try:
        # The length before a .safetensors header, which begins with a brace, may be any bytes.
        if data[8:9] != b'{' and (data[:2] == b'PK' or data[:1] == b'\x80'):
            tensors, told = torchfile.read(data), {}
        else:
            tensors, told = safetensors.unpacked(data)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error
    return tensors, told, hashlib.sha256(data).hexdigest()
