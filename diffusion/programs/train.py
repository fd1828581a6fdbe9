"""`diffusion train`: train a model, or go on where the run in the workdir stopped."""

import contextlib
import dataclasses
import os
import sys
import time
from pathlib import Path
from typing import Any

import jax

from diffusion import build, usage
from diffusion.programs import (
    badfiles,
    beginning,
    feed,
    logbook,
    measured,
    preview,
    replay,
    starts,
    startup,
    steps,
    workdir,
)
from diffusion.programs import sheets as sheeting
from diffusion.runtime import (
    checkpoint,
    compilation,
    distributed,
    ema,
    mesh,
    platform,
    preemption,
    rollcall,
    snapshots,
    state,
    status,
    watchdog,
)


def main(argv: list[str]) -> int:
    """Exit status 0 when the run has all its steps, 2 for a wrong call, 75 when stopped with everything saved, 70 when
    something broke it."""
    args, overrides = _parser().parse(argv)
    if args.replay:
        return replay.main(args.replay, overrides)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(preemption.listening(lambda name: _say(_stopping(name))))
        stop.nothing_to_save('nothing to save, no step was taken: the same command starts again')
        setup = _setup(args, overrides, stop, stack)
        saved = stack.enter_context(contextlib.closing(_checkpoints(setup.folder, setup.run.train)))
        startup.compare(setup.links, setup, saved.latest())
        if setup.links:
            stop.join(setup.links)
        with stop.sharing_faults(), watchdog.Watchdog(setup.run.config['runtime']['watchdog'], stop.fail) as dog:
            return train(setup, saved, stop, dog)


def _setup(args, overrides, stop, stack):
    """Everything that can be wrong with a call is found here, before anything is written or computed."""
    with usage.checked():
        config = build.resolve(args.config, overrides)
        runtime, batch = config['runtime'], config['train']['batch']
        peers = distributed.find(args.coordinator, args.processes, args.process, tpu=runtime['platform'] != 'cpu')
        folder = args.workdir or os.path.join('runs', Path(args.config).stem)
        workdir.check_free(folder)
        before = workdir.read(folder)
        links = startup.join(peers, config, stop)
        if links:
            stack.push(links)
        devices = platform.configure(runtime['platform'], runtime['devices'], batch, peers.processes if peers else 1)
        grid = mesh.make(devices, runtime['fsdp'], runtime['tensor'], runtime['slices'])
        platform.check_batch(batch, mesh.shards(grid), config['train']['accumulate'])
        compilation.cache(os.path.join(folder, os.pardir, '.jax_cache'))
        data = build.source(config)
        facts = beginning.words(config, build.facts(config, data), data, before and before[1])
        run = build.experiment(config, facts)
        setup = Setup(run, data, grid, folder, preview.plan(run, data), links)
        if before:
            workdir.check_same(before[0], config, before[1], facts, args.allow_config_change)
            checkpoint.check_averages(folder, run.ema.names())
        beginning.check_fresh(folder, run)
    distributed.together('every process has looked at the workdir')
    if distributed.leads():
        workdir.write(folder, workdir.describe(config, facts))
    return setup


def _parser():
    parser = usage.Parser('train', __doc__.split(': ', 1)[1])
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument('--config', metavar='FILE', help='a file of configs/, or your own')
    task.add_argument('--replay', metavar='DIR', help='compute a step of WORKDIR/incidents/ again and report on it')
    parser.add_argument('--workdir', metavar='DIR', help='where the run lives (default: runs/NAME_OF_CONFIG)')
    parser.add_argument(
        '--allow-config-change',
        metavar='KEYS',
        default=[],
        type=lambda text: text.split(','),
        help="keys, with commas, in which the config may differ from the workdir's",
    )
    parser.add_argument('--coordinator', metavar='HOST:PORT', help='of several processes: where process 0 listens')
    parser.add_argument('--processes', type=int, metavar='N', help='how many; 1: do not look for others')
    parser.add_argument('--process', type=int, metavar='I', help='which of them this is, from 0')
    parser.epilog = 'Every value of the config is a flag: --config.SECTION.KEY=VALUE, as --config.train.steps=500'
    return parser


