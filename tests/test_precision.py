"""bfloat16 inside the network, float32 everywhere else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion import build
from diffusion.runtime import mesh, state
from tests import layouts

OVERRIDES = ('net.dtype=bfloat16',)


@pytest.mark.parametrize('name', ['adamw', 'adafactor', 'muon'])
def test_nothing_that_is_kept_is_less_than_float32(name):
    config = build.resolve(
        str(layouts.ROOT / 'configs/toy2d.py'), [*layouts.NETS['PointNet'][1:], *OVERRIDES, f'optimizer.name={name}']
    )
    run = build.experiment(config, build.facts(config, build.source(config)))
    target = state.abstract(mesh.make(jax.devices()[:1]), run.network.init, run.optimizer, run.memory)
    floating = [leaf.dtype for leaf in jax.tree.leaves(target) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert set(floating) == {jnp.dtype('float32')}


def test_steps_far_below_the_resolution_of_bfloat16_are_not_lost():
    """Updates of 1e-6 on weights of 0.1 to 1, where bfloat16 knows steps of 5e-4 at least."""
    small = (*OVERRIDES, 'optimizer.lr=1e-6')
    before, after = (layouts.train('PointNet', layouts.Layout(), '', n, small) for n in (0, 6))
    changed = [np.mean(a != b) for a, b in zip(before.params, after.params, strict=True)]
    assert min(changed) > 0.5 and np.mean(changed) > 0.9
    wide = layouts.train('PointNet', layouts.Layout(), '', 6, ('optimizer.lr=1e-6',))
    np.testing.assert_allclose(after.losses, wide.losses, rtol=0.02)
