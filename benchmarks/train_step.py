"""Images/s of the training step: ours as `diffusion train` compiles it, and the same in PyTorch on the CPU.

    python benchmarks/train_step.py --config=configs/emoji.py --seconds=20 --rounds=3 --json=train_step.json

Every measurement has a process of its own, and the two sides take turns, so that they neither fight for the
cores nor meet a machine busy with different things. Compilation and warm-up are not in the rates; nor are
data, which are a few random batches that both sides hold ready. Both compute in float32.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform as machine
import statistics
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

from diffusion import build, usage
from diffusion.runtime import mesh, platform, state

BATCHES = 8
WARM_UP = 5
# Steps between two looks at the clock, each of which waits for the device.
STRIDE = 4
# Cores that other processes may keep busy, on average, before the figures mean nothing.
QUIET = 0.1


def main(argv: list[str]) -> int:
    args, overrides = _parser().parse(argv)
    with usage.checked():
        config = build.resolve(args.config, [*overrides, 'runtime.platform=cpu'])
    if args.side:
        print(json.dumps(SIDES[args.side](config, args)))
        return 0
    return compare(config, args, overrides)


def _parser():
    parser = usage.Parser('train', __doc__.splitlines()[0])
    parser.prog = 'python benchmarks/train_step.py'
    parser.add_argument('--config', default='configs/emoji.py', metavar='FILE')
    parser.add_argument('--seconds', type=float, default=20, help='how long each measurement runs')
    parser.add_argument('--rounds', type=int, default=3, help='measurements of each side')
    parser.add_argument('--json', metavar='FILE', help='also write everything there')
    for flag in ('--side', '--setting'):
        parser.add_argument(flag, help=argparse.SUPPRESS)
    return parser


def random_batches(batch: int, facts) -> list[dict]:
    """Batches of the shapes of the data, filled at random; the last positions of a caption are padding."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(BATCHES):
        rows = {'image': rng.integers(0, 256, (batch, *facts.shape), np.uint8)}
        if facts.dtype != 'uint8':
            rows['image'] = rng.standard_normal((batch, *facts.shape), np.float32)
        rows['label'] = rng.integers(0, max(len(facts.classes), 1), batch, np.int32)
        if facts.tokenizer:
            length = facts.tokenizer.length
            tokens = rng.integers(1, facts.tokenizer.size, (batch, length), np.int32)
            rows['tokens'] = np.where(np.arange(length) < rng.integers(1, length, (batch, 1)), tokens, 0)
        found.append({name: np.ascontiguousarray(value) for name, value in rows.items()})
    return found


def timed(advance, finish, batch: int, seconds: float) -> float:
    """Images/s of advance(i), which runs step i; finish() waits until all of them are done."""
    for i in range(WARM_UP):
        advance(i)
    finish()
    begin, steps = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        for i in range(steps, steps + STRIDE):
            advance(i)
        finish()
        steps += STRIDE
    return steps * batch / (time.perf_counter() - begin)


def measure_ours(config, args) -> dict:
    """Our step, wired and compiled the way `diffusion train` does it."""
    runtime, size = config['runtime'], config['train']['batch']
    devices = platform.configure(runtime['platform'], runtime['devices'], size)
    facts = build.facts(config, build.source(config))
    run = build.experiment(config, facts)
    grid = mesh.make(devices, runtime['fsdp'], runtime['tensor'], runtime['slices'])
    target = state.abstract(grid, run.network.init, run.optimizer)
    current = state.create(target, run.network.init, run.optimizer, run.train.seed)
    begin = time.perf_counter()
    advance = state.step(run.loss, run.optimizer, run.ema, run.train.seed, run.train.accumulate, grid)
    step = state.jit_step(advance, grid, target).lower(target, run.batch_shapes()).compile()
    compile_s = time.perf_counter() - begin
    batches = [mesh.put(grid, run.inputs(batch)) for batch in random_batches(size, facts)]

    def once(i):
        nonlocal current
        with jax.transfer_guard('disallow'):
            current, _ = step(current, batches[i % BATCHES])

    rate = timed(once, lambda: jax.block_until_ready(current), size, args.seconds)
    weights = sum(leaf.size for leaf in jax.tree.leaves(target.params))
    return {'images_per_s': rate, 'compile_s': compile_s, 'weights': weights, 'devices': grid.size}


