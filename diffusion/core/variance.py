"""The learned variance of a reverse step: Nichol & Dhariwal 2102.09672, Sec. 3.1.

The network puts out twice the image's channels; the second half says where between two bounds, on a logarithmic scale,
the variance of the step lies (Eq. 15): at fraction 0 it is that of q(x_s' | x_s, x_0), which is right for data without
variance, at fraction 1 DDPM's beta, which is right for data of unit variance. Divided by alpha, for a step from sigma
to sigma', these are

    beta~ = sigma'**2 (sigma**2 - sigma'**2) / sigma**2
    beta  = (1 + sigma'**2) (sigma**2 - sigma'**2) / (1 + sigma**2)

and data of variance v want (v + sigma'**2) (sigma**2 - sigma'**2) / (v + sigma**2), up to sigma**2 - sigma'**2, the
variance of the forward step in these coordinates.

Moments = (params, x, sigma, cond, keys) -> (x0_hat, fraction), each shaped like x; the fraction is any number.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffusion.core import precond as preconds


def moments(precond: preconds.Precond, network: Callable) -> Callable:
    """Moments from a network (params, x, noise, cond, keys) -> [B, H, W, 2 C]: as `precond.denoiser`, and its spread.

    An output of 0 is the fraction 1/2; -1 and 1 are the bounds.
    """

    def both(params, x, sigma, cond, keys=None):
        found = {}

        def mean(params, *args):
            output = network(params, *args)
            found['fraction'] = (output[..., x.shape[-1] :].astype(x.dtype) + 1) / 2
            return output[..., : x.shape[-1]]

        return preconds.denoiser(precond, mean)(params, x, sigma, cond, keys), found['fraction']

    return both


def std(fraction, sigma, sigma_next):
    """Standard deviation of the step from sigma to sigma_next, 0 where that is 0; shapes must broadcast.

    Kept between those of data of no variance and of any: a fraction that the network was not trained to give, at noise
    levels it hardly saw, must not blow up the chain. (Nichol & Dhariwal leave it free.)
    """
    forward = jnp.sqrt((sigma - sigma_next) * (sigma + sigma_next))
    posterior = sigma_next / sigma * forward
    found = posterior * jnp.exp(0.5 * fraction * _log_ratio(sigma, jnp.where(sigma_next > 0, sigma_next, sigma)))
    return jnp.clip(found, posterior, forward)


def divergence(x0, estimate, fraction, sigma, sigma_next):
    """KL of the true reverse step, given x0, from the model's, in nats an element: L_t of Ho et al. 2006.11239, Eq. 5.

    The mean counts as given: no gradient reaches estimate. sigma > sigma_next > 0, shapes must broadcast.
    """
    excess = fraction * _log_ratio(sigma, sigma_next)  # log of the model's variance over beta~
    distance = (1 / sigma_next**2 - 1 / sigma**2) * (x0 - jax.lax.stop_gradient(estimate)) ** 2
    return 0.5 * (excess + jnp.expm1(-excess) + distance * jnp.exp(-excess))


def _log_ratio(sigma, sigma_next):
    """log(beta / beta~)."""
    return 2 * jnp.log(sigma / sigma_next) + jnp.log1p(sigma_next**2) - jnp.log1p(sigma**2)
