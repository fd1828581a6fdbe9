"""Measurements of which each has a process of its own, and what else the machine did meanwhile."""

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

WARM_UP = 5
# Steps between two looks at the clock, each of which waits for the device.
STRIDE = 4
# Cores that other processes may keep busy, on average, before the figures mean nothing.
QUIET = 0.1


def timed(advance, finish, images: int, seconds: float) -> float:
    """Images/s of advance(i), which runs step i of so many images; finish() waits until all of them are done."""
    for i in range(WARM_UP):
        advance(i)
    finish()
    begin, steps = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        for i in range(steps, steps + STRIDE):
            advance(i)
        finish()
        steps += STRIDE
    return steps * images / (time.perf_counter() - begin)


def turns(calls: dict, seconds: float) -> dict[str, list[float]]:
    """Seconds of each call, taken in turns so that what else the machine does falls on all alike; at least three."""
    for call in calls.values():
        call()
    found: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or min(map(len, found.values())) < 3:
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            found[name].append(time.perf_counter() - begin)
    return found


def in_process(command: list[str], **kwargs) -> dict:
    """What a command prints last, a JSON object, with 'others': cores that other processes kept busy meanwhile."""
    before = cpu_seconds()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, **kwargs)
    if done.returncode:
        raise SystemExit(f'{" ".join(command)} failed with status {done.returncode}, see above')
    return {**json.loads(done.stdout.splitlines()[-1]), 'others': others(before)}


def others(before) -> float:
    """Cores that processes other than this one's kept busy since `cpu_seconds` was called."""
    wall, everyone, own = (after - start for after, start in zip(cpu_seconds(), before))
    return max(everyone - own, 0) / wall


def cpu_seconds() -> tuple[float, float, float]:
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
    versions = [
        f'{package} {importlib.metadata.version(package)}'
        for package in ('jax', 'jaxlib', 'flax', 'torch', 'diffusers')
        if importlib.util.find_spec(package)
    ]
    return f'{model}, {os.cpu_count()} cores; Python {machine.python_version()}, {", ".join(versions)}'


def row(name: str, unit: str, values, note: str = '') -> dict:
    """A line of a table. values: one or more of the same."""
    values = [float(value) for value in values]
    spread = {'median': statistics.median(values), 'min': min(values), 'max': max(values)}
    return {'name': name, 'unit': unit, **spread, 'values': values, 'note': note}


def target(what: str, value: float, limit: float) -> dict:
    """What is to be seen: a share that is to stay below a limit."""
    return {'what': what, 'value': value, 'limit': limit, 'met': value < limit}


def python(script: str, *words: str) -> list[str]:
    """A command that runs a file of this folder."""
    return [sys.executable, str(Path(__file__).with_name(script)), *words]
