"""Layers that several networks share. `keys` are one key an example, [B], or None for no dropout."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.sharding import PartitionSpec

zeros = nnx.initializers.zeros_init()


REMAT = ('none', 'full', 'dots_saveable', 'dots_with_no_batch_dims_saveable')
DTYPES = ('float32', 'bfloat16')


def check(remat: str, dtype: str) -> None:
    """Raises ValueError for a policy or a type to compute in that no network knows."""
    if remat not in REMAT:
        raise ValueError(f'remat={remat!r}: one of {", ".join(REMAT)}')
    if dtype not in DTYPES:
        raise ValueError(f'dtype={dtype!r}: what the network computes in, {" or ".join(DTYPES)}')


def recomputed(function, remat: str, *, scanned: bool = False):
    """function whose backward pass recomputes what the policy `remat` does not save, to take less memory.

    scanned: whether it is the body of a scan, which needs no guard against the compiler's undoing it.
    """
    if remat == 'none':
        return function
    policy = None if remat == 'full' else getattr(jax.checkpoint_policies, remat)
    return jax.checkpoint(function, policy=policy, prevent_cse=not scanned)


def spread(x, inner: bool = False):
    """x: [B, ..., C] with the batch split over the mesh in sight (`jax.sharding.use_abstract_mesh`), all but its axis
    'tensor'; over that the features are split where they are inner, between the two layers of a pair, and else whole
    on every device. Without a mesh, or where B does not divide: x as it is.

    Otherwise the compiler may split the features of activations as the parameters are split and exchange activations,
    which grow with the batch, in place of parameters. Every axis is told: of one left open
    (`PartitionSpec.UNCONSTRAINED`) the compiler made wrong sums (benchmarks/NOTES.md).
    """
    mesh = jax.sharding.get_abstract_mesh()
    axes = tuple(name for name in mesh.axis_names if name != 'tensor')
    if mesh.empty or x.shape[0] % math.prod(mesh.shape[name] for name in axes):
        return x
    features = 'tensor' if inner and x.shape[-1] % mesh.shape['tensor'] == 0 else None
    return lax.with_sharding_constraint(x, PartitionSpec(axes, *(None,) * (x.ndim - 2), features))


class Embed(nnx.Embed):
    """A table of vectors by number, whole on every device where they are looked up, however it is kept: taken from a
    table that is split, each device would have a part of the vectors of all and exchange those."""

    def __call__(self, numbers):
        table = self.embedding[...].astype(self.dtype)
        if not jax.sharding.get_abstract_mesh().empty:
            table = lax.with_sharding_constraint(table, PartitionSpec())
        return jnp.take(table, numbers, axis=0)


class Linear(nnx.Linear):
    """A dense layer whose output lies where its batch does; inner as for `spread`."""

    def __init__(self, *args, inner=False, **kwargs):
        super().__init__(*args, **kwargs)
        self.inner = inner

    def __call__(self, x):
        return spread(super().__call__(x), self.inner)


class Conv(nnx.Conv):
    """A convolution whose output lies where its batch does; inner as for `spread`."""

    def __init__(self, *args, inner=False, **kwargs):
        super().__init__(*args, **kwargs)
        self.inner = inner

    def __call__(self, x):
        return spread(super().__call__(x), self.inner)


def linear(features_in, features_out, *, rngs, dtype=None, zero=False, bias=True, inner=False):
    """A dense layer with float32 parameters that computes in dtype; zero: starts as the zero map."""
    init = {'kernel_init': zeros} if zero else {}
    return Linear(features_in, features_out, dtype=dtype, rngs=rngs, use_bias=bias, inner=inner, **init)


def conv(features_in, features_out, kernel, *, rngs, dtype=None, zero=False, bias=True, inner=False):
    """A kernel x kernel convolution, SAME padding, on [B, H, W, C]; zero: starts as the zero map."""
    init = {'kernel_init': zeros} if zero else {}
    size = (kernel, kernel)
    return Conv(features_in, features_out, size, dtype=dtype, rngs=rngs, use_bias=bias, inner=inner, **init)


def fold(keys, index):
    """Keys of one of several uses: keys [B] or None -> the same."""
    return None if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, index))(keys)


def dropout(x, keys, rate):
    """Zeroes elements of x: [B, ...] with probability rate, each example from its own key."""
    if keys is None or not rate:
        return x
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(kept, x / (1 - rate), 0)


def modulate(x, vector):
    """FiLM: x: [B, ..., C] times 1 + scale plus shift, both from vector: [B, 2 C] (Perez et al. 1709.07871)."""
    vector = vector.reshape(vector.shape[0], *(1,) * (x.ndim - 2), -1)
    scale, shift = jnp.split(vector, 2, -1)
    return x * (1 + scale) + shift


def noise_features(noise, width):
    """Sines and cosines of the noise level: [B] -> [B, width]. log(sigma) / 4 spans about [-2, 2]."""
    phase = 2 * np.pi * noise[:, None] * np.geomspace(0.1, 16, width // 2, dtype=np.float32)
    return jnp.concatenate([jnp.cos(phase), jnp.sin(phase)], -1)


def patch_positions(height, width, features):
    """Fixed sine-cosine positions of a grid of patches: [height * width, features], features divisible by 4."""
    frequency = np.geomspace(1, 1e-4, features // 4)
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing='ij')
    phases = [axis.reshape(-1, 1) * frequency for axis in (rows, columns)]
    return np.concatenate([f(phase) for phase in phases for f in (np.sin, np.cos)], -1).astype(np.float32)


class MLP(nnx.Module):
    """Two dense layers with an activation between."""

    def __init__(self, features_in, hidden, features_out, *, rngs, dtype=None, activation=nnx.silu):
        self.up = linear(features_in, hidden, rngs=rngs, dtype=dtype, inner=True)
        self.down = linear(hidden, features_out, rngs=rngs, dtype=dtype)
        self.activation = activation

    def __call__(self, x):
        return self.down(self.activation(self.up(x)))


class Attention(nnx.Module):
    """Multi-head attention of x: [B, N, C] to context: [B, M, D], or to itself. Starts as zero where zero is set.

    mask: [B, M] bool, the context positions that may be looked at.
    """

    def __init__(self, features, context=0, *, heads, rngs, dtype=None, zero=True):
        if features % heads:
            raise ValueError(f'{features} features do not divide into {heads} heads')
        self.heads = heads
        self.query = linear(features, features, rngs=rngs, dtype=dtype, inner=True)
        self.key = linear(context or features, features, rngs=rngs, dtype=dtype, inner=True)
        self.value = linear(context or features, features, rngs=rngs, dtype=dtype, inner=True)
        self.out = linear(features, features, rngs=rngs, dtype=dtype, zero=zero)

    def __call__(self, x, context=None, mask=None):
        context = x if context is None else context
        split = functools.partial(self._split, heads=self.heads)
        mask = None if mask is None else mask[:, None, None, :]
        y = jax.nn.dot_product_attention(
            split(self.query(x)), split(self.key(context)), split(self.value(context)), mask=mask
        )
        return self.out(y.reshape(x.shape))

    @staticmethod
    def _split(x, heads):
        return x.reshape(*x.shape[:-1], heads, -1)


class GroupNorm(nnx.Module):
    """Group normalisation of [B, H, W, C] in float32, returned in x's dtype (Wu & He 1803.08494).

    The statistics become one scale and one shift a channel, so that the image is read twice and written once: 7 %
    less of a whole training step than Flax's own on a CPU (benchmarks/NOTES.md).
    """

    def __init__(self, features, *, rngs, groups=8, epsilon=1e-6):
        self.groups, self.epsilon = min(groups, features // 4), epsilon
        self.scale = nnx.Param(nnx.initializers.ones_init()(rngs.params(), (features,)))
        self.bias = nnx.Param(zeros(rngs.params(), (features,)))

    def __call__(self, x):
        wide = x.astype(jnp.float32)
        batch, features = x.shape[0], x.shape[-1]

        def spread(value):
            return jnp.broadcast_to(value, (batch, self.groups, features // self.groups)).reshape(batch, features)

        def group_mean(value):
            return jnp.mean(value, (1, 2)).reshape(batch, self.groups, -1).mean(-1, keepdims=True)

        mean, square = group_mean(wide), group_mean(wide**2)
        inverse = lax.rsqrt(jnp.maximum(square - mean**2, 0.0) + self.epsilon)
        scale = spread(inverse) * self.scale[...]
        shift = self.bias[...] - spread(mean) * scale
        return (wide * scale[:, None, None] + shift[:, None, None]).astype(x.dtype)
