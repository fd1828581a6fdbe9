"""The parts of the speed benchmark: each gives rows of a table and the targets that are to be seen."""

import dataclasses
import importlib.util
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import cases
import measuring

ROOT = Path(__file__).parents[1]
SAMPLING_OUTSIDE, DATA_WAIT, SAVE_STALL = 0.05, 0.02, 0.05


@dataclasses.dataclass
class Bench:
    """seconds: of a measurement; rounds: turns of each side; scratch: a folder that is thrown away."""

    seconds: float
    rounds: int
    large: bool
    samplers: str
    scratch: str
    busiest: float = 0.0

    def ours(self, side: str, *words: str) -> dict:
        return self._run('ours.py', side, f'--cache={self.scratch}/cache', *words)

    def peers(self, side: str, *words: str) -> dict:
        return self._run('peers.py', side, *words)

    def _run(self, script, side, *words):
        seconds = () if any(word.startswith('--seconds=') for word in words) else (f'--seconds={self.seconds}',)
        found = measuring.in_process(measuring.python(script, side, *seconds, *words))
        self.busiest = max(self.busiest, found['others'])
        return found

    def settle(self) -> float:
        """Cores that others kept busy at most since the last time."""
        busiest, self.busiest = self.busiest, 0.0
        return busiest

    def ceilings(self) -> dict:
        """FLOP/s of matrix products, the best of both sides, and bytes/s of a copy."""
        found = self.ours('ceiling', '--seconds=1')
        sides = {'XLA': found['products']['float32']}
        if installed('torch'):
            sides['PyTorch'] = self.peers('ceiling', '--seconds=1')['products']
        others = self.settle()
        return {'products': max(sides.values()), 'sides': sides, 'copy': found['copy'], 'others': others}


def diffusion(*words: str) -> list[str]:
    """A command as a user gives it."""
    return [sys.executable, '-m', 'diffusion.cli', *words]


def installed(package: str) -> bool:
    """Whether it can be imported; a line says so where not."""
    if importlib.util.find_spec(package):
        return True
    print(f"{package} is not installed, that side is left out: pip install -e '.[bench]'", flush=True)
    return False


def step(bench: Bench, ceilings: dict) -> dict:
    """Training steps: ours, PyTorch eager in its fastest setting, and with torch.compile."""
    rows, told = [], []
    for name, case in cases.CASES.items():
        if case.large and not bench.large:
            continue
        settings = _settings(bench, name, told)
        sides: dict[str, list[dict]] = {way: [] for way in case.ways}
        for _ in range(bench.rounds):
            for way, overrides in case.ways.items():
                sides[way].append(bench.ours('step', f'--case={name}', *(f'--set={one}' for one in overrides)))
            for side, setting in settings.items():
                found = bench.peers('step', f'--case={name}', f'--setting={json.dumps(setting)}')
                if 'reason' in found:
                    told.append(found['reason'])
                    continue
                if found['weights'] != sides['ours'][-1]['weights']:
                    raise SystemExit(f'the networks differ in size: {found} {sides["ours"][-1]}')
                sides.setdefault(side, []).append(found)
        rows += _step_rows(name, sides, ceilings)
    return {'rows': rows, 'targets': [], 'told': told}


def _settings(bench, name, told) -> dict:
    if not installed('torch'):
        return {}
    tuned = bench.peers('tune', f'--case={name}')
    if 'reason' in tuned:
        told.append(f'{name}: {tuned["reason"]}')
        return {}
    told.append(
        f'{name}: {tuned["agreement"]["weights"]:,} weights on either side, outputs within '
        f'{tuned["agreement"]["output"]:.0e}; PyTorch tried '
        + '; '.join(f'{one["text"]} {one["images_per_s"]:.0f} images/s' for one in tuned['tried'])
    )
    fastest = tuned['tried'][0]['setting']
    return {'PyTorch eager': fastest, 'torch.compile': {**fastest, 'compiled': True}}


