"""From an experiment and the weights it has learned to a denoiser and to samples."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffusion import config as configs
from diffusion.core import chain, guidance, loss, randomness, threshold
from diffusion.wiring import experiments, schema, tasks
from diffusion.wiring import levels as noise
from diffusion.wiring import steering as steer


def sampling(
    run: experiments.Experiment,
    config: configs.Config,
    steering: steer.Steering = steer.UNSTEERED,
    task: tasks.Task | None = None,
    around: Callable = lambda denoise: denoise,
):
    """(params, seeds: [B], cond: dict of [B, ...], sigmas: [N + 1], scale, beside) -> `chain.Sampled`, to be jitted.

    config: the run's own, or with other values in the sections of `SAMPLING`. beside: `Steering.arrays`, and the weaker
    model's parameters as 'weak' where there is one; other values of these compile nothing. around: denoise -> denoise,
    put around what the sampler calls, guided as it is. The images are of the data's dtype. Image i depends on its own
    seed alone, not on the batch; it is not finished where it is not finite. task: the images are not drawn from nothing
    but by config.edit, from what `Task.arrays` hold, in beside as 'task'.
    """
    sampler = configs.construct(config, 'sampler', schema.SCHEMA)
    editor = tasks.editor(config, task)
    shape = task.shape if task else run.facts.shape
    steer.check_guidance(config, run.facts, run.null, run.train, steering)
    steer.check_reach(config, run.process, steering.weak)
    experiments.check_variance(config, run.train)
    guided = config['guidance'].get('scale', 1.0) != 1 or steering.also
    learned = config['sampler'].get('learned', False)
    steered = guided or steering.log_prob or 'threshold' in config
    values = {key: value for key, value in config['guidance'].items() if key != 'name'}
    guide = schema.SCHEMA['guidance'].constructors[config['guidance']['name']]
    limit = configs.construct(config, 'threshold', schema.SCHEMA) if 'threshold' in config else threshold.none()

    def draw(params, seeds, cond, sigmas, scale, beside):
        keys = randomness.examples(randomness.stream(jax.random.key(0), 'sample'), seeds)
        rule = guide(**{**values, 'scale': scale}) if guided else guidance.none()
        denoise = rule(functools.partial(_conditional, run.denoiser, params), cond, _beside(beside, cond, steering))
        if steering.log_prob:
            denoise = guidance.classifier(denoise, steering.log_prob, beside['push'])
        denoise = limit(denoise)
        if learned:
            denoise = _with_fraction(denoise if steered else None, functools.partial(run.moments, params), cond)
        asked = beside['task'] if task else {'around': 0.0}
        chosen = editor(sampler, task.measurement(asked)) if editor else sampler
        drawn = chain.generate(around(denoise), chosen, sigmas, keys, shape, asked['around'])
        finite = jnp.all(jnp.isfinite(drawn.x), range(1, drawn.x.ndim))
        drawn = drawn._replace(finished=drawn.finished & finite)
        return drawn._replace(x=loss.to_uint8(drawn.x)) if run.facts.dtype == 'uint8' else drawn

    return draw


def _beside(arrays, cond, steering):
    """`guidance.Beside` for a batch of cond."""

    def everywhere(values):
        # What is not named, as the picture a network is told, is the same on both sides of guidance.
        found = {**cond, **{name: jnp.broadcast_to(value, cond[name].shape) for name, value in values.items()}}
        return {**found, 'to': found['tokens']} if 'to' in cond else found

    weak = steering.weak and functools.partial(_conditional, steering.weak.denoiser, arrays['weak'])
    return guidance.Beside(everywhere(arrays['null']), tuple(map(everywhere, arrays['also'])), arrays['scales'], weak)


def _with_fraction(guided, moments, cond):
    """(x, sigma) -> (E[x_0 | x], fraction): the variance of the conditional model, and the guided mean where something
    steers, which then takes an evaluation of the network more."""

    def both(x, sigma):
        x0, fraction = moments(x, sigma, cond, None)
        return (guided(x, sigma) if guided else x0), fraction

    return both


def _conditional(denoiser, params, x, sigma, cond):
    return denoiser(params, x, sigma, cond, None)


def denoise(run: experiments.Experiment, params, cond: dict, scale=None):
    """The Denoise of a run's model under cond: dict of [B, ...], guided classifier-free by a scale, if there is one."""
    rule = guidance.none() if scale is None else guidance.classifier_free(scale)
    beside = _beside(steer.UNSTEERED.arrays(run), cond, steer.UNSTEERED)
    return rule(functools.partial(_conditional, run.denoiser, params), cond, beside)


def sigmas(run: experiments.Experiment, config: configs.Config, strength: float = 1.0):
    """The noise levels [N + 1] that a config's grid and sample.steps give, or the last share of them."""
    return noise.levels(config, run.process, strength)
