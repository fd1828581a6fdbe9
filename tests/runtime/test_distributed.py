import socket

import pytest

from diffusion.runtime import distributed

SLURM = {
    'SLURM_JOB_ID': '70001',
    'SLURM_NTASKS': '4',
    'SLURM_STEP_NUM_TASKS': '4',
    'SLURM_STEP_NODELIST': 'node[003-004],other7',
    'SLURM_STEP_TASKS_PER_NODE': '2(x2)',
    'SLURM_PROCID': '3',
    'SLURM_LOCALID': '1',
}
PODS = {'TPU_WORKER_HOSTNAMES': 'w-0.job,w-1.job', 'TPU_WORKER_ID': '1'}
SECOND = {'MEGASCALE_NUM_SLICES': '2', 'MEGASCALE_SLICE_ID': '1', 'MEGASCALE_COORDINATOR_ADDRESS': 'first-0.job:8080'}
JOBSET = {'JOBSET_NAME': 'run', 'REPLICATED_JOB_NAME': 'node', 'JOB_COMPLETION_INDEX': '2', 'JAX_NUM_PROCESSES': '3'}
NAMED = {'JAX_COORDINATOR_ADDRESS': 'a:1', 'JAX_NUM_PROCESSES': '2', 'JAX_PROCESS_ID': '0'}


@pytest.mark.parametrize(
    'environment,wanted',
    [
        ({}, None),
        (NAMED, ('a:1', 2, 0, None)),
        ({**NAMED, **SLURM}, ('a:1', 2, 0, None)),
        # The port is 61440 + 70001 mod 4096.
        (SLURM, ('node003:61809', 4, 3, 1)),
        ({**SLURM, 'CUDA_VISIBLE_DEVICES': '3'}, ('node003:61809', 4, 3, None)),
        ({**SLURM, 'SLURM_STEP_TASKS_PER_NODE': '1(x4)'}, ('node003:61809', 4, 3, None)),
        ({**SLURM, 'SLURM_STEP_NODELIST': 'a1,b[2-3]'}, ('a1:61809', 4, 3, 1)),
        ({**SLURM, 'SLURM_STEP_NODELIST': 'gpu7', 'JAX_COORDINATOR_PORT': '99'}, ('gpu7:99', 4, 3, 1)),
        ({**SLURM, 'SLURM_STEP_NUM_TASKS': '1'}, None),
        (PODS, ('w-0.job:8476', 2, 1, None)),
        ({**PODS, **SECOND}, ('first-0.job:8476', 4, 3, None)),
        ({'TPU_WORKER_HOSTNAMES': 'localhost', 'TPU_WORKER_ID': '0'}, None),
        (JOBSET, ('run-node-0-0.run:8476', 3, 2, None)),
        ({**JOBSET, **PODS}, ('w-0.job:8476', 2, 1, None)),
        ({**JOBSET, 'JAX_COORDINATOR_ADDRESS': 'h:5'}, ('h:5', 3, 2, None)),
    ],
)
def test_what_started_the_processes_says_who_they_are(environment, wanted):
    found = distributed.find(environment=environment)
    assert (
        found is None if wanted is None else wanted == (found.coordinator, found.processes, found.process, found.local)
    )


def test_flags_come_before_everything():
    found = distributed.find('me:1', 2, 1, environment=SLURM)
    assert (found.coordinator, found.processes, found.process) == ('me:1', 2, 1)
    assert distributed.find(processes=1, environment=SLURM) is None
    assert distributed.find(environment=PODS, tpu=False) is None


@pytest.mark.parametrize(
    'words,environment,say',
    [
        ((None, 2, None), {}, '--coordinator and --process missing'),
        (('a:1', 2, 2), {}, 'process 2 of 2: they count from 0'),
        (('a', 2, 0), {}, "coordinator 'a': HOST:PORT"),
        ((None, None, None), {'JAX_NUM_PROCESSES': '2'}, 'JAX_COORDINATOR_ADDRESS and JAX_PROCESS_ID missing'),
        ((None, None, None), {'SLURM_NTASKS': '4', 'SLURM_JOB_ID': '1'}, 'srun diffusion train'),
        ((None, None, None), {'JOBSET_NAME': 'a', 'REPLICATED_JOB_NAME': 'b'}, 'set JAX_NUM_PROCESSES'),
    ],
)
def test_half_an_answer_is_refused(words, environment, say):
    with pytest.raises(ValueError, match=say):
        distributed.find(*words, environment=environment)


def test_a_cloud_tpu_vm_says_it_in_its_metadata():
    said = {
        'worker-network-endpoints': 'unknown:unknown:10.0.0.2,unknown:unknown:10.0.0.3',
        'agent-worker-number': '1\n',
        'tpu-env': "ACCELERATOR_TYPE: 'v5litepod-8'\nMEGASCALE_NUM_SLICES: '2'\n",
    }
    hosts, variables = distributed.cloud_tpu({}, said.__getitem__)
    assert hosts == said['worker-network-endpoints']
    assert variables['worker'] == '1' and variables['MEGASCALE_NUM_SLICES'] == '2'

    def silent(key):
        raise OSError

    assert distributed.cloud_tpu({}, silent) == (None, {})


def test_a_coordinator_elsewhere_that_resolves_to_this_host_is_refused(monkeypatch):
    peers = distributed.Peers('node1:1', 2, 1, 'Slurm')
    monkeypatch.setattr(socket, 'gethostbyname', lambda host: '127.0.1.1')
    monkeypatch.setattr(socket, 'gethostname', lambda: 'node2.site')
    with pytest.raises(ValueError, match=r'node1 is 127.0.1.1 on node2.site'):
        distributed.check_reachable(peers)
    monkeypatch.setattr(socket, 'gethostname', lambda: 'node1.site')
    distributed.check_reachable(peers)
