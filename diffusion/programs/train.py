"""`diffusion train`: train a model, or go on where the run in the workdir stopped."""

import contextlib
import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import jax

from diffusion import build, usage
from diffusion.data import pipeline
from diffusion.programs import drawing, preview, workdir
from diffusion.runtime import checkpoint, mesh, meter, platform, preemption, state, status, writer


def main(argv: list[str]) -> int:
    """Exit status 0 when the run has all its steps, 2 for a wrong call, 75 when stopped with everything saved."""
    args, overrides = _parser().parse(argv)
    with usage.checked():
        config = build.resolve(args.config, overrides)
        folder = args.workdir or os.path.join('runs', Path(args.config).stem)
        workdir.check_free(folder)
        before = workdir.read(folder)
        runtime, batch = config['runtime'], config['train']['batch']
        devices = platform.configure(runtime['platform'], runtime['devices'], batch)
        platform.check_batch(batch, len(devices))
        platform.cache(os.path.join(folder, os.pardir, '.jax_cache'))
        data = build.source(config)
        facts = build.facts(config, data)
        run = build.experiment(config, facts)
        setup = Setup(run, data, mesh.make(devices, runtime['fsdp']), folder, preview.plan(run, data))
        if before:
            workdir.check_same(before[0], config, before[1], facts, args.allow_config_change)
    workdir.write(folder, workdir.describe(config, facts))
    with contextlib.closing(checkpoint.Checkpoints(folder, run.train.keep)) as saved:
        return train(setup, saved)


