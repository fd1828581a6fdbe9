"""Which devices JAX runs on: decided once, before JAX looks for itself, and never silently the wrong ones."""

import ctypes
import glob
import importlib.metadata
import importlib.util
import os
import shutil

import jax

from diffusion.runtime import distributed, threefry

HIDDEN = {
    'gpu': ('/dev/nvidia[0-9]*', "pip install -U 'jax[cuda13]'"),
    'tpu': ('/dev/accel[0-9]*', "pip install -U 'jax[tpu]'"),
}


def hidden_accelerators() -> dict[str, str]:
    """Kinds of accelerator that this machine has by its device files, with the line that installs JAX for each."""
    found = {kind: fix for kind, (pattern, fix) in HIDDEN.items() if glob.glob(pattern)}
    if 'gpu' not in found and shutil.which('nvidia-smi') and os.path.isdir('/proc/driver/nvidia/gpus'):
        found['gpu'] = HIDDEN['gpu'][1]
    return found


def leave_out_absent() -> None:
    """Keeps JAX from looking for TPUs and GPUs where their compilers are installed, as `diffusion plan` needs them, and
    the devices are not there: it would write pages of warnings. Nothing is changed where JAX_PLATFORMS says what to
    use, or where JAX has plugins of other makers."""
    tpu = importlib.util.find_spec('libtpu') is not None
    plugins = {entry.name for entry in importlib.metadata.entry_points(group='jax_plugins')}
    if jax.config.jax_platforms or not (tpu or plugins) or not all(name.startswith('xla_cuda') for name in plugins):
        return
    present = {'tpu': tpu and _tpu_here(), 'cuda': plugins and _gpu_here()}
    if (tpu and not present['tpu']) or (plugins and not present['cuda']):
        jax.config.update('jax_platforms', ','.join([*(name for name in present if present[name]), 'cpu']))


def _tpu_here() -> bool:
    from jax._src import hardware_utils

    return any(map(glob.glob, distributed.TPU_DEVICES)) or hardware_utils.num_available_tpu_chips_and_device_id()[0] > 0


def _gpu_here() -> bool:
    """By the driver of NVIDIA itself: not every system shows its GPUs in /dev, and some have the driver and no GPU."""
    try:
        return ctypes.CDLL('libcuda.so.1').cuInit(0) == 0
    except OSError:
        return False


def host_devices(batch: int, cores: int | None = None) -> int:
    """XLA devices to make of a CPU's cores: as many as there are cores, at most 8, dividing the batch.

    Small convolutions use one core well and several badly, so a device a core trains faster than one for all.
    """
    cores = cores or os.cpu_count() or 1
    return max(n for n in range(1, min(cores, 8) + 1) if batch % n == 0)


def configure(platform: str = 'auto', devices: int = 0, batch: int = 1, processes: int = 1) -> list[jax.Device]:
    """Starts JAX's backend and returns the devices to use. Call before anything else that touches a device.

    platform: 'auto', 'cpu', 'gpu' or 'tpu'; devices: how many over all `processes` of the run, 0 for all (on a CPU see
    `host_devices`, for `batch`).
    Raises ValueError where the platform is not to be had, or an accelerator would silently go unused.
    """
    if platform not in ('auto', 'cpu', 'gpu', 'tpu'):
        raise ValueError(f"runtime.platform={platform!r}: one of 'auto', 'cpu', 'gpu', 'tpu'")
    threefry.quicken()
    if platform == 'auto':
        leave_out_absent()
    if platform != 'auto':
        jax.config.update('jax_platforms', {'gpu': 'cuda'}.get(platform, platform))
    if not _started():
        jax.config.update('jax_num_cpu_devices', devices // processes or host_devices(max(batch // processes, 1)))
    try:
        found = jax.devices()
    except RuntimeError as error:
        fix = HIDDEN.get(platform, ('', ''))[1]
        raise ValueError(f'no {platform} device can be had: {str(error).splitlines()[0]}. {fix}') from error
    if platform == 'auto' and found[0].platform == 'cpu':
        _refuse_hidden()
    if not 0 <= devices <= len(found):
        raise ValueError(f'runtime.devices={devices}, but there are {len(found)} {found[0].platform} devices')
    if processes > 1 and devices not in (0, len(found)):
        raise ValueError(f'runtime.devices={devices}, but the {processes} processes have {len(found)}: all or none')
    if processes > 1:
        return found
    every = min(len(found), host_devices(batch)) if found[0].platform == 'cpu' else len(found)
    return found[: devices or every]


def check_batch(batch: int, devices: int, pieces: int = 1) -> None:
    """Refuses a global batch that the devices cannot share evenly in each of its pieces: none is left out in silence.

    devices: over how many the batch is split (`mesh.shards`)."""
    parts = devices * pieces
    if batch % parts:
        below = batch - batch % parts
        nearest = ' and '.join(str(size) for size in (below, below + parts) if size)
        over = f'{devices} devices' + (f' in {pieces} pieces each' if pieces > 1 else '')
        raise ValueError(f'train.batch={batch} does not divide over {over}: the nearest that do: {nearest}')


def _refuse_hidden():
    for kind, fix in hidden_accelerators().items():
        raise ValueError(
            f'this machine has a {kind}, but JAX {jax.__version__} sees none; install support for it: {fix} '
            '(or run on the CPU on purpose: --config.runtime.platform=cpu)'
        )


def _started():
    from jax._src import xla_bridge

    return xla_bridge.backends_are_initialized()
