"""MFU, the share of what the hardware can multiply that a model makes use of (Chowdhery et al. 2204.02311, App. B)."""

from collections.abc import Callable

import jax

from diffusion import build
from diffusion.runtime import chips, products


def model_flops(run: build.Experiment) -> int:
    """Of a step for the whole batch, forwards and backwards, without what is computed again to save memory."""
    config = run.config
    if config['net'].get('remat', 'none') != 'none':
        run = build.experiment({**config, 'net': {**config['net'], 'remat': 'none'}}, run.facts)

    def step(params, batch, key, memory):
        return jax.value_and_grad(run.loss, has_aux=True)(params, batch, key, memory)

    key = jax.eval_shape(lambda: jax.random.key(0))
    return products.flops(step, jax.eval_shape(run.network.init, key), run.batch_shapes(), key, run.memory())


def measure(run: build.Experiment, mesh: jax.sharding.Mesh) -> Callable[[float], float] | None:
    """images/s -> MFU; None on devices that `runtime.chips` does not know, and for images of several sizes, whose steps
    differ."""
    found = chips.of_device(mesh.devices.flat[0].device_kind)
    if found is None or len(run.facts.shapes) > 1:
        return None
    peak = chips.peak(found[1], run.config['net'].get('dtype', 'float32')) * mesh.size
    each = model_flops(run) / run.train.batch
    return lambda images_per_s: images_per_s * each / peak
