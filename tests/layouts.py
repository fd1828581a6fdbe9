"""The same training on many layouts of devices, in this process and in several real ones: the table of docs/pods.md.

python -m tests.layouts [--nets=PointNet,UNet,DiT] [--steps=10]
"""

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import jax
import numpy as np

from diffusion import build, ports
from diffusion.data import pipeline
from diffusion.runtime import distributed, mesh, platform, state

ROOT = pathlib.Path(__file__).parents[1]
# Everything that draws random numbers, or remembers, is on.
NETS = {
    'PointNet': [
        'toy2d', 'net.width=16', 'net.depth=2', 'train.uncertainty=True', 'train.adaptive=8', 'train.variance_steps=100'
    ],
    'UNet': [
        'emoji', 'net.width=16', 'net.multipliers=1,2', 'net.attention=1', 'net.cross_attention=1', 'net.head_width=8',
        'net.dropout=0.1', 'augment.name=edm', 'augment.p=0.5',
    ],
    'DiT': [
        'emoji', 'net.name=DiT', 'net.patch=4', 'net.width=32', 'net.depth=2', 'net.heads=4', 'net.text_width=16',
        'net.text_layers=1', 'net.dropout=0.1', 'augment.name=flip',
    ],
}  # fmt: skip
BATCH = 32


@dataclasses.dataclass(frozen=True)
class Layout:
    """devices over all processes; what slices, fsdp and tensor leave of them is data."""

    devices: int = 1
    slices: int = 1
    fsdp: int = 1
    tensor: int = 1
    accumulate: int = 1
    processes: int = 1

    def __str__(self):
        data = self.devices // (self.slices * self.fsdp * self.tensor)
        return (
            f'{self.devices} = {self.slices} x {data} x {self.fsdp} x {self.tensor} | {self.accumulate} | '
            f'{self.processes}'
        )


LAYOUTS = (
    Layout(2),
    Layout(4),
    Layout(8),
    Layout(2, fsdp=2),
    Layout(8, fsdp=4),
    Layout(2, tensor=2),
    Layout(8, tensor=4),
    Layout(8, fsdp=2, tensor=2),
    Layout(8, slices=2, fsdp=2, tensor=2),
    Layout(1, accumulate=2),
    Layout(1, accumulate=4),
    Layout(8, accumulate=4),
    Layout(8, slices=2, fsdp=2, tensor=2, accumulate=2),
    Layout(2, processes=2),
    Layout(8, fsdp=8, processes=2),
    Layout(4, tensor=4, processes=2),
    Layout(8, slices=2, fsdp=2, tensor=2, accumulate=4, processes=2),
    Layout(4, fsdp=2, tensor=2, accumulate=2, processes=4),
)


@dataclasses.dataclass(frozen=True)
class Trained:
    """losses: [steps]; params: one array a parameter."""

    losses: np.ndarray
    params: list[np.ndarray]

    def compare(self, one: 'Trained') -> tuple[float, float, float]:
        """Relative differences: of the first loss, the largest of any loss, and the norm of that of the parameters."""
        apart = np.abs(self.losses / one.losses - 1)
        norms = [
            np.sqrt(sum(np.sum(np.float64(leaf) ** 2) for leaf in leaves))
            for leaves in ([a - b for a, b in zip(self.params, one.params, strict=True)], one.params)
        ]
        return float(apart[0]), float(apart.max()), float(norms[0] / norms[1])


