"""InceptionV3 as FID means it: the network of 2015-12-05 that was ported from TensorFlow, whose pooling differs from
torchvision's (Szegedy et al. 1512.00567). The names are those of the published PyTorch weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from diffusion.nets import published, resizing

SIZE = 299  # pixels of a side
FEATURES, CLASSES = 2048, 1008


class Norm(nnx.Module):
    """Batch normalisation with stored statistics: one scale and one shift a channel."""

    def __init__(self, features):
        self.weight, self.bias = nnx.Param(jnp.ones(features)), nnx.Param(jnp.zeros(features))
        self.running_mean, self.running_var = nnx.Param(jnp.zeros(features)), nnx.Param(jnp.ones(features))

    def __call__(self, x):
        scale = self.weight[...] * lax.rsqrt(self.running_var[...] + 1e-3)
        return x * scale + (self.bias[...] - self.running_mean[...] * scale)


class Unit(nnx.Module):
    """Convolution without bias, normalisation, ReLU. kernel, padding: a number, or one for height and for width."""

    def __init__(self, channels, features, kernel, *, rngs, stride=1, padding=0):
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (padding, padding) if isinstance(padding, int) else padding
        around = [(p, p) for p in padding]
        self.conv = nnx.Conv(channels, features, kernel, stride, padding=around, use_bias=False, rngs=rngs)
        self.bn = Norm(features)

    def __call__(self, x):
        return nnx.relu(self.bn(self.conv(x)))


def chain(module, x, *names):
    """x through several parts of a module, one after the other."""
    for name in names:
        x = getattr(module, name)(x)
    return x


def mean_around(x):
    """3 x 3 means of [B, H, W, C]; at the border over what there is, as TensorFlow does."""
    return nnx.avg_pool(x, (3, 3), (1, 1), ((1, 1), (1, 1)), count_include_pad=False)


def largest_around(x):
    return nnx.max_pool(x, (3, 3), (1, 1), ((1, 1), (1, 1)))


def shrunk(x):
    return nnx.max_pool(x, (3, 3), (2, 2))


class BlockA(nnx.Module):
    def __init__(self, channels, pooled, *, rngs):
        self.branch1x1 = Unit(channels, 64, 1, rngs=rngs)
        self.branch5x5_1 = Unit(channels, 48, 1, rngs=rngs)
        self.branch5x5_2 = Unit(48, 64, 5, padding=2, rngs=rngs)
        self.branch3x3dbl_1 = Unit(channels, 64, 1, rngs=rngs)
        self.branch3x3dbl_2 = Unit(64, 96, 3, padding=1, rngs=rngs)
        self.branch3x3dbl_3 = Unit(96, 96, 3, padding=1, rngs=rngs)
        self.branch_pool = Unit(channels, pooled, 1, rngs=rngs)

    def __call__(self, x):
        five = chain(self, x, 'branch5x5_1', 'branch5x5_2')
        double = chain(self, x, 'branch3x3dbl_1', 'branch3x3dbl_2', 'branch3x3dbl_3')
        return jnp.concatenate([self.branch1x1(x), five, double, self.branch_pool(mean_around(x))], -1)


class BlockB(nnx.Module):
    def __init__(self, channels, *, rngs):
        self.branch3x3 = Unit(channels, 384, 3, stride=2, rngs=rngs)
        self.branch3x3dbl_1 = Unit(channels, 64, 1, rngs=rngs)
        self.branch3x3dbl_2 = Unit(64, 96, 3, padding=1, rngs=rngs)
        self.branch3x3dbl_3 = Unit(96, 96, 3, stride=2, rngs=rngs)

    def __call__(self, x):
        double = chain(self, x, 'branch3x3dbl_1', 'branch3x3dbl_2', 'branch3x3dbl_3')
        return jnp.concatenate([self.branch3x3(x), double, shrunk(x)], -1)


class BlockC(nnx.Module):
    def __init__(self, channels, inner, *, rngs):
        flat, tall = {'padding': (0, 3), 'rngs': rngs}, {'padding': (3, 0), 'rngs': rngs}
        self.branch1x1 = Unit(channels, 192, 1, rngs=rngs)
        self.branch7x7_1 = Unit(channels, inner, 1, rngs=rngs)
        self.branch7x7_2 = Unit(inner, inner, (1, 7), **flat)
        self.branch7x7_3 = Unit(inner, 192, (7, 1), **tall)
        self.branch7x7dbl_1 = Unit(channels, inner, 1, rngs=rngs)
        self.branch7x7dbl_2 = Unit(inner, inner, (7, 1), **tall)
        self.branch7x7dbl_3 = Unit(inner, inner, (1, 7), **flat)
        self.branch7x7dbl_4 = Unit(inner, inner, (7, 1), **tall)
        self.branch7x7dbl_5 = Unit(inner, 192, (1, 7), **flat)
        self.branch_pool = Unit(channels, 192, 1, rngs=rngs)

    def __call__(self, x):
        seven = chain(self, x, *(f'branch7x7_{i}' for i in (1, 2, 3)))
        double = chain(self, x, *(f'branch7x7dbl_{i}' for i in (1, 2, 3, 4, 5)))
        return jnp.concatenate([self.branch1x1(x), seven, double, self.branch_pool(mean_around(x))], -1)


class BlockD(nnx.Module):
    def __init__(self, channels, *, rngs):
        self.branch3x3_1 = Unit(channels, 192, 1, rngs=rngs)
        self.branch3x3_2 = Unit(192, 320, 3, stride=2, rngs=rngs)
        self.branch7x7x3_1 = Unit(channels, 192, 1, rngs=rngs)
        self.branch7x7x3_2 = Unit(192, 192, (1, 7), padding=(0, 3), rngs=rngs)
        self.branch7x7x3_3 = Unit(192, 192, (7, 1), padding=(3, 0), rngs=rngs)
        self.branch7x7x3_4 = Unit(192, 192, 3, stride=2, rngs=rngs)

    def __call__(self, x):
        three = chain(self, x, 'branch3x3_1', 'branch3x3_2')
        seven = chain(self, x, *(f'branch7x7x3_{i}' for i in (1, 2, 3, 4)))
        return jnp.concatenate([three, seven, shrunk(x)], -1)


class BlockE(nnx.Module):
    """pool: means in the first of the two, maxima in the second, as the ported network has it."""

    def __init__(self, channels, pool, *, rngs):
        flat, tall = {'padding': (0, 1), 'rngs': rngs}, {'padding': (1, 0), 'rngs': rngs}
        self.pool = pool
        self.branch1x1 = Unit(channels, 320, 1, rngs=rngs)
        self.branch3x3_1 = Unit(channels, 384, 1, rngs=rngs)
        self.branch3x3_2a = Unit(384, 384, (1, 3), **flat)
        self.branch3x3_2b = Unit(384, 384, (3, 1), **tall)
        self.branch3x3dbl_1 = Unit(channels, 448, 1, rngs=rngs)
        self.branch3x3dbl_2 = Unit(448, 384, 3, padding=1, rngs=rngs)
        self.branch3x3dbl_3a = Unit(384, 384, (1, 3), **flat)
        self.branch3x3dbl_3b = Unit(384, 384, (3, 1), **tall)
        self.branch_pool = Unit(channels, 192, 1, rngs=rngs)

    def __call__(self, x):
        three = self.branch3x3_1(x)
        double = chain(self, x, 'branch3x3dbl_1', 'branch3x3dbl_2')
        wide = [self.branch3x3_2a(three), self.branch3x3_2b(three)]
        wide += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        return jnp.concatenate([self.branch1x1(x), *wide, self.branch_pool(self.pool(x))], -1)


class Inception(nnx.Module):
    """Images [B, H, W, 3] in [0, 255] -> features [B, 2048] and logits [B, 1008] without their bias, which is what the
    Inception Score is of. Of any size: resize, of `resizing`, brings them to 299."""

    def __init__(self, *, rngs, resize=resizing.tensorflow):
        self.resize = resize
        self.Conv2d_1a_3x3 = Unit(3, 32, 3, stride=2, rngs=rngs)
        self.Conv2d_2a_3x3 = Unit(32, 32, 3, rngs=rngs)
        self.Conv2d_2b_3x3 = Unit(32, 64, 3, padding=1, rngs=rngs)
        self.Conv2d_3b_1x1 = Unit(64, 80, 1, rngs=rngs)
        self.Conv2d_4a_3x3 = Unit(80, 192, 3, rngs=rngs)
        self.Mixed_5b = BlockA(192, 32, rngs=rngs)
        self.Mixed_5c = BlockA(256, 64, rngs=rngs)
        self.Mixed_5d = BlockA(288, 64, rngs=rngs)
        self.Mixed_6a = BlockB(288, rngs=rngs)
        self.Mixed_6b = BlockC(768, 128, rngs=rngs)
        self.Mixed_6c = BlockC(768, 160, rngs=rngs)
        self.Mixed_6d = BlockC(768, 160, rngs=rngs)
        self.Mixed_6e = BlockC(768, 192, rngs=rngs)
        self.Mixed_7a = BlockD(768, rngs=rngs)
        self.Mixed_7b = BlockE(1280, mean_around, rngs=rngs)
        self.Mixed_7c = BlockE(2048, largest_around, rngs=rngs)
        self.fc = nnx.Linear(FEATURES, CLASSES, rngs=rngs)

    def __call__(self, images):
        x = (self.resize(images, SIZE) - 128) / 128
        x = shrunk(chain(self, x, 'Conv2d_1a_3x3', 'Conv2d_2a_3x3', 'Conv2d_2b_3x3'))
        x = shrunk(chain(self, x, 'Conv2d_3b_1x1', 'Conv2d_4a_3x3'))
        x = chain(self, x, *(f'Mixed_{name}' for name in ('5b', '5c', '5d', '6a', '6b', '6c', '6d', '6e')))
        x = chain(self, x, 'Mixed_7a', 'Mixed_7b', 'Mixed_7c')
        features = x.mean((1, 2))
        return features, features @ self.fc.kernel[...]


def parameters(tensors: dict[str, np.ndarray]) -> dict:
    """The parameters of `Inception` from the tensors of PyTorch weights by name. Raises ValueError for others, as those
    of torchvision's network, which has a second output and other numbers of classes."""
    return published.parameters(_shapes(), tensors, 'the Inception network of FID', ('.num_batches_tracked',))


@functools.cache
def _shapes():
    return jax.eval_shape(lambda: nnx.to_pure_dict(nnx.state(Inception(rngs=nnx.Rngs(0)))))
