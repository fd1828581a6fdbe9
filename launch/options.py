"""The flags of a launch, and the spec that they make."""

import os
from pathlib import Path

from diffusion import usage
from launch import hardware, memory, shell, targets, tree
from launch import job as jobs

ABOUT = {
    'tpu-vm': 'a slice of Cloud TPU VMs: queued resource, set up, started on all hosts, removed at the end',
    'gke': 'a JobSet on Kubernetes (GKE): TPU slices, or nodes with GPUs',
    'slurm': 'a batch job: one task a node, or one a GPU',
    'local': 'processes of this machine',
}


def parser(target: str) -> usage.Parser:
    made = usage.Parser(f'launch {target}', ABOUT[target])
    made.usage = f'diffusion launch {target} [flags] -- train --config=FILE [flags of train]'
    made.add_argument('--name', help='of the job (default: the name of the config)')
    made.add_argument('--dry-run', action='store_true', help='print every command and manifest, call none')
    made.add_argument('--detach', action='store_true', help='supervise in the background: then `diffusion launch logs`')
    made.add_argument('--max-hours', type=float, default=0.0, metavar='H', help='of machines, all attempts together')
    made.add_argument('--max-cost', type=float, default=0.0, metavar='M', help='at most, in the money of --price')
    made.add_argument('--price', type=float, default=0.0, metavar='P', help='of all machines together, an hour')
    made.add_argument('--secret-env', action='append', default=[], metavar='NAME', help='pass this variable on, unseen')
    made.add_argument('--setup', default='', metavar='FILE', help='a script of the tree that each host runs first')
    made.add_argument(
        '--allow-file', action='append', default=[], metavar='FILE', help='pack it, though it looks secret'
    )
    _OF[target](made)
    return made


def _cloud(made):
    made.add_argument('--type', required=True, help='v5e-16, v5e:4x4, v5p-128, v6e-64, v4-32')
    made.add_argument('--bucket', default='', metavar='gs://NAME', help='holds the workdir; mounted on every host')
    made.add_argument('--workdir', default='', metavar='PATH', help='in the bucket (default: runs/NAME)')
    made.add_argument('--spot', action='store_true', help='cheaper, and taken away at any time')
    made.add_argument('--project', default='', help="default: gcloud's own")
    made.add_argument('--service-account', default='', metavar='NAME', help='who the hosts are to the cloud')


def _tpu_vm(made):
    _cloud(made)
    made.add_argument('--zones', default='', metavar='Z,Z', help='tried in this order')
    made.add_argument('--reserved', action='store_true', help='from your reservation')
    made.add_argument('--network', default='')
    made.add_argument('--runtime-version', default='', metavar='V', help='default: by type')


def _gke(made):
    _cloud(made)
    made.add_argument('--slices', type=int, default=1, metavar='N', help='TPU slices (default: 1)')
    made.add_argument('--nodes', type=int, default=1, metavar='N', help='with GPUs (default: 1)')
    made.add_argument('--gpus', type=int, default=0, metavar='N', help='a node')
    made.add_argument('--namespace', default='default')
    made.add_argument('--image', default='python:3.12', help='with Python 3.11 or newer (default: python:3.12)')


def _slurm(made):
    made.add_argument('--nodes', type=int, default=1, metavar='N')
    made.add_argument('--gpus', type=int, default=0, metavar='N', help='a node')
    made.add_argument('--tasks', choices=('node', 'gpu'), default='node', help='one task a node, or one a GPU')
    made.add_argument('--partition', default='')
    made.add_argument('--account', default='')
    made.add_argument('--workdir', default='', metavar='DIR', help='that all nodes see (default: runs/NAME here)')


def _local(made):
    made.add_argument('--processes', type=int, default=1, metavar='N')
    made.add_argument('--workdir', default='', metavar='DIR', help='default: runs/NAME here')


_OF = {'tpu-vm': _tpu_vm, 'gke': _gke, 'slurm': _slurm, 'local': _local}


def spec(target: str, args, words: tuple[str, ...], root: Path) -> jobs.Spec:
    """Checks the call and packs the tree into `root`/trees. Raises usage.UsageError."""
    name = args.name or jobs.default_name(words)
    given = vars(args)
    bucket = given.get('bucket', '').removeprefix('gs://').strip('/')
    part = hardware.tpu(given.get('type', ''))
    gpus = given.get('gpus', 0)
    known = dict(
        name=name,
        target=target,
        words=words,
        accelerator=given.get('type', ''),
        hosts=part.hosts if part else given.get('processes', given.get('nodes', 1)),
        tasks=gpus if given.get('tasks') == 'gpu' else 1,
        gpus=gpus,
        slices=given.get('slices', 1),
        capacity=_capacity(given),
        zones=tuple(zone for zone in given.get('zones', '').split(',') if zone),
        project=given.get('project', ''),
        network=given.get('network', ''),
        runtime=given.get('runtime_version', ''),
        bucket=bucket,
        workdir=_workdir(given.get('workdir', ''), name, bucket, target),
        setup=args.setup,
        max_hours=args.max_hours,
        max_cost=args.max_cost,
        price=args.price,
        secrets=tuple(args.secret_env),
        namespace=given.get('namespace', 'default'),
        image=given.get('image', 'python:3.12'),
        service_account=given.get('service_account', ''),
        partition=given.get('partition', ''),
        account=given.get('account', ''),
    )
    made = jobs.Spec(**known, tree='unpacked')
    targets.BY_NAME[target].check(made)
    check_secrets(made)
    digest, packed = tree.pack(Path.cwd(), root / 'trees', tuple(args.allow_file))
    if args.setup and args.setup not in packed:
        raise usage.UsageError(f'--setup={args.setup}: no file of the packed tree')
    jobs.check_paths(words, packed)
    return jobs.Spec(**known, tree=digest)


def _capacity(given):
    if given.get('spot') and given.get('reserved'):
        raise usage.UsageError('--spot or --reserved, not both')
    return 'spot' if given.get('spot') else 'reserved' if given.get('reserved') else 'on-demand'


def _workdir(asked, name, bucket, target):
    """As the hosts see it: a place in the bucket, or a folder of this machine."""
    if target in ('tpu-vm', 'gke'):
        place = asked.removeprefix(f'gs://{bucket}/') or f'runs/{name}'
        if place.startswith(('/', 'gs://')) or '..' in place.split('/'):
            raise usage.UsageError(f'--workdir={asked}: a path in the bucket, as runs/{name}')
        return f'{jobs.MOUNT}/{place}'
    return str(Path(asked or f'runs/{name}').absolute())


def check_secrets(made: jobs.Spec) -> None:
    missing = [name for name in made.secrets if name not in os.environ]
    if missing:
        raise usage.UsageError(f'--secret-env={missing[0]}: no such variable is set here')
    values = [os.environ[name] for name in made.secrets if _long(os.environ[name])]
    told = [word for word in made.words if any(value in word for value in values)]
    if told:
        raise usage.UsageError(
            f'the value of a --secret-env is written in the call ({told[0].split("=")[0]}): it would be stored'
        )


def _long(value):
    """Whether a value is more than a switch, which may well stand in a text by chance."""
    return len(value) >= 6


def scrubbed(text: str, names: tuple[str, ...]) -> str:
    """What programs print, without the secrets that they were given."""
    for name in names:
        value = os.environ.get(name, '')
        if _long(value):
            text = text.replace(value, shell.HIDDEN.format(name))
    return text


def folder(name: str) -> Path:
    if not jobs.NAME.fullmatch(name):
        raise usage.UsageError(f'{name!r} is no name of a job')
    return memory.root() / name
