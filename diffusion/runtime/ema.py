"""The exponential moving average of the parameters, the weights that samples are drawn from."""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class EMA:
    """halflife: in images, so that it means the same at every batch size; ramp: never longer than this share of the
    images seen so far, so that early averages are not the initialisation (Karras et al. 2206.00364, App. F.2)."""

    halflife: int = 500_000
    ramp: float = 0.05

    def decay(self, step, batch: int):
        """Factor kept of the average at the update that ends `step` (counted from 0)."""
        seen = (step + 1.0) * batch
        return 0.5 ** (batch / jnp.minimum(jnp.asarray(self.halflife, jnp.float32), self.ramp * seen))

    def update(self, average, params, step, batch: int):
        """The average after `step`."""
        decay = self.decay(step, batch)
        return jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, params)
