"""The state that a training begins with: drawn at random, or the weights of another run (config.init_from)."""

import contextlib
import dataclasses
import json
import os
from pathlib import Path

import jax

from diffusion import build
from diffusion import config as configs
from diffusion.data import tokens
from diffusion.programs import opening
from diffusion.runtime import checkpoint, distributed, sharding, state, store, writer

FILE = 'init_from.json'  # of a workdir: what its weights were taken from
# What may differ between two networks of the same weights, since it changes how they are computed and trained alone.
FREE = ('dropout', 'remat', 'unroll', 'dtype')


@dataclasses.dataclass(frozen=True)
class Base:
    """A run that weights are taken from. mark: names the content of the files."""

    folder: str
    weights: str
    step: int
    mark: str
    config: configs.Config
    facts: build.Facts


def base(config: configs.Config) -> Base | None:
    """The run that a config begins from, None for none. Raises ValueError."""
    asked = config['init_from']
    if not asked['path']:
        return None
    path, step = Path(asked['path']), asked['step'] or None
    if path.parent.name == checkpoint.FOLDER and path.name.isdecimal():
        if step:
            raise ValueError(f'config.init_from.path={path} names a step: leave out config.init_from.step')
        path, step = path.parents[1], int(path.name)
    try:
        stored, facts = opening.read(str(path))
        step = opening.steps(str(path), asked['weights'], None if step is None else str(step))[0]
        mark = opening.mark(str(path), asked['weights'], step)
    except ValueError as error:
        raise ValueError(f'config.init_from: {error}') from error
    return Base(str(path), asked['weights'], step, mark, stored, facts)


def words(config: configs.Config, facts: build.Facts, data, before: build.Facts | None) -> build.Facts:
    """The facts of a run with the words of its base, whose weights know no others. data: the source of the captions;
    before: the facts of a run that goes on. Raises ValueError where a caption has words that the base does not know."""
    if not config['init_from']['path'] or not isinstance(facts.tokenizer, tokens.Words):
        return facts
    found = None if before else base(config)
    known = before.tokenizer if before else found.facts.tokenizer
    if known == facts.tokenizer or not isinstance(known, tokens.Words):
        return facts
    try:
        for caption in dict.fromkeys(data.captions()):
            known.encode([caption])
    except ValueError as error:
        where = found.folder if found else 'its base'
        raise ValueError(f'config.init_from: a caption is not in the words of {where}: {error}') from error
    return dataclasses.replace(facts, tokenizer=known)


def check(found: Base, run: build.Experiment) -> None:
    """Refuses by ValueError a base whose weights would mean something else in this run."""
    mine, theirs = run.config['net'], found.config['net']
    other = [key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key) and key not in FREE]
    if other:
        key = 'name' if 'name' in other else other[0]
        raise ValueError(
            f'config.net.{key} is {mine.get(key)!r} here and {theirs.get(key)!r} in {found.folder}, whose weights '
            'config.init_from takes: make them the same'
        )
    if run.config['precond'] != found.config['precond']:
        raise ValueError(
            f'config.precond is {run.config["precond"]} here and {found.config["precond"]} in {found.folder}: its '
            'network predicts something else; make them the same'
        )
    for what, one, two in (
        ('classes', run.facts.classes, found.facts.classes),
        ('words', run.facts.tokenizer, found.facts.tokenizer),
    ):
        if one != two:
            raise ValueError(
                f'config.init_from: the {what} of this run are not those of {found.folder}, so their weights would '
                'stand for others: train on the same, or without'
            )
    _check_shapes(found, run)


def check_fresh(folder: str, run: build.Experiment) -> None:
    """Refuses a base that a run could not begin from, while it has no step yet; later it is not looked at."""
    if store.steps(Path(folder) / checkpoint.FOLDER):
        return
    found = base(run.config)
    if found:
        check(found, run)
        _check_mark(found, folder)


def _check_shapes(found, run):
    mine, theirs = (
        {sharding.path_of(keys): leaf.shape for keys, leaf in jax.tree_util.tree_leaves_with_path(_shapes(one))}
        for one in (run, _experiment(found))
    )
    for path in sorted({**mine, **theirs}):
        here, there = mine.get(path), theirs.get(path)
        if here != there and not (there is None and path.startswith(NEW)):
            raise ValueError(
                f'config.init_from: {path} is {here or "not there"} in this network and {there or "not there"} in that '
                f'of {found.folder}: its weights do not fit'
            )


NEW = 'picture/'  # weights that begin at zero, where the base has none


def _experiment(found: Base) -> build.Experiment:
    return build.experiment(found.config, found.facts)


def _shapes(run):
    return jax.eval_shape(run.network.init, jax.eval_shape(lambda: jax.random.key(0)))


def create(run: build.Experiment, target: state.TrainState, grid, folder: str, say=lambda message: None):
    """The state before the first step, placed as `target`; folder: the workdir, which then knows its base.

    say: told what was copied. Raises ValueError where the base is no longer what the run began from.
    """
    how = target, run.network.init, run.optimizer, run.train.seed, run.memory, run.ema
    found = base(run.config)
    if found is None:
        return state.create(*how)
    check(found, run)
    _check_mark(found, folder)
    given = _taken(found, grid)
    if distributed.leads():
        told = {'path': os.path.abspath(found.folder), 'weights': found.weights, 'step': found.step}
        writer.write_json(Path(folder) / FILE, {**told, 'mark': found.mark})
    counts = [len(jax.tree.leaves(tree)) for tree in (given, target.params)]
    numbers = sum(leaf.size for leaf in jax.tree.leaves(given))
    say(
        f'begins from the {found.weights} weights of step {found.step} of {found.folder}: {counts[0]} arrays, '
        f'{numbers:,} numbers; {counts[1] - counts[0]} new ones begin at zero; '
        'the optimizer begins anew'
    )
    return state.create(*how, given=given)


def _taken(found, grid) -> dict:
    """The weights of the base, split over the devices as they are trained."""
    place, part = opening.located(found.folder, found.weights)
    run = _experiment(found)
    abstract = state.abstract(grid, run.network.init, run.optimizer).params
    with contextlib.closing(store.Store(place, create=False)) as saved:
        return saved.weights(found.step, part, abstract)


def _check_mark(found, folder):
    path = Path(folder) / FILE
    if not path.exists():
        return
    before = json.loads(path.read_text(encoding='utf-8'))
    if before.get('mark') != found.mark:
        raise ValueError(
            f'{found.folder} is no longer what this run began from (step {before.get("step")}, mark '
            f'{before.get("mark")}; now step {found.step}, mark {found.mark}): name the same by '
            'config.init_from.step, or another --workdir'
        )
