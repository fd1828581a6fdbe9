"""What a run writes of itself: metrics.jsonl, TensorBoard events, files that are whole or absent."""

import contextlib
import json
import math
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

# tensorboardX imports PyTorch where that is installed, and PyTorch's libraries would be loaded before JAX's.
_unseen = sys.modules.setdefault('torch', None) is None
try:
    import tensorboardX
finally:
    if _unseen:
        del sys.modules['torch']


@contextlib.contextmanager
def atomic(path):
    """A binary file that appears under `path` only when it was written to its end."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        with os.fdopen(handle, 'wb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
        raise


def write_json(path, value) -> None:
    """JSON, indented, atomically."""
    with atomic(path) as file:
        file.write((json.dumps(value, indent=2, ensure_ascii=False) + '\n').encode())


class Metrics:
    """Appends {'step': ..., 'time': ..., name: value} lines to metrics.jsonl and the same to TensorBoard."""

    def __init__(self, workdir: str, step: int):
        """step: the step the run goes on from; what a stopped run wrote of later steps will be written again."""
        self._path = Path(workdir) / 'metrics.jsonl'
        _forget_after(self._path, step)
        self._file = self._path.open('a', encoding='utf-8')
        # The suffix keeps two starts within one second apart: event files are named by the second.
        self._events = tensorboardX.SummaryWriter(
            workdir, purge_step=step + 1 if step else None, filename_suffix=f'.{step}'
        )

    def write(self, step: int, values: dict) -> None:
        """values: numbers (or text) by name; numbers that are not finite are written as null."""
        plain = {name: _plain(value) for name, value in values.items()}
        self._file.write(json.dumps({'step': step, 'time': round(time.time(), 3), **plain}) + '\n')
        self._file.flush()
        for name, value in plain.items():
            if isinstance(value, int | float):
                self._events.add_scalar(name, value, step)
        self._events.flush()

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """image: uint8 [H, W, 3], to TensorBoard."""
        self._events.add_image(name, image, step, dataformats='HWC')

    def close(self) -> None:
        self._file.close()
        self._events.close()


def scalars(folder, step: int, values: dict[str, float]) -> None:
    """Numbers by name to a TensorBoard file of their own in `folder`, beside those of other processes."""
    with tensorboardX.SummaryWriter(str(folder), filename_suffix=f'.{os.getpid()}.{step}.{time.time_ns()}') as events:
        for name, value in values.items():
            events.add_scalar(name, value, step)


class Unwritten:
    """`Metrics` of a process that leaves the writing to another."""

    def write(self, step: int, values: dict) -> None:
        pass

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        pass

    def close(self) -> None:
        pass


def _plain(value):
    if isinstance(value, str):
        return value
    value = value.item() if hasattr(value, 'item') else value
    return value if isinstance(value, int) or math.isfinite(value) else None


def _forget_after(path, step):
    if not path.exists():
        return
    lines = [line for line in path.read_text(encoding='utf-8').splitlines() if _step_of(line) <= step]
    with atomic(path) as file:
        file.write(''.join(f'{line}\n' for line in lines).encode())


def _step_of(line):
    try:
        return json.loads(line)['step']
    except (json.JSONDecodeError, KeyError, TypeError):
        return math.inf  # half a line, from a run that was killed while it wrote
