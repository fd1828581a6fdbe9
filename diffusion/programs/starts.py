"""starts.jsonl of a workdir: when and where its training began and went on, a line each."""

import json
import os
import platform
import socket
import time
from pathlib import Path

import jax

from diffusion.programs import workdir
from diffusion.runtime import writer

FILE = 'starts.jsonl'


def write(setup, step: int) -> None:
    """Adds a line. setup: `train.Setup`; step: that the run goes on from, 0 where it begins."""
    devices = setup.mesh.devices.flat
    hosts = setup.links.others if setup.links else {0: socket.gethostname()}
    line = {
        'step': step,
        'time': round(time.time(), 3),
        'hosts': [hosts[process] for process in sorted(hosts)],
        'devices': {'platform': devices[0].platform, 'kind': devices[0].device_kind, 'count': setup.mesh.size},
        'processes': jax.process_count(),
        'cores': os.cpu_count(),
        'system': f'{platform.system()} {platform.machine()}',
        'python': platform.python_version(),
        'versions': workdir.versions(),
        'commit': workdir.commit(),
    }
    path = Path(setup.folder) / FILE
    # As a whole file: half a line of a process that was killed would swallow the next one.
    with writer.atomic(path) as file:
        file.write(_kept(path) + (json.dumps(line) + '\n').encode())


def _kept(path) -> bytes:
    return path.read_bytes() if path.exists() else b''


def read(folder: str) -> list[dict]:
    """The starts of a run in the order of their times; of one that is older than this file, none."""
    path, found = Path(folder) / FILE, []
    for line in path.read_text(encoding='utf-8').splitlines() if path.exists() else ():
        try:
            start = json.loads(line)
            start['time'], start['step'] = float(start['time']), int(start['step'])
        except (ValueError, KeyError, TypeError):
            continue
        found.append(start)
    return sorted(found, key=lambda start: start['time'])
