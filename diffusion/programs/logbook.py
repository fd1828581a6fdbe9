"""What a training writes down of its steps, which it reads a step late so that the next one never waits for it."""

import time
from typing import Any

import jax
import numpy as np

from diffusion.data import pipeline
from diffusion.programs import badfiles, efficiency, workdir
from diffusion.runtime import checkpoint, distributed, guard, incidents, meter, status, writer

STILL = 0.01  # share of the weights that a step must change for it to be training
HUNGRY = 0.1  # share of the time that steps may wait for data before it is said


class Logbook:
    """The metrics of a run and the judgement of the guard on each step, `standing`."""

    def __init__(
        self,
        setup: Any,
        saved: checkpoint.Checkpoints,
        line: status.Status,
        step: int,
        bad: badfiles.BadFiles,
    ):
        """setup: `train.Setup`; step: that the run goes on from; bad: the images that could not be read."""
        self._setup, self._saved, self._line, self._bad = setup, saved, line, bad
        self._options = setup.run.train
        self.meter = meter.Meter(self._options.batch)
        self._layers = guard.layer_names(jax.eval_shape(setup.run.network.init, jax.random.key(0)))
        self._incidents = incidents.there(setup.folder)
        saved.spared.update(self._incidents.values())
        self._efficiency = efficiency.measure(setup.run, setup.mesh)
        self._metrics, self._warned = None, set()
        self._hungry = 0
        self.go_on(step, standing_of(saved, step))

    def go_on(self, step: int, standing: guard.Standing) -> None:
        """From a step on: the run's first, or one that it went back to."""
        self.close()
        self.standing, self._late, self._written = standing, [], step
        self._metrics = writer.Metrics(self._setup.folder, step) if distributed.leads() else writer.Unwritten()

    @property
    def over(self) -> bool:
        """Whether the run must go back before it takes another step."""
        return self.standing.over(self._options.skips)

    def add(self, step: int, measured: dict) -> None:
        """The metrics of the step just dispatched. Waits for the step before, whose are read: two steps are under way
        at most."""
        self._late.append((step, measured))
        self._read(1)

    def settle(self) -> None:
        """Waits for the step dispatched last and reads it too."""
        self._read(0)

    def _read(self, left):
        while len(self._late) > left:
            step, measured = self._late.pop(0)
            row = jax.device_get(measured)
            verdict = row.pop('guard')
            self.meter.add({**row, 'skipped': float(not verdict['ok'])})
            if not verdict['ok'] and not self.over:
                self._report(step, row, verdict['norms'])
            self.standing = self.standing.after(step, bool(verdict['ok']), self._options.skips)
            if step % self._options.log_every == 0:
                self._summarise(step)

    def _summarise(self, step):
        latest = {**self.meter.summary(), 'bad_files': self._bad.count}
        if self._efficiency:
            latest['mfu'] = self._efficiency(latest['images_per_s'])
        self._metrics.write(step, latest)
        self._line.items = _shown(latest)
        if latest.get('changed', 1.0) < STILL:
            self.warn(
                'changed',
                f'step {step} changed {latest["changed"]:.2%} of the numbers in the weights; their precision or the '
                'learning rate is too low for the rest',
            )
        self._warn_of_waiting(step, latest['data_wait'])
        self._written = step

    def _warn_of_waiting(self, step, share):
        # Two windows one after the other: the first batches of a run are always waited for.
        self._hungry = self._hungry + 1 if share > HUNGRY else 0
        if self._hungry == 2:
            self.warn(
                'data_wait',
                f'{share:.0%} of the time up to step {step} was spent waiting for data; what they give and what the '
                f'steps need: diffusion data bench --workdir={self._setup.folder}',
            )

    def end(self, step: int) -> None:
        """Writes what has come since the last line, where the run stops."""
        self.settle()
        if self._written < step:
            self._summarise(step)

    def warn(self, about: str, message: str) -> None:
        """Says so, the first time about each thing."""
        if about not in self._warned:
            self._warned.add(about)
            self._line.say(f'warning: {message}')

    def write(self, step: int, values: dict) -> None:
        self._metrics.write(step, values)

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        self._metrics.picture(step, name, image)

    def close(self) -> None:
        if self._metrics:
            self._metrics.close()

    def _report(self, step, row, norms):
        """The evidence of a step that was skipped, on every process: only the first one writes."""
        folder = incidents.path(self._setup.folder, step, self.standing.offset)
        where = ''
        if folder in self._incidents or len(self._incidents) < self._options.incidents:
            base = last_good(self._saved, step - 1)
            self._incidents[folder] = base
            self._saved.spared.add(base)
            if distributed.leads():
                incidents.write(folder, self._evidence(step, row, norms, base))
            where = f'; evidence in {folder}, to see it again: diffusion train --replay={folder}'
        largest = ', '.join(f'{name} {norm:.3g}' for name, norm in guard.largest(self._layers, norms, 2))
        self._line.say(
            f'step {step} skipped: loss {row["loss"]:.4g}, largest gradients {largest}; '
            f'{self.standing.bad + 1} in a row{where}'
        )

    def _evidence(self, step, row, norms, base):
        run, first = self._setup.run, (step - 1) * self._options.batch + self.standing.offset
        batch, seed = self._options.batch, self._options.seed
        found = self._setup.data.buckets
        ids, _ = pipeline.batch_ids(found, run.facts.examples, first, np.arange(batch), batch, seed)
        return {
            'step': step,
            'checkpoint': base,
            'offset': self.standing.offset,
            'in_a_row': self.standing.bad + 1,
            'time': round(time.time(), 3),
            'devices': [self._setup.mesh.devices.flat[0].platform, self._setup.mesh.size],
            'ids': ids.tolist(),
            'metrics': means(row),
            'layers': guard.largest(self._layers, norms),
            **workdir.describe(run.config, run.facts),
        }


def means(row: dict) -> dict[str, float]:
    """The metrics of one step as numbers: a pair as its mean, left out where nothing weighs."""
    found = {}
    for name, value in row.items():
        total, weight = value if np.ndim(value) else (value, 1.0)
        if weight:
            found[name] = float(total / weight)
    return found


def _shown(latest: dict) -> dict[str, str]:
    skipped = {'skipped': f'{latest["skipped"]:.1%}'} if latest['skipped'] else {}
    return {
        **({'loss': f'{latest["loss"]:.4f}'} if 'loss' in latest else {}),
        **skipped,
        'images/s': f'{latest["images_per_s"]:.0f}',
        **({'MFU': f'{latest["mfu"]:.1%}'} if 'mfu' in latest else {}),
        'data wait': f'{latest["data_wait"]:.1%}',
    }


def standing_of(saved: checkpoint.Checkpoints, step: int) -> guard.Standing:
    """How the run fared at a checkpoint, or at the beginning, step 0."""
    return guard.Standing(**saved.meta(step).get('guard', {})) if step else guard.Standing()


def last_good(saved: checkpoint.Checkpoints, step: int) -> int:
    """The newest checkpoint at or before `step` that was made of a step that counted; 0, the beginning, without one."""
    saved.wait()
    steps = [each for each in saved.steps() if each <= step and not standing_of(saved, each).bad]
    return max(steps, default=0)
