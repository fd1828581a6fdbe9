"""The steps of a training: taken, judged, drawn from and saved, until there are enough or the run is stopped."""

import dataclasses
from collections.abc import Callable

import jax

from diffusion import usage
from diffusion.programs import feed, logbook, measured, rollback, sheets, workdir
from diffusion.runtime import checkpoint, ema, guard, mesh, preemption, snapshots, state, status, watchdog


@dataclasses.dataclass(frozen=True, eq=False)
class Parts:
    """What takes part in a run under way. setup: `train.Setup`."""

    setup: 'train.Setup'  # noqa: F821 - that module reads from the top down and imports this one
    saved: checkpoint.Checkpoints
    stop: preemption.Stop
    dog: watchdog.Watchdog
    line: status.Status
    book: logbook.Logbook
    stream: feed.Feed
    snaps: snapshots.Snapshots
    sheets: sheets.Sheets


def compiled(run, grid: jax.sharding.Mesh, target: state.TrainState, beat: Callable = lambda name: None) -> Callable:
    """(state, batch) -> state, metrics of a `build.Experiment`, compiled for every shape that its images have.

    beat: told what is begun.
    """
    step, programs = jitted(run, grid, target), {}
    for shape in run.facts.shapes:
        beat(f'compiling the step for images of {" x ".join(map(str, shape))}')
        programs[shape] = step.lower(target, run.batch_shapes(shape)).compile()
    return lambda current, batch: programs[batch['image'].shape[1:]](current, batch)


def jitted(run, grid: jax.sharding.Mesh, target: state.TrainState):
    """The step of a `build.Experiment`, yet to be compiled."""
    options = run.train
    how = options.seed, options.accumulate, grid, run.probe, options.log_every
    return state.jit_step(state.step(run.loss, run.optimizer, run.ema, *how), grid, target)


def take_all(parts: Parts, current: state.TrainState, step: Callable, done: int) -> tuple[state.TrainState, int, bool]:
    """The steps after `done`. Returns the state, the step it is of, and whether the run was stopped before its last.

    step: (state, batch) -> state, metrics, compiled. The last state is being saved when it returns.
    """
    book, stop, snaps, options = parts.book, parts.stop, parts.snaps, parts.setup.run.train
    owed = False
    while done < options.steps or book.over:
        if book.over:
            current, done = _go_back(parts, current)
            continue
        done += 1
        current = _take(parts, current, step, done)
        owed = owed or done % options.save_every == 0
        stopping = stop.reached()
        if parts.sheets.due(done) and not stopping:
            with book.meter.paused():
                stopping = parts.sheets.draw(done, current.ema[ema.MAIN], stop.reached, parts.dog) is None
        ending = stopping or done == options.steps
        if not (ending or owed or snaps.due(done)):
            continue
        book.settle()
        if book.over and not stopping:
            continue
        # While steps are skipped, the checkpoint to go back to must not give way to newer ones.
        saving = ending or (owed and not book.standing.bad)
        with book.meter.paused():
            _keep(parts, current, done, saving)
        owed = owed and not saving
        if ending:
            book.end(done)
        if stopping and done < options.steps:
            return current, done, True
    return current, done, False


def _take(parts, current, step, done):
    """One step, as soon as its data are there; what the save before met is raised here."""
    parts.saved.check()
    parts.snaps.check()
    with parts.book.meter.waiting():
        batch = mesh.put(parts.setup.mesh, parts.setup.run.inputs(parts.stream.next()))
    with jax.transfer_guard('disallow'):
        current, found = step(current, batch)
    parts.book.add(done, found)
    parts.dog.beat(f'step {done}')
    parts.line.update(done, parts.book.meter.aside)
    return current


def _keep(parts, current, done, saving):
    """The averages of a step where they are due, and its checkpoint where it is to be saved."""
    meta = _meta(parts.setup, done, parts.book.standing)
    if parts.snaps.due(done):
        parts.dog.beat(f'storing the averages of step {done}')
        parts.snaps.take(done, current.ema, meta, parts.saved)
    if saving:
        parts.dog.beat(f'saving step {done}')
        parts.snaps.wait()
        parts.saved.save(done, current, meta)
        warning = measured.missing(parts.setup.folder, parts.setup.run.train)
        if warning:
            parts.book.warn('best_metric', warning)


def _go_back(parts, current):
    standing = parts.book.standing
    if standing.rollbacks >= parts.setup.run.train.rollbacks:
        raise usage.Fault(_gave_up(standing))
    current, done = rollback.go_back(parts.setup, parts.saved, parts.book, current, parts.line)
    parts.stream.go_to(done, parts.book.standing.offset)
    parts.snaps.forget_after(done)
    return current, done


def _gave_up(standing: guard.Standing) -> str:
    return (
        f'stopped: {standing.bad} steps in a row up to step {standing.last} had no finite loss and gradient, after the '
        f'run had gone back {standing.rollbacks} times (train.rollbacks): look at its incidents, then lower '
        'optimizer.lr or set optimizer.clip'
    )


def _meta(setup, done, standing):
    """The data position is one integer, whatever the number of devices and hosts."""
    position = {'step': done, 'examples': done * setup.run.train.batch + standing.offset}
    described = workdir.describe(setup.run.config, setup.run.facts)
    return {**described, 'position': position, 'guard': dataclasses.asdict(standing)}
