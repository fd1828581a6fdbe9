"""Several processes as one run: who they are, from flags or from what started them, and joining them.

`find` only reads; `join` connects, and must come before anything that touches a device.
"""

import dataclasses
import glob
import os
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils

PORT = 8476  # where Cloud TPU's firewall lets the workers talk
LOOPBACK = re.compile(r'^(localhost|127\.|::1|\[::1\])')
TPU_DEVICES = ('/dev/accel[0-9]*', '/dev/vfio/[0-9]*')
METADATA = 'http://metadata.google.internal/computeMetadata/v1/instance/attributes/'


@dataclasses.dataclass(frozen=True)
class Peers:
    """coordinator: 'host:port' of process 0; process: which of the processes this is; source: what said so; local:
    which of this host's accelerators is its own, None for all."""

    coordinator: str
    processes: int
    process: int
    source: str
    local: int | None = None

    def __post_init__(self):
        host, colon, port = self.coordinator.rpartition(':')
        if not host or not colon or not port.isdecimal():
            raise ValueError(f'{self.source}: coordinator {self.coordinator!r}: HOST:PORT of process 0 is wanted')
        if not 0 <= self.process < self.processes:
            raise ValueError(f'{self.source}: process {self.process} of {self.processes}: they count from 0')


def find(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    environment: Mapping[str, str] | None = None,
    tpu: bool = True,
) -> Peers | None:
    """The processes of this run, None where there is one only.

    Flags come first, then the variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, then what Slurm,
    a TPU slice (GKE's variables or Cloud TPU's metadata; several slices too) or a Kubernetes JobSet say. tpu: whether a
    TPU may be used at all. Raises ValueError where something of it is missing or cannot be.
    """
    environment = os.environ if environment is None else environment
    if processes == 1 and coordinator is None and process is None:
        return None
    flags = {'--coordinator': coordinator, '--processes': processes, '--process': process}
    if any(value is not None for value in flags.values()):
        return _explicit('the flags', flags)
    names = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')
    given = {name: environment.get(name) for name in names}
    index = environment.get('JOB_COMPLETION_INDEX')
    if any(given.values()) and not _is_jobset(environment):
        return _explicit('the environment', {**given, names[2]: given[names[2]] or index})
    found = _slurm(environment) or (tpu and _tpu(environment)) or _jobset(environment)
    return found if found and found.processes > 1 else None


def _explicit(source, values) -> Peers | None:
    missing = [name for name, value in values.items() if value is None]
    if missing:
        raise ValueError(f'{" and ".join(missing)} missing: {", ".join(values)} go together')
    coordinator, processes, process = values.values()
    peers = Peers(str(coordinator), int(processes), int(process), source)
    return peers if peers.processes > 1 else None


def _slurm(environment) -> Peers | None:
    tasks = int(environment.get('SLURM_STEP_NUM_TASKS') or environment.get('SLURM_NTASKS') or 1)
    if tasks == 1:
        return None
    nodes = environment.get('SLURM_STEP_NODELIST')
    if not nodes:
        raise ValueError(
            f'Slurm gave {tasks} tasks, but this is not one of them: start it with `srun diffusion train ...`, '
            'or run a single process with --processes=1'
        )
    first = re.match(r'([^,\[]+)(?:\[([^,\]-]+))?', nodes)
    host = first[1] + (first[2] or '')
    # The upper 4096 ports, so that two jobs on one node are unlikely to meet.
    port = environment.get('JAX_COORDINATOR_PORT') or 65536 - 4096 + int(environment['SLURM_JOB_ID']) % 4096
    here = int(environment.get('SLURM_STEP_TASKS_PER_NODE', '1').split('(')[0].split(',')[0])
    alone = len(environment.get('CUDA_VISIBLE_DEVICES', ',').split(',')) == 1
    local = int(environment['SLURM_LOCALID']) if here > 1 and not alone else None
    return Peers(f'{host}:{port}', tasks, int(environment['SLURM_PROCID']), 'Slurm', local)


