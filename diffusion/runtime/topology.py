"""Devices that are not there: as their compiler sees them, or simulated where that of GPUs is not installed."""

import dataclasses
import importlib.metadata
import math
import os
import re

import jax

from diffusion.runtime import chips, gpus

FLAT = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
DEEP = ('2x2x1', '2x2x2', '2x2x4', '2x4x4', '4x4x4', '4x4x8', '4x8x8', '8x8x8', '8x8x16', '8x16x16', '16x16x16')
SHAPES = {'v4': DEEP, 'v5e': FLAT, 'v5p': DEEP, 'v6e': FLAT, 'tpu7x': DEEP}
# The compiler needs no TPU: it must not look for one over the network, may be loaded by several processes at once, and
# has nothing to say of a machine that is none.
ENVIRONMENT = {
    'TPU_SKIP_MDS_QUERY': '1',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
    'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
    'TPU_WORKER_HOSTNAMES': 'localhost',
    'TPU_MIN_LOG_LEVEL': '3',
    'TPU_STDERR_LOG_LEVEL': '3',
    'TF_CPP_MIN_LOG_LEVEL': '3',
}
QUICK = 'O1'
INSTALL = "the TPU compiler is not installed: pip install '.[plan]'"
CUDA = ('jax-cuda13-pjrt', 'jax-cuda12-pjrt')  # the packages that hold XLA's compiler for GPUs of NVIDIA


@dataclasses.dataclass(frozen=True)
class Topology:
    """kind: of `chips.CHIPS`; shape: of a slice, '4x4', or '' for GPUs; count: chips a slice or GPUs a node; slices: of
    TPUs, or nodes."""

    kind: str
    shape: str
    count: int
    slices: int

    @property
    def chip(self) -> chips.Chip:
        return chips.CHIPS[self.kind]

    @property
    def compiler(self) -> str:
        """The package of the compiler of these devices and its version, '' where it is not installed."""
        packages = CUDA if self.chip.node else ('libtpu',)
        return next((f'{name} {version}' for name in packages if (version := _version(name))), '')

    @property
    def options(self) -> dict[str, bool]:
        """For the compiler. Which of XLA's own kernels for a product is the fastest is seen on a GPU alone, and without
        that some products have none: all are left to cuBLAS, as most are where there is one."""
        return {'xla_gpu_enable_triton_gemm': False} if self.chip.node and self.compiler else {}

    @property
    def chips(self) -> int:
        return self.count * self.slices

    @property
    def devices(self) -> int:
        return self.chips * self.chip.devices

    def __str__(self) -> str:
        name = f'{self.kind}:{self.shape or self.count}'
        return f'{self.slices} x {name}' if self.slices > 1 else name


def read(name: str, slices: int = 1) -> Topology:
    """'v5e:4x4', or 'h100:8' for so many GPUs in nodes of eight. Raises ValueError with the nearest that there are."""
    kind, colon, shape = name.partition(':')
    if kind not in chips.CHIPS or not colon:
        known = ', '.join(chips.CHIPS)
        example = f': --topology={kind}:{SHAPES.get(kind, ("8",))[0]}' if kind in chips.CHIPS else ''
        raise ValueError(f'--topology={name}: a chip and its number, as v5e:4x4 or h100:8; chips: {known}{example}')
    if slices < 1:
        raise ValueError(f'--slices={slices}: at least 1')
    if kind not in SHAPES:
        return _gpus(name, kind, shape, slices)
    sides = shape.split('x')
    if not all(side.isdecimal() for side in sides) or (shape not in SHAPES[kind] and not _large(kind, sides)):
        raise ValueError(f'--topology={name}: no slice of {kind} has this shape; nearest: {_nearest(kind, sides)}')
    return Topology(kind, shape, math.prod(map(int, sides)), slices)


def _gpus(name, kind, number, slices):
    node = chips.CHIPS[kind].node
    if not number.isdecimal() or not int(number) or (int(number) > node and int(number) % node):
        raise ValueError(f'--topology={name}: 1 to {node} GPUs, or whole nodes of {node}, as {kind}:{2 * node}')
    if slices > 1:
        raise ValueError(f'--slices={slices} is for TPUs: of GPUs say how many there are, as {kind}:{node * slices}')
    count = int(number)
    return Topology(kind, '', min(count, node), max(count // node, 1))


def _large(kind, sides):
    """Whole cubes of 4 x 4 x 4 of those that come in three dimensions."""
    return SHAPES[kind] is DEEP and len(sides) == 3 and all(int(side) and int(side) % 4 == 0 for side in sides)


def _nearest(kind, sides):
    wanted = math.prod(int(side) for side in sides if side.isdecimal()) or 1
    sizes = {shape: math.prod(map(int, shape.split('x'))) for shape in SHAPES[kind]}
    close = sorted(sizes, key=lambda shape: abs(math.log(sizes[shape] / wanted)))[:3]
    return ', '.join(f'{kind}:{shape}' for shape in sorted(close, key=sizes.get))


def devices(topology: Topology, quick: bool = False) -> list:
    """What to compile for. Starts JAX on the CPU. quick: with less effort of the TPU's compiler. Raises ValueError
    where that cannot be."""
    if quick and topology.chip.node:
        raise ValueError(f'--quick is for the compiler of TPUs: that of GPUs takes no longer without it ({topology})')
    # JAX itself sets a level of 1 where there is none.
    os.environ.update({key: value for key, value in ENVIRONMENT.items() if os.environ.get(key, '1') == '1'})
    jax.config.update('jax_platforms', 'cpu')
    if not topology.compiler and not topology.chip.node:
        raise ValueError(INSTALL)
    if topology.compiler:
        if quick:  # otherwise the compiler searches for the best tiles of every convolution, seconds for each
            jax.config.update('jax_optimization_level', QUICK)
        return _described(topology)
    from jax._src import xla_bridge

    if not xla_bridge.backends_are_initialized():
        jax.config.update('jax_num_cpu_devices', topology.devices)
    found = jax.devices()
    if len(found) < topology.devices:
        raise ValueError(
            f'{topology} needs {topology.devices} simulated devices, and JAX runs with {len(found)} already'
        )
    return found[: topology.devices]


def _described(topology):
    # What is compiled for devices that are not here can be stored but not read again: JAX would warn and compile anew.
    jax.config.update('jax_enable_compilation_cache', False)
    from jax.experimental import topologies

    describe = _gpus_described if topology.chip.node else _slices_described
    try:
        return list(describe(topology, topologies.get_topology_desc).devices)
    except RuntimeError as error:
        raise ValueError(f'{topology} is not known to its compiler, {topology.compiler} ({_first(error)})') from error


def _slices_described(topology, described):
    more = {'num_slices': topology.slices} if topology.slices > 1 else {}
    if topology.kind == 'v4':
        more['chip_config_name'] = 'megacore'  # both cores of a chip as one device, as they come
    return described(platform='tpu', topology_name=f'{topology.kind}:{topology.shape}', **more)


def _gpus_described(topology, described):
    # Groups that fast links join, hosts in each, GPUs in each.
    shape = f'{topology.slices}x1x{topology.count}'
    return described(platform='cuda', target_config=gpus.target(topology.kind), topology=shape)


def _version(package) -> str:
    """'' where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ''


def _first(error) -> str:
    return re.sub(r'\s+', ' ', str(error).split('===')[0]).strip()[:200]
