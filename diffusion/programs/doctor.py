"""`diffusion doctor`: what is installed, what devices there are, what is missing and the line that mends it."""

import importlib.metadata
import os
import platform as machine
import sys
from pathlib import Path

from diffusion import usage

PACKAGES = (
    'jax',
    'jaxlib',
    'flax',
    'optax',
    'orbax-checkpoint',
    'grain',
    'tensorflow-datasets',
    'ml-collections',
    'numpy',
    'pillow',
    'libtpu',
    'jax-cuda12-plugin',
    'jax-cuda13-plugin',
)
LOCK = Path('/tmp/libtpu_lockfile')
OPTIONAL = frozenset({'libtpu', 'jax-cuda12-plugin', 'jax-cuda13-plugin'})


def main(argv: list[str]) -> int:
    """Prints the report; exit status 0, or 2 where a device of this machine would go unused or a package is missing."""
    usage.Parser('doctor', __doc__.split(': ', 1)[1]).parse(argv)
    print(f'python    {machine.python_version()} on {machine.system()} {machine.machine()}, {sys.executable}')
    print(f'cores     {os.cpu_count()}')
    missing = []
    for name in PACKAGES:
        version = _version(name)
        if version or name not in OPTIONAL:
            print(f'{name:<20} {version or "MISSING"}')
        if not version and name not in OPTIONAL:
            missing.append(name)
    if missing:
        raise usage.UsageError(f'missing packages: pip install {" ".join(missing)}')
    return _devices()


def _devices() -> int:
    from diffusion.runtime import platform

    hidden = platform.hidden_accelerators()
    with usage.checked():
        devices = platform.configure(batch=8)
    kinds = {device.device_kind for device in devices}
    print(f'devices   {len(devices)} x {devices[0].platform} ({", ".join(sorted(kinds))})')
    print(f'files     {", ".join(hidden) if hidden else "no GPU or TPU"} among the device files of this machine')
    _lock()
    _ceilings(devices)
    print('verdict   ready')
    return 0


def _lock() -> None:
    """Who has the file open by which the TPU library keeps a second process from a TPU that is in use."""
    if not LOCK.exists():
        return
    owners = []
    for folder in Path('/proc').glob('[0-9]*'):
        try:
            if any(os.path.realpath(entry) == str(LOCK) for entry in (folder / 'fd').iterdir()):
                words = (folder / 'cmdline').read_bytes().decode(errors='replace').split('\0')
                owners.append(f'process {folder.name}, which is running: {" ".join(words).strip()[:100]}')
        except OSError:
            continue  # it has ended meanwhile, or is another user's
    said = '; '.join(owners) or 'no running process that this user may look at'
    print(f'TPU lock  {LOCK}, held by {said}')


def _ceilings(devices) -> None:
    from diffusion.programs import ceilings
    from diffusion.runtime import chips

    found, known = ceilings.measure(devices), chips.of_device(devices[0].device_kind)
    for dtype, rate in found.products.items():
        share = f', {rate / (chips.peak(known[1], dtype) * len(devices)):.0%} of what its maker says' if known else ''
        print(f'products  {rate / 1e9:,.0f} GFLOP/s in {dtype}{share}')
    share = ''
    if known:
        whole = known[1].bandwidth / known[1].devices * len(devices)
        share = f', {found.copy / whole:.0%} of what its maker says'
    print(f'copy      {found.copy / 1e9:,.1f} GB/s, read and written{share}')


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
