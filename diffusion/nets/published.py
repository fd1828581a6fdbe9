"""Published PyTorch weights as the parameters of a network whose parts have the same names."""

import jax
import numpy as np


def parameters(shapes: dict, tensors: dict[str, np.ndarray], what: str, ignored: tuple[str, ...] = ()) -> dict:
    """A tree like `shapes` filled from tensors by name: float32, kernels turned from PyTorch's order of axes to Flax's.

    shapes: nested dict of arrays or their shapes; what: the network, for errors; ignored: ends of the names of tensors
    that it has no use for. Raises ValueError for what is missing, too much, or of another shape.
    """
    unused = {name for name in tensors if not name.endswith(ignored)}

    def take(path, leaf):
        *module, last = (str(key.key) for key in path)
        name = '.'.join([*module, 'weight' if last in ('kernel', 'scale') else last])
        if name not in tensors:
            raise ValueError(f'no weights of {what}: {name} is missing')
        unused.discard(name)
        value = np.asarray(tensors[name], np.float32)
        if last == 'kernel':
            value = value.T if value.ndim == 2 else np.moveaxis(value, (0, 1), (-1, -2))
        if value.shape != leaf.shape:
            raise ValueError(f'no weights of {what}: {name} has shape {tensors[name].shape}')
        return value

    found = jax.tree_util.tree_map_with_path(take, shapes)
    if unused:
        raise ValueError(f'no weights of {what}: it has no {sorted(unused)[0]}')
    return found
