"""The flags of drawing that say what guidance moves towards, away from, and which model it is held against."""

import contextlib
import math
import os

import jax
import jax.numpy as jnp
import numpy as np

from diffusion import build, usage
from diffusion.programs import drawing, opening
from diffusion.runtime import checkpoint


def add_flags(parser: usage.Parser) -> None:
    parser.add_argument('--negative-prompt', metavar='TEXT', help='words that guidance moves away from')
    parser.add_argument(
        '--and',
        dest='also',
        action='append',
        default=[],
        metavar='TEXT:SCALE',
        help='a further prompt (or class) with its own guidance scale, negative for "and not"; may be repeated',
    )
    parser.add_argument(
        '--guide-step', type=int, metavar='N', help='autoguidance: away from an earlier checkpoint, that of step N'
    )
    parser.add_argument(
        '--guide-workdir', metavar='DIR', help='autoguidance: away from the model of another, weaker run'
    )
    parser.add_argument(
        '--classifier',
        metavar='FILE',
        help='a file of Python whose log_prob(x, sigma) is climbed: see docs/guidance.md',
    )
    parser.add_argument('--classifier-scale', type=float, metavar='S', help='how steeply (default: 1)')


def overrides(args, name: str, given: list[str]) -> list[str]:
    """What the flags say of config.guidance, to be read before `given`, the --config flags of the same call.

    name: the guidance that the run was configured with. Raises ValueError where both say the same.
    """
    chosen, scale = _asked(args.guidance)
    for key, value in (('scale', scale), ('name', chosen)):
        if value is not None and any(one.startswith(f'guidance.{key}=') for one in given):
            raise ValueError(f'--guidance is short for --config.guidance.{key}: give one of them')
    if chosen is None:
        if _guided(args):
            chosen = 'auto'
        elif name == 'none' and (scale is not None or args.also):
            chosen = 'classifier_free'
        elif not args.also and _is_one(scale) and not any(one.startswith('guidance.') for one in given):
            return ['guidance.name=none']  # off: what else the run's config says of guidance goes with it
    found = [f'guidance.name={chosen}'] if chosen else []
    return found if scale is None else [*found, f'guidance.scale={scale}']


def _asked(text: str | None) -> tuple[str | None, str | None]:
    """Name and scale of --guidance=SCALE, NAME or NAME:SCALE."""
    if text is None:
        return None, None
    name, colon, scale = text.rpartition(':')
    if colon:
        return name, scale
    return (text, None) if text.isidentifier() and text not in ('nan', 'inf') else (None, text)


def asked(args) -> bool:
    """Whether a flag asks for guidance besides --guidance."""
    return bool(args.negative_prompt or args.also or _guided(args))


def _guided(args) -> bool:
    return args.guide_step is not None or args.guide_workdir is not None


def _is_one(text) -> bool:
    try:
        return text is not None and float(text) == 1
    except ValueError:
        return False  # the config says what is wrong with it


def read(args, run: build.Experiment) -> build.Steering:
    """The conditions and the weaker model that the flags name. Raises ValueError for what the model cannot know."""
    negative = None
    if args.negative_prompt is not None:
        if not run.facts.tokenizer:
            raise ValueError('this model was not trained on text: it takes no --negative-prompt')
        negative = _condition(run, args.negative_prompt, '--negative-prompt')
    parts = [_part(word) for word in args.also]
    also = tuple(_condition(run, text, '--and') for text, _ in parts)
    scales = tuple(scale for _, scale in parts)
    return build.Steering(negative, also, scales, _weak_run(args, run), *_classifier(args, run.facts.shape))


def _part(word: str) -> tuple[str, float]:
    text, _, number = word.rpartition(':')
    with contextlib.suppress(ValueError):
        if text.strip() and math.isfinite(float(number)):
            return text, float(number)
    raise ValueError(f"--and={word!r}: a prompt and its scale are wanted, as --and='with sunglasses:1.5'")


def _condition(run, text, flag) -> dict:
    if not run.null:
        raise ValueError(f'this model has no condition: it takes no {flag}')
    which = {'prompts': [text]} if run.facts.tokenizer else {'labels': [text.strip()]}
    conditions = drawing.conditions(run, 1, **which)
    found = {name: conditions[name][0] for name in run.null}
    if all(np.array_equal(found[name], run.null[name]) for name in found):
        raise ValueError(f'{flag}={text!r} holds no words: leave it out')
    return found


def _classifier(args, shape):
    """The log_prob of a file of Python, and its scale."""
    path, scale = args.classifier, args.classifier_scale
    if path is None:
        if scale is not None:
            raise ValueError(f'--classifier-scale={scale:g} has no effect without --classifier=FILE')
        return None, 1.0
    if scale is not None and (scale == 0 or not math.isfinite(scale)):
        raise ValueError(f'--classifier-scale={scale:g}: a finite number other than 0 is wanted')
    if not os.path.isfile(path):
        raise ValueError(f'there is no file --classifier={path}')
    namespace: dict = {'__name__': 'classifier', '__file__': path}
    try:
        with open(path, encoding='utf-8') as file:
            exec(compile(file.read(), path, 'exec'), namespace)
        log_prob = namespace.get('log_prob')
        found = log_prob and jax.eval_shape(log_prob, jnp.zeros((2, *shape)), jnp.ones(2))
    except Exception as error:
        raise ValueError(f'--classifier={path} does not run: {type(error).__name__}: {error}') from error
    if not log_prob:
        raise ValueError(f'--classifier={path} defines no log_prob(x, sigma)')
    if getattr(found, 'shape', None) != (2,) or found.dtype != jnp.float32:
        raise ValueError(
            f'log_prob of --classifier={path} returns {found} for two pictures: one float32 a picture is wanted, [B]'
        )
    return log_prob, 1.0 if scale is None else scale


def _weak_run(args, run) -> build.Experiment | None:
    if not _guided(args):
        return None
    if args.guide_workdir is None:
        return run
    config, facts = opening.read(args.guide_workdir)
    mine, theirs = run.facts.to_json(), facts.to_json()
    other = [key for key in mine if mine[key] != theirs[key]]
    if other:
        raise ValueError(
            f'--guide-workdir={args.guide_workdir} was trained on other data or conditions (facts that differ: '
            f'{", ".join(other)}): name a run on the same'
        )
    return build.experiment(config, facts)


def weaker(args, weak: build.Experiment, step: int, grid) -> tuple[int, dict]:
    """The step and the parameters of the weaker model, for a model of `step` of the workdir."""
    folder = args.guide_workdir or args.workdir
    with usage.checked(), contextlib.closing(checkpoint.open_existing(folder)) as saved:
        which = opening.kept(saved.steps(), args.guide_step)
        if os.path.samefile(folder, args.workdir) and which >= step:
            raise ValueError(
                f'the weaker model would be step {which} and the model itself step {step}: --guide-step must be '
                f'earlier; there are {", ".join(map(str, saved.steps()))} (config.train.keep of them are kept)'
            )
    return which, opening.weights(folder, weak, grid, args.weights, which)[0]


def said(args) -> str:
    """What the flags add to the line that says how pictures were drawn."""
    away = f', away from {args.negative_prompt!r}' if args.negative_prompt else ''
    parts = [_part(word) for word in args.also]
    climbed = f', up {args.classifier}' if args.classifier else ''
    return ''.join(f', and {text!r} at {scale:g}' for text, scale in parts) + away + climbed
