"""Optimizers and their learning-rate schedules. Durations are counted in images, the batch only divides them."""

import jax
import jax.numpy as jnp
import optax

__all__ = ['adam', 'adamw']


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

    def build(batch: int) -> optax.GradientTransformation:
        rate = schedule(lr, warmup_images, decay_images, batch)
        steps = [optax.clip_by_global_norm(clip)] if clip else []
        steps.append(optax.scale_by_adam(b1=b1, b2=b2))
        if weight_decay:
            steps.append(optax.add_decayed_weights(weight_decay, mask=_kernels))
        return optax.chain(*steps, optax.scale_by_learning_rate(rate))

    return build


def _kernels(params):
    return jax.tree_util.tree_map_with_path(lambda keys, _: keys[-1].key == 'kernel', params)
