"""Which parameter lies where: rules on parameter paths, the first that matches decides."""

import re

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# A kernel is split over its largest axis that the fsdp axis divides; vectors are small and stay whole.
RULES = (
    (r'(^|/)(kernel|embedding)$', 'largest'),
    (r'(^|/)(bias|scale|start)$', 'whole'),
    (r'(^|/)(memory|uncertainty)/', 'whole'),
)


def path_of(keys) -> str:
    """'blocks/mlp/kernel' from a JAX key path."""
    return '/'.join(str(getattr(key, 'key', getattr(key, 'name', getattr(key, 'idx', key)))) for key in keys)


def spec(path: str, shape: tuple[int, ...], fsdp: int) -> PartitionSpec:
    """The partition of one array. Raises ValueError where no rule matches its path."""
    kinds = [kind for pattern, kind in RULES if re.search(pattern, path)]
    if not kinds and shape:
        raise ValueError(f'no sharding rule for the parameter {path!r} {shape}: add one to RULES in {__name__}')
    divisible = [axis for axis, size in enumerate(shape) if size % fsdp == 0]
    if fsdp == 1 or not divisible or kinds[0] == 'whole':
        return PartitionSpec()
    largest = max(divisible, key=lambda axis: shape[axis])
    return PartitionSpec(*('fsdp' if axis == largest else None for axis in range(largest + 1)))


def shardings(mesh: Mesh, tree):
    """NamedShardings for a tree of abstract arrays; optimizer state and EMA follow their parameters' paths."""
    fsdp = mesh.shape['fsdp']
    return jax.tree_util.tree_map_with_path(
        lambda keys, leaf: NamedSharding(mesh, spec(path_of(keys), leaf.shape, fsdp)), tree
    )