def _torch_inputs(config):
    facts = build.facts(config, build.source(config))
    return facts, random_batches(config['train']['batch'], facts)


def tune_torch(config, args) -> dict:
    """Checks that both networks are one, then tries PyTorch's settings."""
    import agreement
    import torch_step

    reason = torch_step.unsupported(config)
    if reason:
        return {'reason': reason}
    facts, batches = _torch_inputs(config)
    checked = agreement.check(config, facts)
    found = torch_step.fastest(config, facts, batches, min(1.0, args.seconds / 10))
    tried = [{'setting': vars(setting), 'text': str(setting), 'images_per_s': rate} for setting, rate in found.items()]
    return {'agreement': checked, 'tried': tried}


def measure_torch(config, args) -> dict:
    """PyTorch's step with the setting that was found to be fastest."""
    import torch_step

    setting = torch_step.Setting(**json.loads(args.setting))
    torch_step.start(setting)
    facts, batches = _torch_inputs(config)
    step, weights = torch_step.trainer(config, facts, setting)
    ready = torch_step.prepared(batches, setting)
    rate = timed(lambda i: step(*ready[i % BATCHES]), lambda: None, config['train']['batch'], args.seconds)
    return {'images_per_s': rate, 'weights': weights}


SIDES = {'ours': measure_ours, 'torch': measure_torch, 'tune': tune_torch}


def compare(config, args, overrides) -> int:
    """All measurements and the table."""

    def measure(side, *more):
        return _in_process(side, args, [*(f'--config.{override}' for override in overrides), *more])

    report = {
        'machine': machine_line(),
        'load_before': os.getloadavg()[0],
        'config': config,
        'seconds': args.seconds,
    }
    print(f'{report["machine"]}; load {report["load_before"]:.1f} before the start')
    setting = _torch_setting(measure, report)
    report['rounds'] = []
    for number in range(1, args.rounds + 1):
        found = {'ours': measure('ours')}
        if setting:
            found['torch'] = measure('torch', f'--setting={json.dumps(setting)}')
            if found['torch']['weights'] != found['ours']['weights']:
                raise SystemExit(f'the networks differ in size; did the source change meanwhile? {found}')
            found['ratio'] = found['ours']['images_per_s'] / found['torch']['images_per_s']
        report['rounds'].append(found)
        print(f'round {number} of {args.rounds}: {_round_line(found)}', flush=True)
    report['ours_one_device'] = measure('ours', '--config.runtime.devices=1')
    report['summary'] = summarize(report)
    print(table(report))
    if report['summary']['others'] > QUIET:
        print(
            f'\nNot to be quoted: other processes kept up to {report["summary"]["others"]:.1f} cores busy. A step of '
            'PyTorch waits for its slowest thread at every operation, so a busy machine slows it more than ours.'
        )
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=1) + '\n', encoding='utf-8')
    return 0


def _torch_setting(measure, report):
    """PyTorch's fastest setting, or None with a line that says why there is none."""
    if importlib.util.find_spec('torch') is None:
        print("PyTorch is not installed, so there is nothing to compare with: pip install -e '.[bench]'")
        return None
    report['torch'] = tuned = measure('tune')
    if 'reason' in tuned:
        print(f'ours alone: the PyTorch side has no {tuned["reason"]}')
        return None
    print('same network: {weights:,} weights each, outputs differ by {output:.0e} at most'.format(**tuned['agreement']))
    for tried in tuned['tried']:
        print(f'  PyTorch tried: {tried["text"]}: {tried["images_per_s"]:.0f} images/s')
    return tuned['tried'][0]['setting']