def _step_rows(name, sides, ceilings):
    flops = sides['ours'][0]['flops']
    ways = {way: rounds for way, rounds in sides.items() if way.startswith('ours')}
    for side, rounds in sides.items():
        rates = [one['images_per_s'] for one in rounds]
        reached = statistics.median(rates) * flops
        share = f'{reached / 1e9:.0f} GFLOP/s, {reached / ceilings["products"]:.0%} of the ceiling'
        yield measuring.row(f'{name}: {side}', 'images/s', rates, share)
    for side in [side for side in sides if side not in ways]:
        for way, mine in ways.items():
            ratios = [one['images_per_s'] / other['images_per_s'] for one, other in zip(mine, sides[side])]
            yield measuring.row(f'{name}: {way} / {side}', 'ratio', ratios)
    for way, rounds in ways.items():
        yield measuring.row(f'{name}: {way}, compilation', 's', [rounds[0]['compile_s']], 'not in the rates')
    if 'torch.compile' in sides:
        yield measuring.row(
            f"{name}: torch.compile's first step", 's', [sides['torch.compile'][0]['first_s']], 'not in the rates'
        )


def sampling(bench: Bench, ceilings: dict) -> dict:
    """The whole sampling call against the evaluations of the network in it; diffusers likewise."""
    words = f'--samplers={bench.samplers}', '--steps=18'
    sides = {'ours': bench.ours('sampling', *words)}
    if installed('torch') and installed('diffusers'):
        sides['diffusers'] = bench.peers('diffusers', *words)
    rows, targets = [], []
    for side, found in sides.items():
        for sampler, one in found['samplers'].items():
            name = f'{side}: {sampler}, 18 steps'
            outside = measuring.row(f'{name}: time outside of the network', 'share', one['outside_all'])
            note = f'{one["evaluations"]} evaluations' + (', guided' if side == 'ours' else f', {one["scheduler"]}')
            rows += [measuring.row(name, 'images/s', one['images_per_s'], note), outside]
            if side == 'ours':
                what = f'sampling, {sampler}: time outside of the network'
                targets.append(measuring.target(what, outside['median'], SAMPLING_OUTSIDE))
    told = [f'batches of {sides["ours"]["batch"]}']
    if len(sides) > 1:
        told.append(
            f"diffusers' UNet2DModel has {sides['diffusers']['weights']:,} weights, is another network and "
            'neither conditioned nor guided: compare the shares, not the rates'
        )
    return {'rows': rows, 'targets': targets, 'told': told}


def data(bench: Bench, ceilings: dict) -> dict:
    """How long the first command of the README waits for data."""
    workdir, window = Path(bench.scratch, 'data', 'run'), 20
    count = window * (2 + max(int(bench.seconds), 1))
    _train(bench, workdir, count, f'--config.train.log_every={window}', f'--config.train.save_every={count}')
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text(encoding='utf-8').splitlines()]
    # The first window holds what starts with the first steps.
    windows = [line for line in lines if 'data_wait' in line][1:]
    waits = measuring.row('waiting for data', 'share of the time', [line['data_wait'] for line in windows])
    rates = measuring.row('training, all told', 'images/s', [line['images_per_s'] for line in windows])
    told = [f'configs/emoji.py, windows of {window} steps as metrics.jsonl has them']
    targets = [measuring.target('waiting for data', waits['median'], DATA_WAIT)]
    return {'rows': [rates, waits], 'targets': targets, 'told': told}


def _train(bench, workdir, count, *words) -> tuple[float, list[str]]:
    """Seconds until all is compiled, and all lines said."""
    command = diffusion('train', '--config=configs/emoji.py', f'--workdir={workdir}', *words)
    command += [
        f'--config.train.steps={count}',
        '--config.preview.every=0',
        '--config.preview.num=0',
        '--config.preview.match=0',
    ]
    before, begin, ready, lines = measuring.cpu_seconds(), time.perf_counter(), 0.0, []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            lines.append(line.rstrip())
            if line.startswith('compile: '):
                ready = time.perf_counter() - begin
    if process.returncode:
        raise SystemExit('\n'.join(lines))
    bench.busiest = max(bench.busiest, measuring.others(before))
    return ready, lines


