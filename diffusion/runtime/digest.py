"""Hashes of what arrays hold, whatever devices they lay on when they were saved."""

import contextlib
import hashlib
import os
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from diffusion.runtime import sharding


def of_arrays(tree) -> str:
    """SHA-256 over paths, types, shapes and bytes of a tree of numpy arrays, in the order of the paths."""
    leaves = {sharding.path_of(keys): np.asarray(leaf) for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    found = hashlib.sha256()
    for path in sorted(leaves):
        leaf = leaves[path]
        found.update(f'{path} {leaf.dtype} {leaf.shape}\n'.encode())
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()


def of_saved(folder: Path) -> str:
    """`of_arrays` of one part of a checkpoint, read into the memory of this host."""
    place = Path(os.path.abspath(folder))
    with contextlib.closing(ocp.PyTreeCheckpointHandler()) as reader:
        plain = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), reader.metadata(place).tree)
        return of_arrays(reader.restore(place, args=ocp.args.PyTreeRestore(restore_args=plain)))
