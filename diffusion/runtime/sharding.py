"""Which parameter lies where: rules on parameter paths, the first that matches decides.

Kernels are split over fsdp, to save memory: gradients, optimizer state and EMA follow them (ZeRO stage 3). Over tensor
they are split in pairs, so that the activation between the two of a pair is split and only their end is summed: the
heads of an attention, the hidden features of an MLP, the inner channels of a residual block (Shoeybi et al. 1909.08053,
Sec. 3). Where an axis does not divide, the array stays whole there.
"""

import re
from typing import NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec


class Rule(NamedTuple):
    """split: over fsdp too, along the larger of the last two axes that divide; tensor: the axis split over tensor,
    counted from the end, None for none."""

    pattern: str
    split: bool
    tensor: int | None = None


RULES = (
    # Adafactor's sums over rows and columns of a kernel, one value where it keeps none, and Muon's constants: small.
    Rule(r'(^|/)(v_row|v_col|ns_coeffs)(/|$)', False),
    # The first of a pair puts out what the second takes in.
    Rule(r'(^|/)(query|key|value|up|conv1)/kernel$', True, -1),
    Rule(r'(^|/)(query|key|value|up|conv1)/bias$', False, -1),
    Rule(r'(^|/)(out|down|conv2|modulation)/kernel$', True, -2),
    Rule(r'(^|/)(kernel|embedding)$', True),
    Rule(r'(^|/)(bias|scale|start)$', False),
    Rule(r'(^|/)(memory|uncertainty)/', False),
)


def path_of(keys) -> str:
    """'blocks/mlp/kernel' from a JAX key path."""
    return '/'.join(str(getattr(key, 'key', getattr(key, 'name', getattr(key, 'idx', key)))) for key in keys)


def spec(path: str, shape: tuple[int, ...], fsdp: int, tensor: int = 1) -> PartitionSpec:
    """The partition of one array. Raises ValueError where no rule matches its path.

    Only the last two axes are ever split: those before are layers of a stack, or the window of a convolution.
    """
    rule = next((rule for rule in RULES if re.search(rule.pattern, path)), None)
    if not shape:
        return PartitionSpec()
    if rule is None:
        raise ValueError(f'no sharding rule for the parameter {path!r} {shape}: add one to RULES in {__name__}')
    names: list[str | None] = [None] * len(shape)
    if rule.tensor and tensor > 1 and len(shape) >= -rule.tensor and shape[rule.tensor] % tensor == 0:
        names[rule.tensor] = 'tensor'
    free = [
        axis for axis in range(max(len(shape) - 2, 0), len(shape)) if names[axis] is None and shape[axis] % fsdp == 0
    ]
    if rule.split and fsdp > 1 and free:
        names[max(free, key=lambda axis: shape[axis])] = 'fsdp'
    while names and names[-1] is None:
        names.pop()
    return PartitionSpec(*names)


def shardings(mesh: Mesh, tree):
    """NamedShardings for a tree of abstract arrays; optimizer state and EMA follow their parameters' paths."""
    sizes = mesh.shape['fsdp'], mesh.shape['tensor']
    return jax.tree_util.tree_map_with_path(
        lambda keys, leaf: NamedSharding(mesh, spec(path_of(keys), leaf.shape, *sizes)), tree
    )
