"""The editor of models that were trained with the measurement as a condition (`conditioning`).

The contract is that of `editing`: the denoiser it is handed is already that of p(x_0 | y).
"""

__all__ = ['conditioned']


def conditioned():
    """The sampler as it is: the network was told what is measured, and needs no lead.

    NFE: that of the sampler. Bias: what the network has not learned; nothing in the steps makes up for it.
    """
    return lambda sampler, measurement: sampler
