"""Images a second from one folder of pictures, ours and PyTorch's DataLoader, in turns in the same run.

    python benchmarks/data.py FOLDER --image_size=32 --seconds=10 --rounds=3

FOLDER holds a folder a class. Both sides decode with Pillow, resize by the same filter where the size differs, and make
shuffled batches of uint8 with labels. Each measurement is a process of its own. Without PyTorch ours runs alone.

    python benchmarks/data.py FOLDER --soak=300 --workers=2

reads for so long as fast as it can and says whether the memory of all its processes grows.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
import types

import numpy as np
import PIL.Image

OURS = {
    'ours, in memory': dict(memory='always', workers=0),
    'ours, decoded as read, threads': dict(memory='never', workers=0),
    'ours, decoded as read, 1 worker': dict(memory='never', workers=1),
    'ours, decoded as read, 2 workers': dict(memory='never', workers=2),
}
THEIRS = {'PyTorch, no worker': 0, 'PyTorch, 2 workers': 2}
MIB = 2**20


def main(argv: list[str]) -> int:
    args = _parsed(argv)
    if args.one:
        print(json.dumps(_measured(args)))
        return 0
    if args.soak:
        return _soak(args)
    sides = {**OURS, **(THEIRS if importlib.util.find_spec('torch') else {})}
    if len(sides) == len(OURS):
        print("PyTorch is not installed (pip install 'diffusion[bench]'): ours alone")
    found: dict[str, list[dict]] = {name: [] for name in sides}
    for number in range(args.rounds):
        for name in sides:
            found[name].append(_alone(args, name))
            print(f'round {number + 1}, {name}: {found[name][-1]["rate"]:,.0f} images/s', file=sys.stderr, flush=True)
    _table(args, found)
    return 0


def _alone(args, name) -> dict:
    words = [sys.executable, __file__, args.folder, f'--one={name}', f'--seconds={args.seconds}']
    words += [f'--batch={args.batch}', f'--image_size={args.image_size}']
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f'{name}: {done.stderr}')
    return json.loads(done.stdout.splitlines()[-1])


def _measured(args) -> dict:
    if args.one in OURS:
        return _ours(args, **OURS[args.one])
    return _theirs(args, THEIRS[args.one])


def _ours(args, memory, workers) -> dict:
    from diffusion.programs import data_bench

    begin = time.monotonic()
    config, facts, data = _set(args, memory, workers)
    len(data)
    opened = time.monotonic() - begin
    pace = data_bench.read(config, facts, data, np.arange(args.batch), args.seconds)
    return {'rate': pace.rate, 'first': opened + pace.first, 'peak': pace.peak[0]}


def _set(args, memory, workers):
    from diffusion.data import sources

    data = sources.images(args.folder, image_size=args.image_size, memory=memory)
    config = {'train': {'batch': args.batch, 'seed': 0}, 'runtime': {'workers': workers, 'ahead': 0}}
    return config, types.SimpleNamespace(tokenizer=None, shape=data.shape, dtype=data.dtype), data


class Pictures:
    """A map-style data set of PyTorch, as its tutorials write it."""

    def __init__(self, folder: str, size: int):
        root = pathlib.Path(folder)
        classes = sorted(path.name for path in root.iterdir() if path.is_dir())
        self.files = [(str(path), i) for i, name in enumerate(classes) for path in sorted((root / name).iterdir())]
        self.size = size

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        import torch

        path, label = self.files[index]
        with open(path, 'rb') as file:
            image = PIL.Image.open(io.BytesIO(file.read())).convert('RGB')
        if self.size and image.size != (self.size, self.size):
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            image = image.crop((left, top, left + side, top + side))
            image = image.resize((self.size, self.size), PIL.Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(image)), label


def _theirs(args, workers) -> dict:
    import torch.utils.data

    from diffusion.runtime import memory

    with memory.Watch() as watch:
        begin = time.monotonic()
        loader = torch.utils.data.DataLoader(
            Pictures(args.folder, args.image_size),
            args.batch,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        batches = _without_end(loader)
        next(batches)
        first = time.monotonic() - begin
        for _ in range(4):
            next(batches)
        start, count = time.monotonic(), 0
        while (spent := time.monotonic() - start) < args.seconds:
            next(batches)
            count += args.batch
    return {'rate': count / spent, 'first': first, 'peak': watch.peak()[0]}


def _without_end(loader):
    while True:
        yield from loader


def _table(args, found):
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    print(f'{args.folder}, batches of {args.batch}, {args.rounds} rounds of {args.seconds:g} s, {cores} cores\n')
    print('| | images/s, median | least | most | first batch, s | memory at most, MiB |\n|---|---|---|---|---|---|')
    medians = {}
    for name, rounds in found.items():
        rates = [one['rate'] for one in rounds]
        medians[name] = statistics.median(rates)
        first, peak = (statistics.median(one[key] for one in rounds) for key in ('first', 'peak'))
        spread = f'{medians[name]:,.0f} | {min(rates):,.0f} | {max(rates):,.0f}'
        print(f'| {name} | {spread} | {first:.1f} | {peak / MIB:,.0f} |')
    for other in (name for name in THEIRS if name in medians):
        ratios = ', '.join(f'{name.removeprefix("ours, ")} {medians[name] / medians[other]:.2f}' for name in OURS)
        print(f'\nours / {other}: {ratios}')


def _soak(args) -> int:
    """Exit status 1 where memory grows beyond its noise."""
    from diffusion.programs import feed
    from diffusion.runtime import memory

    config, facts, data = _set(args, 'never', args.workers)
    stream = feed.opened(config, facts, data, np.arange(args.batch))
    count, begin = 0, time.monotonic()
    with contextlib.closing(stream), memory.Watch(every=1.0) as watch:
        while time.monotonic() - begin < args.soak:
            next(stream)
            count += args.batch
    spent = time.monotonic() - begin
    # The first tenth fills buffers and imports what is imported late.
    samples = [(when / 60, size / MIB) for when, size, _ in watch.samples if when > args.soak / 10]
    # Neighbouring samples are alike: the means of twenty stretches are taken for independent, the samples are not.
    stretches = np.array([np.mean(part, axis=0) for part in np.array_split(np.array(samples), 20)])
    slope, error = _slope(*stretches.T)
    low, high = min(size for _, size in samples), max(size for _, size in samples)
    print(f'{count:,} images in {spent:.0f} s, {count / spent:,.0f} images/s, {args.workers} workers')
    print(f'resident in all processes: {low:,.1f} to {high:,.1f} MiB over {len(samples)} samples')
    print(f'slope {slope:+.3f} MiB a minute, standard error {error:.3f}')
    grows = slope > 3 * error and slope > 0.001 * high
    print('memory grows' if grows else 'memory does not grow beyond its noise')
    return int(grows)


def _slope(x, y) -> tuple[float, float]:
    """Of the line of least squares, and its standard error."""
    spread = ((x - x.mean()) ** 2).sum()
    slope = ((x - x.mean()) * y).sum() / spread
    residuals = y - y.mean() - slope * (x - x.mean())
    return float(slope), float(np.sqrt((residuals**2).sum() / (len(x) - 2) / spread))


def _parsed(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument('folder')
    parser.add_argument('--image_size', type=int, default=0, help='0: as stored')
    parser.add_argument('--batch', type=int, default=256)
    parser.add_argument('--seconds', type=float, default=10.0, help='a measurement')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--soak', type=float, default=0.0, help='seconds')
    parser.add_argument('--workers', type=int, default=2, help='of the soak')
    parser.add_argument('--one', choices=[*OURS, *THEIRS], help=argparse.SUPPRESS)
    return parser.parse_args(argv)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
