"""Moving averages of the parameters, the weights that samples are drawn from."""

import dataclasses

import jax
import jax.numpy as jnp

from diffusion.runtime import profiles as power

MAIN = 'ema'


@dataclasses.dataclass(frozen=True)
class EMA:
    """halflife: in images, so that it means the same at every batch size; ramp: never longer than this share of the
    images seen so far, so that early averages are not the initialisation (Karras et al. 2206.00364, App. F.2).

    others: further half-lives, kept beside the first as 'ema_HALFLIFE'; profiles: lengths sigma_rel of averages with a
    power-function profile (Karras et al. 2312.02696, Sec. 3.1), kept as 'power_LENGTH'; snapshot_every: every so many
    steps these are stored, so that an average of any length can be had afterwards (0: not).
    """

    halflife: int = 500_000
    ramp: float = 0.05
    others: tuple[int, ...] = ()
    profiles: tuple[float, ...] = ()
    snapshot_every: int = 0

    def __post_init__(self):
        lives = (self.halflife, *self.others)
        if min(lives) < 1 or self.ramp <= 0:
            raise ValueError(f'halflife={self.halflife}, others={self.others}, ramp={self.ramp}: must be above 0')
        if len(set(lives)) < len(lives):
            raise ValueError(f'others={self.others} with halflife={self.halflife}: a half-life is there twice')
        for length in self.profiles:
            power.exponent(length)
        if len(set(self.profiles)) < len(self.profiles):
            raise ValueError(f'profiles={self.profiles}: a length is there twice')
        if self.snapshot_every < 0 or (self.snapshot_every and not self.profiles):
            raise ValueError(
                f'snapshot_every={self.snapshot_every} with profiles={self.profiles}: steps, at least 0, and '
                'above only where there are profiles to store, such as profiles=(0.05, 0.1)'
            )

    def names(self) -> tuple[str, ...]:
        """The averages that are kept, the main one first."""
        return (MAIN, *(f'{MAIN}_{halflife}' for halflife in self.others), *map(power.name, self.profiles))

    def rates(self, step, batch: int) -> dict:
        """{name: share of the new parameters in the average} at the update that ends `step` (counted from 0).

        The share and not the factor of the old: near 1 float32 has no digits left for the latter.
        """
        longest = self.ramp * (step + 1.0) * batch
        # As floats: a half-life of 2**31 images or more is no int32.
        lives = {MAIN: float(self.halflife)} | {f'{MAIN}_{halflife}': float(halflife) for halflife in self.others}
        found = {name: -jnp.expm1(-batch * jnp.log(2.0) / jnp.minimum(life, longest)) for name, life in lives.items()}
        return found | {power.name(length): power.rate(length, step) for length in self.profiles}

    def begin(self, params) -> dict:
        """{name: average} before the first step."""
        return {name: jax.tree.map(jnp.copy, params) for name in self.names()}

    def advance(self, averages: dict, params, step, batch: int) -> dict:
        """The averages after `step`."""
        rates = self.rates(step, batch)
        return {
            name: jax.tree.map(lambda a, p, rate=rates[name]: a + rate * (p - a), average, params)
            for name, average in averages.items()
        }