def _parser():
    parser = usage.Parser('train', __doc__.split(': ', 1)[1])
    parser.add_argument('--config', required=True, metavar='FILE', help='a file of configs/, or your own')
    parser.add_argument('--workdir', metavar='DIR', help='where the run lives (default: runs/NAME_OF_CONFIG)')
    parser.add_argument(
        '--allow-config-change',
        metavar='KEYS',
        default=[],
        type=lambda text: text.split(','),
        help="keys, with commas, in which the config may differ from the workdir's",
    )
    parser.epilog = 'Every value of the config is a flag: --config.SECTION.KEY=VALUE, as --config.train.steps=500'
    return parser


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a run is made of."""

    run: build.Experiment
    data: Any
    mesh: jax.sharding.Mesh
    folder: str
    shown: preview.Plan


def train(setup: Setup, saved: checkpoint.Checkpoints) -> int:
    """All steps from the newest checkpoint on."""
    run, options, folder = setup.run, setup.run.train, setup.folder
    start = saved.latest() or 0
    if start > options.steps or (start == options.steps and _sheet(folder, start).exists()):
        print(f'{folder} has {start} steps already: for more, --config.train.steps={2 * start}')
        return 0
    with contextlib.ExitStack() as stack:
        line = stack.enter_context(status.Status('train', options.steps, start))
        stop = stack.enter_context(preemption.listening(lambda name: line.say(_stopping(name))))
        current, step = _begin(setup, saved, start, line)
        # A run that was stopped while it drew its last sheet has no step left to take, but the sheet to draw.
        metrics = stack.enter_context(contextlib.closing(writer.Metrics(folder, start)))
        batches = stack.enter_context(contextlib.closing(_batches(setup, start)))
        sheets = _Sheets(setup, metrics, line)
        meters = meter.Meter(options.batch)
        for done in range(start + 1, options.steps + 1):
            with meters.waiting():
                batch = mesh.put(setup.mesh, run.inputs(next(batches)))
            with jax.transfer_guard('disallow'):
                current, measured = step(current, batch)
            meters.add(measured)
            ending = bool(stop) or done == options.steps
            if ending or done % options.log_every == 0:
                latest = meters.summary()
                metrics.write(done, latest)
                line.items = _shown(latest)
            line.update(done, meters.aside)
            with meters.paused():
                if run.preview.every and done % run.preview.every == 0 and done < options.steps:
                    sheets.draw(done, current.ema)
                if ending or done % options.save_every == 0:
                    saved.save(done, current, _meta(setup, done))
            if ending and done < options.steps:
                saved.wait()
                line.say(f'stopped at step {done} of {options.steps}, all saved: the same command goes on from here')
                return preemption.STOPPED
        sheets.finish(options.steps, current.ema)
        saved.wait()
        line.say(f'{options.steps} steps done; the checkpoint is in {folder}: diffusion sample --workdir={folder}')
    return 0


def _begin(setup, saved, start, line):
    """The state at `start` and the compiled step, None where none is left."""
    run = setup.run
    target = state.abstract(setup.mesh, run.network.init, run.optimizer, run.memory)
    weights = sum(leaf.size for leaf in jax.tree.leaves(target.params))
    devices = f'{setup.mesh.size} {setup.mesh.devices.flat[0].platform} device(s)'
    shape = ' x '.join(map(str, run.facts.shape))
    line.say(f'{run.facts.examples:,} examples of {shape}; {weights:,} weights; {devices}; workdir {setup.folder}')
    if start:
        current = saved.restore(start, target)
        line.say(f'goes on where it stopped: step {start} of {run.train.steps}')
    else:
        current = state.create(target, run.network.init, run.optimizer, run.train.seed, run.memory)
    if start == run.train.steps:
        return current, None
    begin = time.monotonic()
    advance = state.step(run.loss, run.optimizer, run.ema, run.train.seed)
    step = state.jit_step(advance, setup.mesh, target).lower(target, run.batch_shapes()).compile()
    line.say(f'compiled the training step in {time.monotonic() - begin:.0f} s')
    return current, step


def _batches(setup, start):
    facts, options = setup.run.facts, setup.run.train
    return pipeline.batches(
        setup.data,
        batch=options.batch,
        seed=options.seed,
        encode=facts.tokenizer.encode if facts.tokenizer else None,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        start=start,
    )


def _meta(setup, done):
    """The data position is one integer, whatever the number of devices and hosts."""
    position = {'step': done, 'examples': done * setup.run.train.batch}
    return {**workdir.describe(setup.run.config, setup.run.facts), 'position': position}


def _shown(latest: dict) -> dict[str, str]:
    return {
        'loss': f'{latest["loss"]:.4f}',
        'images/s': f'{latest["images_per_s"]:.0f}',
        'data wait': f'{latest["data_wait"]:.1%}',
    }


def _stopping(name: str) -> str:
    return f'{name}: stops after this step and saves it (Ctrl-C again: at once, unsaved)'


def _sheet(folder: str, step: int) -> Path:
    return Path(folder) / 'samples' / f'step_{step:07}.png'


class _Sheets:
    """The sheets of samples of a run; the sampler is compiled when the first is drawn."""

    def __init__(self, setup: Setup, metrics: writer.Metrics, line: status.Status):
        self._setup, self._metrics, self._line = setup, metrics, line
        config = setup.run.config
        self._artist = drawing.artist(setup.run, config, setup.mesh, config['sample']['batch'])

    def draw(self, step: int, weights: dict) -> Path:
        path = _sheet(self._setup.folder, step)
        sheet = preview.draw(self._setup.run, self._artist, weights, self._setup.shown, path)
        self._metrics.picture(step, 'samples', sheet)
        return path

    def finish(self, step: int, weights: dict) -> None:
        """The last sheet, and the share of captions whose picture is the right one where that is asked for."""
        setup = self._setup
        self._line.say(f'samples: {self.draw(step, weights)}')
        num = setup.run.preview.match
        if num and setup.run.facts.tokenizer:
            found = preview.caption_match(setup.run, self._artist, weights, setup.data, num)
            self._metrics.write(step, found)
            share, drawn = found['caption_match'], found['caption_match_n']
            self._line.say(
                f'caption match: {share:.1%} of {drawn} captions gave a picture whose nearest training image is theirs'
            )