def _checkpoints(folder: str, options) -> checkpoint.Checkpoints:
    values = measured.values(folder, options.best_metric, options.best_highest)
    return checkpoint.Checkpoints(folder, options.keep, every=options.keep_every, best=options.keep_best, values=values)


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a run is made of."""

    run: build.Experiment
    data: Any
    mesh: jax.sharding.Mesh
    folder: str
    shown: preview.Plan
    links: rollcall.Links | None


def train(setup: Setup, saved: checkpoint.Checkpoints, stop: preemption.Stop, dog: watchdog.Watchdog) -> int:
    """All steps from the newest good checkpoint on."""
    options, folder = setup.run.train, setup.folder
    with usage.checked():
        done, damaged = saved.settle()
    for message in damaged:
        _say(message)
    shown = not setup.run.preview.num or distributed.agreed(sheeting.path(folder, done).exists())
    if done > options.steps or (done == options.steps and shown):
        print(f'{folder} has {done} steps already: for more, --config.train.steps={2 * done}')
        return 0
    with contextlib.ExitStack() as stack:
        if distributed.leads():
            starts.write(setup, done)
        parts = _parts(setup, saved, stop, dog, done, stack)
        current, step = _begin(parts, done)
        parts.line.say(compilation.TALLY.said())
        stop.training()
        stopped = False
        if step:
            current, done, stopped = steps.take_all(parts, current, step, done)
        saved.wait()
        if stopped:
            parts.line.say(f'stopped at step {done} of {options.steps}, all saved: the same command goes on from here')
            return preemption.STOPPED
        stop.saved(f'all {options.steps} steps are saved: the same command draws the last samples')
        parts.sheets.finish(options.steps, current.ema[ema.MAIN], dog)
        parts.line.say(
            f'{options.steps} steps done; the checkpoint is in {folder}: diffusion sample --workdir={folder}'
        )
    return 0


def _parts(setup, saved, stop, dog, done, stack) -> steps.Parts:
    """All that takes part, to be closed by `stack`."""
    line = stack.enter_context(status.Status('train', setup.run.train.steps, done, quiet=not distributed.leads()))
    stop.announce = lambda name: line.say(_stopping(name))
    if done:
        stop.nothing_to_save(f'nothing to save beyond step {done}, which is: the same command goes on from there')
    bad = badfiles.BadFiles(setup)
    book = stack.enter_context(contextlib.closing(logbook.Logbook(setup, saved, line, done, bad)))
    stream = feed.Feed(setup, done, book.standing.offset, bad, lambda: book.meter.pace)
    stack.enter_context(contextlib.closing(stream))
    snaps = stack.enter_context(contextlib.closing(snapshots.Snapshots(setup.folder, setup.run.ema, done)))
    return steps.Parts(setup, saved, stop, dog, line, book, stream, snaps, sheeting.Sheets(setup, book, line))


def _begin(parts, done):
    """The state at `done` and the compiled step, None where none is left to be taken.

    A run that was stopped while it drew a sheet draws it now; where it was the last, there is no step left but that.
    """
    setup, dog = parts.setup, parts.dog
    dog.beat('restoring the state and compiling the step')
    going = done < setup.run.train.steps or parts.book.over
    current, step = _state(setup, parts.saved, done, parts.line, going, dog.beat)
    every = setup.run.preview.every
    if going and every:
        dog.beat('compiling the sampler')
        parts.sheets.prepare(current.ema[ema.MAIN])
        if done and done % every == 0 and not distributed.agreed(sheeting.path(setup.folder, done).exists()):
            parts.sheets.draw(done, current.ema[ema.MAIN], lambda: False, dog)
    return current, step


def _state(setup, saved, start, line, going, beat):
    run = setup.run
    target = state.abstract(setup.mesh, run.network.init, run.optimizer, run.memory, run.ema)
    weights = sum(leaf.size for leaf in jax.tree.leaves(target.params))
    processes = f' of {jax.process_count()} processes' if jax.process_count() > 1 else ''
    devices = f'{setup.mesh.size} {setup.mesh.devices.flat[0].platform} device(s){processes}'
    shape = f'{len(run.facts.shapes)} sizes' if setup.data.buckets else ' x '.join(map(str, run.facts.shape))
    for said in _sizes(setup.data.buckets, run.train.batch):
        line.say(said)
    line.say(f'{run.facts.examples:,} examples of {shape}; {weights:,} weights; {devices}; workdir {setup.folder}')
    if start:
        current = saved.restore(start, target)
        line.say(f'goes on where it stopped: step {start} of {run.train.steps}')
    else:
        current = beginning.create(run, target, setup.mesh, setup.folder, line.say)
    if not going:
        return current, None
    begin = time.monotonic()
    step = steps.compiled(run, setup.mesh, target, beat)
    sizes = f' for {len(run.facts.shapes)} sizes' if len(run.facts.shapes) > 1 else ''
    line.say(f'compiled the training step{sizes} in {time.monotonic() - begin:.0f} s')
    return current, step


def _sizes(found, batch):
    """What a reader should know of the buckets before they are trained on, None where there are none."""
    if found is None:
        return
    for (height, width), ids, cut in zip(found.sizes, found.members, found.cut):
        rare = f'; less than a batch: it comes once in {batch / len(ids):.0f} epochs' if len(ids) < batch else ''
        yield f'images of {height} x {width}: {len(ids):,}, of which {cut:.1%} is cut{rare}'


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _stopping(name: str) -> str:
    return f'{name}: stops after this step and saves it (Ctrl-C again: at once, unsaved)'
