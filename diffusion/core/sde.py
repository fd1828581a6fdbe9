"""The SDE view: score, reverse SDE and probability-flow ODE of a process, in the coordinates of x_t itself.

For readers of Song et al. 2011.13456. Samplers do not use it: divided by alpha, every process is one and the same.
x_t: [B, ...]; t: [B]; denoise: the Denoise of every sampler, (x, sigma) -> E[x_0 | x] with x = x_t / alpha(t).
"""

from diffusion.core import precond


def score(denoise, process, x_t, t):
    """Gradient of log p_t at x_t, (alpha E[x_0 | x_t] - x_t) / sigma**2: Tweedie's formula.

    Near the data it is a small difference: in float32 its error is about 1e-7 / sigma(t)**2.
    """
    alpha, sigma = (precond.per_example(value, x_t) for value in (process.alpha(t), process.sigma(t)))
    return (alpha * denoise(x_t / alpha, process.nsr(t)) - x_t) / sigma**2


def reverse_drift(denoise, process, x_t, t):
    """Drift of the reverse SDE, f x_t - g**2 score, beside the diffusion g dw: Song et al. 2011.13456, Eq. 6."""
    return _drift(denoise, process, x_t, t, 1.0)


def flow_drift(denoise, process, x_t, t):
    """Velocity of the probability-flow ODE, f x_t - g**2 score / 2: Song et al. 2011.13456, Eq. 13."""
    return _drift(denoise, process, x_t, t, 0.5)


def _drift(denoise, process, x_t, t, share):
    drift, diffusion2 = (precond.per_example(value, x_t) for value in (process.drift(t), process.diffusion2(t)))
    return drift * x_t - share * diffusion2 * score(denoise, process, x_t, t)
