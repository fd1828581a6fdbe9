"""The manifest of a job on Kubernetes: a JobSet of one replicated Job, whose pods mount the bucket, run the agent."""

from launch import hardware, hosts, memory
from launch import job as jobs

JOB = 'job'  # the name of the one replicated job
KEPT = 24 * 3600  # s that a JobSet which nobody removes stays to be read
PORT = 8476
# One slice is one node pool: no two jobs of a set share one.
EXCLUSIVE = {'alpha.jobset.sigs.k8s.io/exclusive-topology': 'cloud.google.com/gke-nodepool'}


def jobset(job: memory.Job) -> dict:
    """The manifest. kubernetes-sigs/jobset, jobset.x-k8s.io/v1alpha2."""
    spec = job.spec
    part = hardware.tpu(spec.accelerator)
    pods = part.hosts if part else spec.hosts
    labels = {'launched-by': job.state.owner}
    deadline = {} if job.remaining() == float('inf') else {'activeDeadlineSeconds': max(int(job.remaining()), 60)}
    return {
        'apiVersion': 'jobset.x-k8s.io/v1alpha2',
        'kind': 'JobSet',
        'metadata': {
            'name': spec.name,
            'namespace': spec.namespace,
            'labels': labels,
            'annotations': EXCLUSIVE if part else {},
        },
        'spec': {
            'failurePolicy': {'maxRestarts': 0},
            'ttlSecondsAfterFinished': KEPT,
            'network': {'enableDNSHostnames': True, 'publishNotReadyAddresses': True},
            'replicatedJobs': [
                {
                    'name': JOB,
                    'replicas': spec.slices,
                    'template': {
                        'spec': {
                            'completionMode': 'Indexed',
                            'completions': pods,
                            'parallelism': pods,
                            'backoffLimit': 0,
                            **deadline,
                            'template': {
                                'metadata': {'labels': labels, 'annotations': {'gke-gcsfuse/volumes': 'true'}},
                                'spec': _pod(job, part, pods),
                            },
                        }
                    },
                }
            ],
        },
    }


def _pod(job, part, pods):
    spec = job.spec
    amount = {'google.com/tpu': str(part.chips_a_host)} if part else {'nvidia.com/gpu': str(spec.gpus)}
    place = f'{jobs.MOUNT}/launch/{spec.name}'
    selector = {'cloud.google.com/gke-accelerator': spec.accelerator}
    if part:
        selector = {
            'cloud.google.com/gke-tpu-accelerator': part.gke,
            'cloud.google.com/gke-tpu-topology': part.topology,
        }
    if spec.capacity == 'spot':
        selector['cloud.google.com/gke-spot'] = 'true'
    options = 'implicit-dirs,rename-dir-limit=1000000'
    return {
        'restartPolicy': 'Never',
        'terminationGracePeriodSeconds': int(hosts.PATIENCE),
        **({'serviceAccountName': spec.service_account} if spec.service_account else {}),
        'nodeSelector': selector,
        'tolerations': [
            {'key': key, 'operator': 'Exists', 'effect': 'NoSchedule'}
            for key in (next(iter(amount)), *(('cloud.google.com/gke-spot',) if spec.capacity == 'spot' else ()))
        ],
        'containers': [
            {
                'name': 'diffusion',
                'image': spec.image,
                # Pods do not share a disk but the bucket: agent and job file lie there, and no shell reads anything.
                'command': ['python3', f'{place}/{spec.tree}-agent.py', 'main', f'{place}/{spec.tree}-job.json'],
                'env': [*_environment(spec, part, pods), *_secret_environment(spec)],
                'ports': [{'containerPort': port, 'protocol': 'TCP'} for port in (PORT, PORT + 1)],
                'resources': {'limits': amount, 'requests': amount},
                'volumeMounts': [
                    {'name': 'bucket', 'mountPath': jobs.MOUNT},
                    {'name': 'memory', 'mountPath': '/dev/shm'},
                ],
            }
        ],
        'volumes': [
            {
                'name': 'bucket',
                'csi': {
                    'driver': 'gcsfuse.csi.storage.gke.io',
                    'volumeAttributes': {'bucketName': spec.bucket, 'mountOptions': options},
                },
            },
            {'name': 'memory', 'emptyDir': {'medium': 'Memory'}},
        ],
    }


def _environment(spec, part, pods):
    """On TPUs GKE itself says who is who; pods with GPUs learn it from the JobSet (docs/pods.md)."""
    known = {'JOBSET_NAME': spec.name, 'REPLICATED_JOB_NAME': JOB, 'PYTHONUNBUFFERED': '1'}
    if not part:
        known['JAX_NUM_PROCESSES'] = str(pods)
    return [{'name': name, 'value': value} for name, value in known.items()]


def _secret_environment(spec):
    return [
        {'name': name, 'valueFrom': {'secretKeyRef': {'name': f'{spec.name}-env', 'key': name}}}
        for name in spec.secrets
    ]


def secret(spec: jobs.Spec, owner: str, values) -> dict:
    return {
        'apiVersion': 'v1',
        'kind': 'Secret',
        'metadata': {'name': f'{spec.name}-env', 'namespace': spec.namespace, 'labels': {'launched-by': owner}},
        'type': 'Opaque',
        'stringData': dict(values),
    }
