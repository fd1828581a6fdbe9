"""Optimizers and their learning-rate schedules. Durations are counted in images, the batch only divides them."""

import jax
import jax.numpy as jnp
import optax
from optax import contrib

__all__ = ['adam', 'adamw', 'adafactor', 'muon']


def schedule(lr, warmup_images, decay_images, batch):
    """Linear warm-up, then constant, then lr sqrt(decay / images) after decay_images (0: never).

    It does not depend on the length of the run, so a run can be prolonged (Karras et al. 2312.02696, App. B).
    """

    def rate(step):
        images = (step + 1.0) * batch
        factor = jnp.minimum(1.0, images / max(warmup_images, 1))
        if decay_images:
            factor = factor / jnp.sqrt(jnp.maximum(images / decay_images, 1.0))
        return lr * factor

    return rate


def adam(
    lr: float = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    warmup_images: int = 0,
    decay_images: int = 0,
    clip: float = 0.0,
):
    """Adam; clip: the largest global gradient norm, 0 for none."""
    return adamw(lr, b1, b2, 0.0, warmup_images, decay_images, clip)


def adamw(
    lr: float = 1e-4,
    b1: float = 0.9,
    b2: float = 0.999,
    weight_decay: float = 0.01,
    warmup_images: int = 0,
    decay_images: int = 0,
    clip: float = 0.0,
):
    """Adam with decoupled weight decay on kernels. Returns batch -> optax.GradientTransformation."""

    def scale(rate):
        decay = [optax.add_decayed_weights(weight_decay, mask=_kernels)] if weight_decay else []
        return [optax.scale_by_adam(b1=b1, b2=b2), *decay, optax.scale_by_learning_rate(rate)]

    return _build(scale, lr, warmup_images, decay_images, clip)


def adafactor(
    lr: float = 1e-3,
    decay_rate: float = 0.8,
    weight_decay: float = 0.0,
    warmup_images: int = 0,
    decay_images: int = 0,
    clip: float = 0.0,
):
    """Adafactor: Shazeer & Stern 1804.04235. Of the second moments of a kernel it keeps the sums over rows and columns,
    and no first ones; lr is absolute, updates are at most 1 in root mean square before it. Of a stack of layers and of
    a convolution the two largest axes are factored, where both are at least 128."""

    def scale(rate):
        decay = (lambda step: weight_decay * rate(step)) if weight_decay else None
        options = {'decay_rate': decay_rate, 'weight_decay_rate': decay, 'weight_decay_mask': _kernels}
        return [optax.adafactor(rate, multiply_by_parameter_scale=False, **options)]

    return _build(scale, lr, warmup_images, decay_images, clip)


def muon(
    lr: float = 1e-3,
    momentum: float = 0.95,
    b1: float = 0.9,
    b2: float = 0.999,
    weight_decay: float = 0.01,
    warmup_images: int = 0,
    decay_images: int = 0,
    clip: float = 0.0,
):
    """Muon: the momentum of every kernel is brought near to an orthogonal matrix, of 0.2 in root mean square an entry,
    as Adam's updates are (Jordan 2024; Liu et al. 2502.16982, Eq. 4); Adam with Nesterov's momentum, b1
    and b2, for all that is no kernel and for the first and last layers of the network. Each layer of a stack is a
    matrix; a convolution maps its window."""

    def scale(rate):
        adam = {'adam_b1': b1, 'adam_b2': b2}
        like_adam = {'muon_weight_dimension_numbers': _matrices, 'consistent_rms': 0.2}
        return [contrib.muon(rate, beta=momentum, weight_decay=weight_decay, **adam, **like_adam)]

    return _build(scale, lr, warmup_images, decay_images, clip)


def _build(scale, lr, warmup_images, decay_images, clip):
    """batch -> optax.GradientTransformation; scale: rate -> those that follow the clipping."""

    def build(batch: int) -> optax.GradientTransformation:
        rate = schedule(lr, warmup_images, decay_images, batch)
        first = [optax.clip_by_global_norm(clip)] if clip else []
        return optax.chain(*first, *scale(rate))

    return build


def _matrices(params):
    """Which axes of a parameter Muon takes for the matrix's two, None for those left to Adam."""

    def axes(keys, leaf):
        if keys[-1].key != 'kernel' or keys[0].key in ('first', 'embed', 'last'):
            return None
        window = tuple(range(leaf.ndim - 2)) if leaf.ndim == 4 else ()
        return contrib.MuonDimensionNumbers((*window, leaf.ndim - 2), leaf.ndim - 1)

    return jax.tree_util.tree_map_with_path(axes, params)


def _kernels(params):
    return jax.tree_util.tree_map_with_path(lambda keys, _: keys[-1].key == 'kernel', params)