def startup(bench: Bench, ceilings: dict) -> dict:
    """The same job started twice beside one another, then samples of it with other values."""
    rows, targets, parent = [], [], Path(bench.scratch, 'startup')
    for nth, name in (('first', 'a'), ('second', 'b')):
        ready, lines = _train(bench, parent / name, 2, '--config.train.save_every=2')
        said = _compiled(lines)
        rows.append(measuring.row(f'train, {nth} start: until the first step', 's', [ready], said))
        if nth == 'second':
            targets.append(measuring.target('programs compiled by the second start', _missed(said), 1))
    other = 'another guidance, prompt and number'
    for nth, guidance, seeds, prompt in (('first', 2, '0-15', 'cat'), (other, 3, '20-31', 'dog')):
        words = f'--guidance={guidance}', f'--seeds={seeds}', f'--prompt={prompt}', f'--out={parent}/out{guidance}'
        begin, before = time.perf_counter(), measuring.cpu_seconds()
        command = diffusion('sample', f'--workdir={parent}/a', *words)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        bench.busiest = max(bench.busiest, measuring.others(before))
        said = _compiled(done.stdout.splitlines())
        rows.append(measuring.row(f'sample, {nth}: all of it', 's', [time.perf_counter() - begin], said))
    targets.append(measuring.target('programs compiled for ' + other, _missed(said), 1))
    told = ['configs/emoji.py; the compilation cache is empty before the first start']
    return {'rows': rows, 'targets': targets, 'told': told}


def _compiled(lines) -> str:
    return next(line for line in lines if line.startswith('compile: '))


def _missed(said) -> int:
    return int(re.search(r'(\d+) missed', said)[1])


def saving(bench: Bench, ceilings: dict) -> dict:
    """What a checkpoint costs the steps beside which it is written."""
    rows, targets = [], []
    for name, case in cases.CASES.items():
        if case.large and not bench.large:
            continue
        found = bench.ours('saving', f'--case={name}')
        a_step = found['step_s']
        stall = measuring.row(
            f'{name}: a save, until the next step may begin', 's', found['blocked_s'], f'{found["megabytes"]:.0f} MB'
        )
        lost = [seconds / a_step for seconds in found['lost_s']]
        rows += [stall, measuring.row(f'{name}: a save, all that it costs', 'steps', lost)]
        shares = [steps / found['every'] for steps in lost]
        what = f'a save every {found["every"]} steps'
        row = measuring.row(f'{name}: {what}', 'share of a step', shares)
        rows.append(row)
        targets.append(measuring.target(f'{name}: {what}', row['median'], SAVE_STALL))
    return {'rows': rows, 'targets': targets, 'told': ['steps with a save among them against as many without']}


def likelihood(bench: Bench, ceilings: dict) -> dict:
    """Bits per dimension, as `diffusion evaluate --metrics=bpd` computes them."""
    found = bench.ours('likelihood')
    note = f'{found["evaluations"]:.0f} evaluations and gradients an image, batches of {found["batch"]}'
    rows = [
        measuring.row('bits per dimension', 'images/s', found['images_per_s'], note),
        measuring.row(
            'evaluations of the network with their gradients',
            'a second',
            [rate * found['evaluations'] for rate in found['images_per_s']],
        ),
    ]
    return {'rows': rows, 'targets': [], 'told': ['after 20 steps; a trained network takes more evaluations']}


PARTS = {
    'step': step,
    'sampling': sampling,
    'data': data,
    'startup': startup,
    'saving': saving,
    'likelihood': likelihood,
}
