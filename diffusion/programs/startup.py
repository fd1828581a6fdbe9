"""The start of a job of several processes: who is there, whether all are alike, and only then JAX's own start."""

import hashlib
import json
import platform
from pathlib import Path

import jax

from diffusion import config as configs
from diffusion import ports, usage
from diffusion.programs import workdir
from diffusion.runtime import distributed, preemption, rollcall

PACKAGE = Path(__file__).parents[1]


def join(peers: distributed.Peers | None, config: configs.Config, stop: preemption.Stop) -> rollcall.Links | None:
    """Connects the processes, None where there is one only. Raises usage.Fault that names who is missing or other.

    The roll call is heard one port above the coordinator's (below the last port there is).
    """
    stop.grace = config['runtime']['grace']
    if peers is None:
        return None
    deadline = config['runtime']['startup']
    distributed.check_reachable(peers)
    host, _, port = peers.coordinator.rpartition(':')
    place = f'{host}:{int(port) + 1 if int(port) < 65535 else int(port) - 1}'
    for mine in (int(port), int(place.rpartition(':')[2])) if not peers.process else ():
        if ports.taken(mine):
            raise usage.Fault(
                f'port {mine} of this host is taken by another program, perhaps the job before this one: end that, or '
                f'give every process another --coordinator={host}:PORT (this one and the next are used)'
            )
    report = _report(peers, config)
    links = _called(lambda: rollcall.assemble(place, peers.process, peers.processes, report, deadline))
    distributed.join(peers, deadline)
    stop.rearm()
    return links


def compare(links: rollcall.Links | None, setup, newest: int | None) -> None:
    """Once the backend has started: whether all processes have devices of one kind, one data set and one workdir.

    newest: the checkpoint that this process would go on from.
    """
    if links is None:
        return
    local = jax.local_devices()
    report = {
        'devices': f'{len(local)} x {local[0].device_kind}',
        'on data': setup.run.facts.fingerprint,
        'from checkpoint': newest,
    }
    _called(lambda: links.compare(report, setup.run.config['runtime']['startup']))


def _called(call):
    try:
        return call()
    except rollcall.RollCallError as error:
        raise usage.Fault(str(error)) from error


def _report(peers, config) -> dict:
    return {
        'processes': peers.processes,
        'python': platform.python_version(),
        **workdir.versions(),
        'code': code_hash(),
        'config': hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12],
    }


def code_hash() -> str:
    """Of all source files of this package."""
    found = hashlib.sha256()
    for path in sorted(PACKAGE.rglob('*.py')):
        found.update(f'{path.relative_to(PACKAGE)}\n'.encode() + path.read_bytes())
    return found.hexdigest()[:12]