def _tpu(environment) -> Peers | None:
    hosts = environment.get('TPU_PROCESS_ADDRESSES') or environment.get('TPU_WORKER_HOSTNAMES')
    if hosts:
        said = {**environment, 'worker': environment.get('TPU_WORKER_ID')}
    elif any(map(glob.glob, TPU_DEVICES)) and 'TPU_SKIP_MDS_QUERY' not in environment:
        hosts, said = cloud_tpu(environment)
    if not hosts or said.get('worker') is None:
        return None
    names = [host.split(':')[-1 if host.count(':') == 2 else 0] for host in hosts.split(',')]
    slices, number = int(said.get('MEGASCALE_NUM_SLICES') or 1), int(said.get('MEGASCALE_SLICE_ID') or 0)
    host = (said.get('MEGASCALE_COORDINATOR_ADDRESS') or names[0]).split(':')[0]
    port = environment.get('JAX_COORDINATOR_PORT') or PORT
    process = number * len(names) + int(said['worker'])
    return Peers(f'{host}:{port}', slices * len(names), process, 'the TPU slice')


def cloud_tpu(environment: Mapping[str, str], read: Callable[[str], str] | None = None):
    """The worker hosts, with commas, and the variables of a Cloud TPU VM from its metadata; None, {} elsewhere.

    read: key -> value, for a test.
    """
    read = read or _metadata
    try:
        hosts, worker = read('worker-network-endpoints'), read('agent-worker-number')
        lines = read('tpu-env').splitlines()
    except (urllib.error.URLError, OSError):
        return None, {}
    pairs = (line.split(':', 1) for line in lines if ':' in line)
    said = {name.strip(): value.strip().strip("'") for name, value in pairs}
    return hosts, {**said, **environment, 'worker': worker.strip()}


def _metadata(key):
    request = urllib.request.Request(METADATA + key, headers={'Metadata-Flavor': 'Google'})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


def _is_jobset(environment):
    return 'JOBSET_NAME' in environment and 'REPLICATED_JOB_NAME' in environment


def _jobset(environment) -> Peers | None:
    """One replicated job of a JobSet, whose pods are numbered; the number of pods is in no variable of its own."""
    if not _is_jobset(environment):
        return None
    count = environment.get('JAX_NUM_PROCESSES')
    index = environment.get('JAX_PROCESS_ID') or environment.get('JOB_COMPLETION_INDEX')
    if not count or index is None:
        raise ValueError('a JobSet: set JAX_NUM_PROCESSES to the number of its pods, in an Indexed job')
    name, job = environment['JOBSET_NAME'], environment['REPLICATED_JOB_NAME']
    address = environment.get('JAX_COORDINATOR_ADDRESS') or f'{name}-{job}-0-0.{name}:{PORT}'
    return Peers(address, int(count), int(index), 'the JobSet')


def check_reachable(peers: Peers) -> None:
    """Refuses a coordinator on another host whose name means this host here, which would be waited for in vain."""
    host = peers.coordinator.rpartition(':')[0]
    if LOOPBACK.match(host) or host.split('.')[0] == socket.gethostname().split('.')[0]:
        return  # all processes are local, or process 0 is here
    try:
        address = socket.gethostbyname(host)
    except OSError:
        return  # not known yet: the pods of a job come up one by one
    if LOOPBACK.match(address):
        raise ValueError(
            f'the coordinator {host} is {address} on {socket.gethostname()}, that is this host itself: '
            'give an address that all hosts can reach, --coordinator=ADDRESS:PORT'
        )


def join(peers: Peers, timeout_s: int = 300) -> None:
    """Connects this process to the others; waits until all are there, for timeout_s at most."""
    check_reachable(peers)
    jax.distributed.initialize(
        peers.coordinator,
        peers.processes,
        peers.process,
        None if peers.local is None else [peers.local],
        cluster_detection_method='deactivate',
        initialization_timeout=timeout_s,
    )


def leads() -> bool:
    """Whether this is the process that writes what is written once."""
    return jax.process_index() == 0


def together(name: str) -> None:
    """Returns when every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def agreed(value: int) -> int:
    """What process 0 gave, on all."""
    return value if jax.process_count() == 1 else int(multihost_utils.broadcast_one_to_all(np.int32(value)))
