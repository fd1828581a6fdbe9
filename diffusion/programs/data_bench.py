"""`diffusion data bench`: how fast a config's data are read, and whether that feeds the steps."""

import contextlib
import dataclasses
import statistics
import time
from pathlib import Path

import numpy as np

from diffusion import build, usage
from diffusion.data import ahead
from diffusion.programs import feed, measured, workdir
from diffusion.runtime import memory

WINDOWS = 10  # in which the time is split, to see how even it is
LINES = 20  # of metrics.jsonl, the last, whose median is the step time of a run
MIB = 2**20


def main(argv: list[str]) -> int:
    """Reads batches as training would, without training. Exit status 0, 1 where the steps would starve, or 2."""
    args, overrides = _parser().parse(argv)
    with usage.checked():
        if args.workers is not None:
            overrides = [*overrides, f'runtime.workers={args.workers}']
        config = _config(args, overrides)
        batch, asked = config['train']['batch'], config['runtime']['workers']
        if args.seconds <= 0:
            raise ValueError(f'--seconds={args.seconds}: more than 0')
        if args.hosts < 1 or batch % args.hosts:
            raise ValueError(f'--hosts={args.hosts} does not divide the batch of {batch} (train.batch)')
        step_time, origin = _step_time(args, batch)
        before = sum(memory.family().values())
        data = build.source(config)
        facts = build.facts(config, data)
    rows = np.arange(batch // args.hosts)
    shape = ' x '.join(map(str, facts.shape))
    workers = feed.workers(asked, data)
    kept = 'kept in memory' if data.open().resident else 'read and decoded by the batch'
    print(f'data      {facts.examples:,} examples of {shape} {facts.dtype}, {kept}, {_readers(workers)}', flush=True)
    pace = read(config, facts, data, rows, args.seconds, step_time)
    low, high = min(pace.rates), max(pace.rates)
    peak, processes = pace.peak
    print(f'first     {pace.first:.2f} s until the first batch')
    print(f'speed     {pace.rate:,.0f} images/s a host ({low:,.0f} to {high:,.0f} over {len(pace.rates)} windows)')
    print(f'memory    {peak / MIB:,.0f} MiB at most, in {_count(processes, "process")}; {before / MIB:,.0f} before')
    if step_time is None:
        print('needs     unknown: give the time of a step, --step-time=SECONDS, or a run, --workdir=DIR')
        return 0
    return _verdict(pace.rate, len(rows) / step_time, f'batches of {len(rows)} every {step_time:.4g} s, {origin}')


def _verdict(rate, needed, why):
    print(f'needs     {needed:,.0f} images/s a host: {why}')
    if rate >= needed:
        print(f'verdict   fed: {rate / needed:.1f} times what the steps take')
        return 0
    print(
        f'verdict   starved: steps would wait {1 - rate / needed:.0%} of the time; what helps: more runtime.workers, a '
        'set stored at the size it is trained at (diffusion data build), a faster disk'
    )
    return 1


@dataclasses.dataclass(frozen=True)
class Pace:
    """first: seconds to the first batch; rates: images a second in each window; rate: over all; peak: bytes resident
    and the processes that held them."""

    first: float
    rates: tuple[float, ...]
    rate: float
    peak: tuple[int, int]


def read(config, facts, data, rows: np.ndarray, seconds: float, step_time: float | None = None) -> Pace:
    """Takes batches for so long as fast as they come, read ahead as in a training with steps of that time."""
    with memory.Watch() as watch:
        begin = time.monotonic()
        stream = feed.opened(config, facts, data, rows)
        limit = feed.limit(config, facts, len(rows), lambda: step_time)
        with contextlib.closing(ahead.Ahead(stream, limit, stream.close)) as reader:
            reader.next()
            first = time.monotonic() - begin
            # What was ready before the clock ran was not read in the time it shows.
            ready, counts = limit(), [0] * WINDOWS
            for _ in range(ready):
                reader.next()
            start = time.monotonic()
            while (now := time.monotonic() - start) < seconds:
                reader.next()
                counts[int(now / seconds * WINDOWS)] += len(rows)
            spent = time.monotonic() - start
    rates = tuple(count / seconds * WINDOWS for count in counts)
    return Pace(first, rates, sum(counts) / spent, watch.peak())


def _config(args, overrides):
    if args.config:
        return build.resolve(args.config, overrides)
    if not args.workdir:
        raise ValueError('give --config=FILE, or --workdir=DIR for that of a run')
    stored = workdir.read(args.workdir)
    if stored is None:
        raise ValueError(f'{args.workdir!r} is not a run: it holds no {workdir.FILE}')
    return build.override(stored[0], overrides)


def _step_time(args, batch) -> tuple[float | None, str]:
    """Seconds a step takes beside its waiting for data, None where nothing tells, and where that comes from."""
    if args.step_time is not None:
        if args.step_time <= 0:
            raise ValueError(f'--step-time={args.step_time}: more than 0')
        return args.step_time, 'as given'
    if not args.workdir:
        return None, ''
    path = Path(args.workdir) / 'metrics.jsonl'
    rates, waits = measured.logged(path, 'images_per_s'), measured.logged(path, 'data_wait')
    paces = [batch / rates[step] * (1 - waits[step]) for step in sorted(set(rates) & set(waits))[-LINES:]]
    if not paces:
        raise ValueError(f'{path} tells no step time: train longer, or give --step-time=SECONDS')
    return statistics.median(paces), f'as {args.workdir} has measured'


def _readers(workers):
    return f'by {_count(workers, "worker process")}' if workers else 'by threads of the training'


def _count(number, thing):
    return f'{number} {thing}' if number == 1 else f'{number} {thing}es'


def _parser():
    parser = usage.Parser('data bench', __doc__.split(': ', 1)[1])
    parser.add_argument('--config', metavar='FILE', help='whose data are read')
    parser.add_argument('--workdir', metavar='DIR', help='a run: its config, unless --config, and step time')
    parser.add_argument('--step-time', '--step_time', type=float, metavar='S', help='seconds a step takes')
    parser.add_argument('--seconds', type=float, default=10.0, metavar='S', help='how long to read (default: 10)')
    parser.add_argument('--hosts', type=int, default=1, metavar='N', help='that share the batch (default: 1)')
    parser.add_argument('--workers', type=int, metavar='N', help='the same as --config.runtime.workers')
    return parser