def train(net: str, layout: Layout, data_dir: str, steps: int = 10, overrides=()) -> Trained:
    """A training as `diffusion train` does it, under the transfer guard."""
    name, *small = NETS[net]
    small += [f'data.data_dir={data_dir}'] if name == 'emoji' else []
    config = build.resolve(str(ROOT / f'configs/{name}.py'), [*small, f'train.batch={BATCH}', *overrides])
    data = build.source(config)
    run = build.experiment(config, build.facts(config, data))
    grid = mesh.make(jax.devices()[: layout.devices], layout.fsdp, layout.tensor, layout.slices)
    platform.check_batch(BATCH, mesh.shards(grid), layout.accumulate)
    target = state.abstract(grid, run.network.init, run.optimizer, run.memory)
    current = state.create(target, run.network.init, run.optimizer, 0, run.memory)
    advance = state.step(run.loss, run.optimizer, run.ema, 0, layout.accumulate, grid)
    step = state.jit_step(advance, grid, target).lower(target, run.batch_shapes()).compile()
    encode = run.facts.tokenizer.encode if run.facts.tokenizer else None
    stream = pipeline.batches(data, batch=BATCH, seed=0, encode=encode, rows=mesh.rows(grid, BATCH))
    losses = []
    for _ in range(steps):
        with jax.transfer_guard('disallow'):
            current, metrics = step(current, mesh.put(grid, run.inputs(next(stream))))
        losses.append(float(mesh.fetch(metrics['loss'])))
    stream.close()
    return Trained(np.array(losses), jax.tree.leaves(mesh.fetch(current.params)))


def train_in_processes(net: str, layouts: list[Layout], data_dir: str, steps: int = 10) -> list[Trained]:
    """`train` on layouts that are alike in devices and processes, in that many real processes."""
    (processes, devices), *others = {(layout.processes, layout.devices) for layout in layouts}
    assert not others
    with tempfile.TemporaryDirectory() as folder:
        job = {
            'coordinator': f'localhost:{ports.free_pair()}',
            'processes': processes,
            'devices': devices // processes,
            'folder': folder,
            'net': net,
            'layouts': [dataclasses.asdict(layout) for layout in layouts],
            'data_dir': data_dir,
            'steps': steps,
        }
        words = [sys.executable, '-m', 'tests.layouts', f'--job={json.dumps(job)}']
        started = [
            subprocess.Popen([*words, f'--process={i}'], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            for i in range(processes)
        ]
        said = [process.communicate(timeout=600)[0].decode() for process in started]
        assert not any(process.returncode for process in started), '\n'.join(said)
        return [_read(f'{folder}/{i}.npz') for i in range(len(layouts))]


def _read(path):
    with np.load(path) as found:
        return Trained(found['losses'], [found[f'p{i}'] for i in range(len(found) - 1)])


def _work(job, process):
    jax.config.update('jax_platforms', 'cpu')
    jax.config.update('jax_num_cpu_devices', job['devices'])
    distributed.join(distributed.Peers(job['coordinator'], job['processes'], process, 'a test'))
    for i, layout in enumerate(job['layouts']):
        found = train(job['net'], Layout(**layout), job['data_dir'], job['steps'])
        if distributed.leads():
            named = {f'p{i}': leaf for i, leaf in enumerate(found.params)}
            np.savez(os.path.join(job['folder'], f'{i}.npz'), losses=found.losses, **named)


def table(nets: list[str], steps: int, data_dir: str) -> None:
    """Prints a row a layout, as it comes: of each network the largest difference of a loss, and that of parameters."""
    print(f'| devices = slice x data x fsdp x tensor | accumulate | processes | {" | ".join(nets)} |')
    print('|---' * (3 + len(nets)) + '|')
    alone = {net: train(net, Layout(), data_dir, steps) for net in nets}
    for layout in LAYOUTS:
        cells = []
        for net in nets:
            if layout.processes == 1:
                found = train(net, layout, data_dir, steps)
            else:
                found = train_in_processes(net, [layout], data_dir, steps)[0]
            cells.append('{1:.0e}, {2:.0e}'.format(*found.compare(alone[net])))
        print(f'| {layout} | {" | ".join(cells)} |', flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--nets', default=','.join(NETS))
    parser.add_argument('--steps', type=int, default=10)
    parser.add_argument('--job', help=argparse.SUPPRESS)
    parser.add_argument('--process', type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        _work(json.loads(args.job), args.process)
        return
    jax.config.update('jax_platforms', 'cpu')
    jax.config.update('jax_num_cpu_devices', 8)
    with tempfile.TemporaryDirectory() as data_dir:
        table(args.nets.split(','), args.steps, data_dir)


if __name__ == '__main__':
    main()
