"""Editing: samplers that heed a measurement of the picture.

Editor = (sampler, measurement) -> Sampler, see `operators.Measurement` and `samplers`: what comes out is called like
any sampler and draws from (nearly) p(x_0 | y) where the sampler draws from p(x_0). There are two kinds. Those of
`editing_guided` lead the sampler that they are given: they change the denoiser to that of p(x_0 | y). Those of
`editing_stepped` are ancestral samplers of their own, defined by what they do between two noise levels; they do not
ask the sampler that they are given.

SDEdit (Meng et al. 2108.01073) is no editor but a start: `chain.generate` around a picture, at a level of `shortened`.
It goes with any of them.
"""

from collections.abc import Callable

Editor = Callable


def shortened(sigmas, strength: float):
    """The last share `strength` of a grid's steps, at least one: [n + 1] of [N + 1].

    strength: in (0, 1]; 1 is all of it, where nothing of the picture is left but what noise of sigmas[0] leaves.
    """
    if not 0 < strength <= 1:
        raise ValueError(f'strength {strength:g}: above 0 (nothing changes) and at most 1 (nothing is kept)')
    steps = len(sigmas) - 1
    return sigmas[steps - max(round(strength * steps), 1) :]
