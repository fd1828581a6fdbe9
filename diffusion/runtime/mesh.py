"""The device mesh: slice x data x fsdp x tensor.

The batch is split over the first three axes, parameters over fsdp and tensor. Between slices (pods, or nodes of GPUs)
the network is slow: only the sum of the gradients crosses it. Tensor is the innermost axis, over the fastest links.
"""

import contextlib

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ('slice', 'data', 'fsdp', 'tensor')
BATCH = AXES[:3]


def make(devices: list[jax.Device], fsdp: int = 1, tensor: int = 1, slices: int = 0) -> Mesh:
    """A mesh of slices by what is left (data) by fsdp by tensor devices.

    slices: 0 for as many as the hardware says (TPU slices, nodes of GPUs; 1 on CPUs); any other number groups whole
    slices, or cuts a single one. Raises ValueError where the devices do not divide.
    """
    found = sorted({_slice(device) for device in devices})
    slices = slices or len(found)
    wanted = {'slices': slices, 'fsdp': fsdp, 'tensor': tensor}
    inside, rest = divmod(len(devices), slices * fsdp * tensor)
    if rest:
        product = ' x '.join(f'runtime.{name}={size}' for name, size in wanted.items() if size > 1)
        raise ValueError(f'{product} does not divide the {len(devices)} devices')
    groups = np.array_split(np.array(sorted(devices, key=_slice), dtype=object), slices)
    if slices % len(found) and len(found) % slices:
        raise ValueError(f'runtime.slices={slices}, but the devices lie in {len(found)} slices: neither divides')
    grids = [_grid(list(group), (inside, fsdp, tensor)) for group in groups]
    # Explicit axis types, the default, make every operation state its sharding: Auto leaves that to the compiler.
    return Mesh(np.stack(grids), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _slice(device) -> int:
    """Which slice of the hardware a device lies in; the processes of a CPU test share one."""
    return 0 if device.platform == 'cpu' else getattr(device, 'slice_index', None) or 0


def _grid(devices, shape):
    if devices[0].platform == 'tpu':  # neighbours on the torus become neighbours on the mesh
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return np.array(devices, dtype=object).reshape(shape)


def shards(mesh: Mesh) -> int:
    """Into how many parts a batch is split."""
    return int(np.prod([mesh.shape[axis] for axis in BATCH]))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def batched(mesh: Mesh, before: int = 0) -> NamedSharding:
    """The leading axis, or the one that `before` others precede, is split over all axes but tensor."""
    return NamedSharding(mesh, PartitionSpec(*(None,) * before, BATCH))


def in_sight(mesh: Mesh | None):
    """A context in which what is traced can ask JAX for the mesh (None: there is none to be asked for)."""
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh) if mesh else contextlib.nullcontext()


def _own(mesh: Mesh) -> list[int]:
    """Which of the `shards` of a batch this process's devices hold, ascending."""
    places = batched(mesh).addressable_devices_indices_map((shards(mesh),))
    return sorted({index[0].indices(shards(mesh))[0] for index in places.values()})


def rows(mesh: Mesh, batch: int) -> np.ndarray:
    """Which rows of a global batch this process needs: int [b], ascending, not always next to each other.

    Processes that share a row (by the tensor axis) both need it.
    """
    size = batch // shards(mesh)
    return np.concatenate([np.arange(shard * size, (shard + 1) * size) for shard in _own(mesh)])


def put(mesh: Mesh, batch: dict) -> dict:
    """This process's `rows` of a global batch, dict of numpy [b, ...], as one global array [B, ...] each."""
    own = _own(mesh)

    def placed(local):
        local = np.asarray(local)
        size = len(local) // len(own)

        shape = (size * shards(mesh), *local.shape[1:])
        places = batched(mesh).addressable_devices_indices_map(shape)
        begins = [own.index((index[0].start or 0) // size) * size for index in places.values()]
        pieces = jax.device_put([local[begin : begin + size] for begin in begins], list(places))
        return jax.make_array_from_single_device_arrays(shape, batched(mesh), pieces)

    return {name: placed(local) for name, local in batch.items()}


def fetch(tree):
    """numpy arrays [B, ...] of global arrays, on every process: where there are several, all of them must call it."""
    whole = all(leaf.is_fully_addressable or leaf.is_fully_replicated for leaf in jax.tree.leaves(tree))
    return jax.device_get(tree) if whole else multihost_utils.process_allgather(tree, tiled=True)
