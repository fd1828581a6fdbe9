"""Editors that are samplers of their own: ancestral steps, and what each method does between two noise levels.

A step from sigma to sigma' < sigma is DDPM's (Ho et al. 2006.11239, Eq. 7, see `samplers.ancestral`): x' = D + r (x -
D) + sigma' sqrt(1 - r) z with r = (sigma' / sigma)**2. Where a measurement determines a part of x_0, that part of x at
level sigma is y + sigma z: `noised`. The contract is that of `editing`; the sampler that they are given is not asked.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from diffusion.core import chain, operators, randomness

__all__ = ['replacement', 'repaint', 'ddnm', 'dps', 'differential']


def replacement():
    """What is measured is replaced in x at each level by the noised measurement: Song et al. 2011.13456, App. I.2.

    x <- x - A^+ A x + A^+ y + sigma A^+ A z before each evaluation, and A^+ y in the result. Measurements without
    noise. NFE: N. Bias: the rest of x is drawn without regard to what x will be seen to be: the denoiser sees the
    measurement through noise as large as that of the step, and what was settled at high noise stays. It does not
    vanish with N.
    """
    return _stepped(lambda steps: np.arange(steps + 1))


def repaint(resamplings: int = 10, jump: int = 1):
    """`replacement` whose stretches of steps are taken several times: Lugmayr et al. 2201.09865, Alg. 1.

    resamplings: times that each stretch of `jump` steps is taken (theirs: 10 of 10), 1 is `replacement`; up again by x
    + sqrt(sigma**2 - sigma'**2) z. Erratum: line 5 of their Algorithm 1 noises the known part with a factor of 1 -
    alpha_bar; it is the variance, as in their Eq. 8a. In these coordinates the known part at level sigma is y + sigma
    z. Measurements without noise. NFE: about N x resamplings. Bias: less than that of `replacement`, by as much as the
    stretches forget what was settled before them.
    """
    if resamplings < 1 or jump < 1:
        raise ValueError(f'resamplings={resamplings}, jump={jump}: at least 1')
    return _stepped(lambda steps: there_and_back(steps, resamplings, jump))


def there_and_back(steps: int, resamplings: int, jump: int) -> np.ndarray:
    """Places in a grid of `steps` steps, from 0 to steps, each next to the one before.

    Every stretch of `jump` steps down is followed by as many up, resamplings - 1 times. The last step, to sigma = 0, is
    taken once.
    """
    path, place, left = [0], 0, dict.fromkeys(range(jump, steps, jump), resamplings - 1)
    while place < steps:
        place += 1
        path.append(place)
        if left.get(place, 0):
            left[place] -= 1
            path.extend(range(place - 1, place - jump - 1, -1))
            place -= jump
    return np.asarray(path)


def differential():
    """Each value is let go at a noise level of its own: Levin & Fried 2306.00950, Alg. 1, for soft masks.

    A value whose measurement.change is w follows y + sigma z until a share w of the steps is left, rounded to a step,
    and is free from then on: `replacement` whose mask shrinks. With w = 0 or 1 everywhere it is `replacement`; with
    one w for all values it is SDEdit at strength w. For pictures, A a mask and y known where w < 1. NFE: N. Bias: that
    of `replacement`.
    """

    def held(measurement, below):
        if measurement.change is None:
            raise ValueError('differential is for masks, and this measurement has none')
        kept = (measurement.change < below) & (measurement.change < 1)
        kept = jnp.broadcast_to(kept, measurement.value.shape).astype(measurement.value.dtype)
        return operators.Measurement(operators.mask(kept), kept * measurement.value)

    return _stepped(lambda steps: np.arange(steps + 1), held)


def _stepped(route, seen=lambda measurement, below: measurement):
    """The editor that replaces and steps along places route(N) in the grid of N steps.

    seen: (measurement, the share of the steps that is left and half a step) -> what of the measurement holds there.
    """

    def edit(sampler, measurement):
        def sample(denoise, x, sigmas, keys):
            steps = len(sigmas) - 1
            places = route(steps)
            down = places[1:] > places[:-1]

            def step(x, inputs):
                index, place, place_next, descends = inputs
                sigma, sigma_next = sigmas[place], sigmas[place_next]
                # By the step, not the level: a level that is seen again has noise of its own.
                own = randomness.at_step(keys, index)
                noise = randomness.normal(randomness.substream(own, 'step'), x.shape[1:])

                def descend(x):
                    here = seen(measurement, (steps - place + 0.5) / steps)
                    x = noised(here, x, sigma, randomness.substream(own, 'known'))
                    return ancestral(x, denoise(x, chain.level(sigma, x)), sigma, sigma_next, noise)

                def ascend(x):
                    return x + jnp.sqrt(jnp.maximum(sigma_next**2 - sigma**2, 0.0)) * noise

                return lax.cond(descends, descend, ascend, x), None

            inputs = (jnp.arange(len(down)), *map(jnp.asarray, (places[:-1], places[1:], down)))
            x = lax.scan(step, x, inputs)[0]
            return chain.sampled(seen(measurement, 0.5 / steps).met(x), int(down.sum()), len(down))

        return sample

    return edit


def ddnm():
    """The prediction is given the measurement: D + A^+ (y - A D). Wang et al. 2212.00490, Alg. 1.

    With noise s in y (DDNM+), what a step takes over of it in the direction of a singular value a of A, (1 - r) g s /
    a, counts as part of the step's own noise; where it would be more, the gain g < 1 takes over less. NFE: N. Bias:
    that of `replacement`, whose law is the same where A is a mask but for the noise of the known part, here a path
    instead of a draw a level. With noise it is too sure: each step takes the noise of y for new, and it is the same.
    """

    def edit(sampler, measurement):
        operator = measurement.operator

        def sample(denoise, x, sigmas, keys):
            def step(x, sigma, sigma_next, way):
                x0, noise = denoise(x, chain.level(sigma, x)), way.noise(keys)
                share = 1 - (sigma_next / sigma) ** 2  # of D in x'
                std = sigma_next * jnp.sqrt(share)
                # What the step takes over of the noise of y at a gain of 1, for a singular value of 1.
                heard = share * measurement.noise

                def gain(eigenvalues):
                    most = std * jnp.sqrt(eigenvalues) * operators.inverse(heard)
                    return jnp.where(heard > 0, jnp.minimum(most, 1.0), 1.0)

                def take(eigenvalues):
                    return gain(eigenvalues) * operators.inverse(eigenvalues)

                def rest(eigenvalues):
                    own = 1 - (gain(eigenvalues) * heard * operators.inverse(std)) ** 2 * operators.inverse(eigenvalues)
                    return (jnp.sqrt(jnp.maximum(own, 0.0)) - 1) * operators.inverse(eigenvalues)

                x0 = x0 + operator.adjoint(operator.function(take, measurement.residual(x0)))
                noise = noise + operator.adjoint(operator.function(rest, operator.apply(noise)))
                return ancestral(x, x0, sigma, sigma_next, noise)

            steps = len(sigmas) - 1
            return chain.sampled(chain.fold(step, x, sigmas, keys), steps, steps)

        return sample

    return edit


def dps(scale: float = 1.0):
    """Each step is followed by one down the gradient of |y - A D(x)|: Chung et al. 2209.14687, Alg. 1.

    scale: of the gradient of the norm (their zeta' is for the gradient of its square over the norm: half of it). Their
    steps are in x_t of a variance-preserving process; by x = x_t / alpha they become scale sqrt((1 + sigma**2) (1 +
    sigma'**2)) grad_x |y - A D|. The noise of y enters by no other way than scale. One evaluation and its derivative a
    step. NFE: N.
    Bias: the length of a step does not follow from p(y | x): mean and spread depend on scale and on the number of steps
    (theirs: 1000), and with too large a scale the result jumps about the measurement.
    """
    if not scale > 0:
        raise ValueError(f'scale={scale}: above 0')

    def edit(sampler, measurement):
        def sample(denoise, x, sigmas, keys):
            def step(x, sigma, sigma_next, way):
                x0, pull = jax.vjp(lambda x: denoise(x, chain.level(sigma, x)), x)
                residual = measurement.residual(x0)
                norm = jnp.sqrt(jnp.sum(residual**2, tuple(range(1, residual.ndim)), keepdims=True))
                # The gradient is minus what is pulled back.
                uphill = pull(measurement.operator.adjoint(residual * operators.inverse(norm)))[0]
                size = scale * jnp.sqrt((1 + sigma**2) * (1 + sigma_next**2))
                return ancestral(x, x0, sigma, sigma_next, way.noise(keys)) + size * uphill

            steps = len(sigmas) - 1
            return chain.sampled(chain.fold(step, x, sigmas, keys), steps, steps)

        return sample

    return edit


def noised(measurement, x, sigma, keys):
    """x with what is measured replaced by the measurement at level sigma: A^+ y + sigma A^+ A z. keys: [B], of z."""
    noise = randomness.normal(keys, x.shape[1:])
    return measurement.met(x) + sigma * measurement.operator.project(noise)


def ancestral(x, x0, sigma, sigma_next, noise):
    """DDPM's step from x at sigma with the prediction x0; sigma_next = 0 gives x0."""
    ratio = (sigma_next / sigma) ** 2
    return x0 + ratio * (x - x0) + sigma_next * jnp.sqrt(1 - ratio) * noise
