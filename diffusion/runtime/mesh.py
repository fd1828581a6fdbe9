"""The device mesh: data x fsdp. The batch is split over both axes, parameters over fsdp."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def make(devices: list[jax.Device], fsdp: int = 1) -> Mesh:
    """A mesh of len(devices) / fsdp by fsdp devices."""
    if len(devices) % fsdp:
        raise ValueError(f'runtime.fsdp={fsdp} does not divide the {len(devices)} devices')
    # Explicit axis types, the default, make every operation state its sharding: Auto leaves that to the compiler.
    return jax.make_mesh(
        (len(devices) // fsdp, fsdp), ('data', 'fsdp'), axis_types=(AxisType.Auto,) * 2, devices=devices
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def batched(mesh: Mesh) -> NamedSharding:
    """The leading axis is split over all devices."""
    return NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))


def put(mesh: Mesh, batch: dict) -> dict:
    """This process's rows of a global batch, dict of numpy [B / processes, ...], as one global array each."""
    sharding = batched(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, np.asarray(rows)) for name, rows in batch.items()}