def _in_process(side, args, more) -> dict:
    command = [
        sys.executable,
        __file__,
        f'--side={side}',
        f'--config={args.config}',
        f'--seconds={args.seconds}',
        *more,
    ]
    before = _cpu_seconds()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f'{" ".join(command)} failed with status {done.returncode}, see above')
    wall, everyone, own = (after - start for after, start in zip(_cpu_seconds(), before))
    return {**json.loads(done.stdout.splitlines()[-1]), 'others': max(everyone - own, 0) / wall}


def _cpu_seconds() -> tuple[float, float, float]:
    """Seconds on the wall clock, of CPU that all processes have used (0 where the system does not say), and of that
    what this process and those it has waited for have used."""
    used, everyone = os.times(), 0.0
    if os.path.exists('/proc/stat'):
        first = Path('/proc/stat').read_text(encoding='utf-8').splitlines()[0].split()
        # user, nice, system, irq, softirq, steal; without idle and iowait.
        everyone = sum(int(first[i]) for i in (1, 2, 3, 6, 7, 8)) / os.sysconf('SC_CLK_TCK')
    return time.perf_counter(), everyone, sum(used[:4])


def machine_line() -> str:
    """CPU model, cores, versions."""
    model = machine.processor() or machine.machine()
    if os.path.exists('/proc/cpuinfo'):
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
        model = next((line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')), model)
    versions = []
    for package in ('jax', 'jaxlib', 'flax', 'torch'):
        if importlib.util.find_spec(package):
            versions.append(f'{package} {importlib.metadata.version(package)}')
    return f'{model}, {os.cpu_count()} cores; Python {machine.python_version()}, {", ".join(versions)}'


def _spread(values) -> dict:
    return {'median': statistics.median(values), 'min': min(values), 'max': max(values)}


def summarize(report) -> dict:
    """Median and spread of images/s of each side and of the ratio of each round."""
    rounds = report['rounds']
    sides = [side for side in ('ours', 'torch') if side in rounds[0]]
    found = {side: _spread([each[side]['images_per_s'] for each in rounds]) for side in sides}
    found['compile_s'] = _spread([each['ours']['compile_s'] for each in rounds])
    found['others'] = max(each[side]['others'] for each in rounds for side in sides)
    if 'ratio' in rounds[0]:
        found['ratio'] = _spread([each['ratio'] for each in rounds])
    return found


def _round_line(found) -> str:
    line = ', '.join(f'{side} {found[side]["images_per_s"]:.1f}' for side in ('ours', 'torch') if side in found)
    return f'{line} images/s' + (f', ratio {found["ratio"]:.2f}' if 'ratio' in found else '')


def table(report) -> str:
    """The figures as a Markdown table."""
    found, one = report['summary'], report['ours_one_device']
    devices, size = report['rounds'][0]['ours']['devices'], report['config']['train']['batch']

    def row(name, values, form):
        return f'| {name} | ' + ' | '.join(form.format(values[key]) for key in ('median', 'min', 'max')) + ' |'

    rows = ['', f'| images/s, batch {size} | median | min | max |', '|---|---|---|---|']
    rows.append(row(f'ours, {devices} host device(s)', found['ours'], '{:.1f}'))
    if 'torch' in found:
        rows.append(row(f'PyTorch eager, {report["torch"]["tried"][0]["text"]}', found['torch'], '{:.1f}'))
        rows.append(row('ours / PyTorch, by round', found['ratio'], '{:.2f}'))
    rows.append(f'| ours, 1 host device, measured once | {one["images_per_s"]:.1f} | | |')
    rows.append(row('our compilation, seconds (not in the rates)', found['compile_s'], '{:.1f}'))
    return '\n'.join(rows)


if __name__ == '__main__':
    try:
        sys.exit(main(sys.argv[1:]))
    except usage.UsageError as error:
        print(f'train_step: {error}', file=sys.stderr)
        sys.exit(2)
