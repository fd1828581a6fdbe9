"""What a supervisor must know after it was killed: written before each thing it does, in a folder of the job's own."""

import contextlib
import dataclasses
import fcntl
import getpass
import hashlib
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

from diffusion import usage
from launch import job as jobs
from launch import shell


def root() -> Path:
    """Where jobs are remembered: $DIFFUSION_LAUNCH_HOME, or ~/.diffusion/launch."""
    return Path(os.environ.get('DIFFUSION_LAUNCH_HOME') or Path.home() / '.diffusion' / 'launch').absolute()


@dataclasses.dataclass
class State:
    """owner: marks what this job has made, so that nothing else of the same name is touched. asked: a request was, or
    may have been, made in `zone`. launched: the attempt has begun; started: its program was started on all hosts.
    failures, broken: in a row, of the program and of setting up. stopping: since when it is to save. removing: until
    nothing is there any more. outcome: [exit status, why], when it is to end. billed: s of machines until `tick`, a
    time since the epoch; billing: whether a machine was there then."""

    owner: str = ''
    zone: str = ''
    tried: int = 0
    asked: bool = False
    asked_at: float = 0.0
    move: bool = False
    attempt: int = 0
    launched: bool = False
    launched_at: float = 0.0
    started: bool = False
    hosts: int = 0
    stopping: float = 0.0
    removing: bool = False
    outcome: list | None = None
    told: bool = False
    failures: int = 0
    broken: int = 0
    refusals: int = 0
    silent: int = 0
    lingering: float = 0.0
    delays: int = 0
    not_before: float = 0.0
    billed: float = 0.0
    billing: bool = False
    tick: float = 0.0
    job_id: str = ''
    port: int = 0
    read: dict = dataclasses.field(default_factory=dict)

    def going(self) -> bool:
        """Whether anything of it may be there: it has asked or started, and not yet seen that nothing is left."""
        return self.removing or (self.outcome is None and (self.asked or self.launched or self.attempt > 0))


@dataclasses.dataclass
class Job:
    """A job with its memory: what the targets work on. run: calls programs; say: speaks to the user;
    together: whether hosts are asked all at once."""

    spec: jobs.Spec
    state: State
    folder: Path
    run: shell.Run
    say: Callable[[str], None]
    together: bool = True

    def save(self) -> None:
        shell.write(self.folder / 'state.json', json.dumps(dataclasses.asdict(self.state), indent=1) + '\n')

    def remaining(self) -> float:
        """Seconds of machines that the limits leave; infinite where there are none."""
        return self.spec.hours() * 3600 - self.state.billed


def owner(folder: Path) -> str:
    """Marks what a job of this user, machine and folder has made; the same again after its memory was lost."""
    text = f'{getpass.getuser()}@{socket.gethostname()}:{folder}'
    return 'l' + hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:11]  # a letter first: a label


def create(spec: jobs.Spec, folder: Path) -> State:
    """The memory of a new job, or what is there of the same one. Raises usage.UsageError where another has the name."""
    folder.mkdir(parents=True, exist_ok=True)
    state = load(folder)
    if state is not None and state.going():
        before = dataclasses.asdict(spec_of(folder))
        after = json.loads(spec.to_json())
        changed = [key for key in after if json.loads(json.dumps(before[key])) != after[key]]
        if changed:
            raise usage.UsageError(
                f'the job {spec.name} is not over and was asked for with another {", ".join(changed)}: '
                f'diffusion launch resume {spec.name}, diffusion launch stop {spec.name}, or another --name'
            )
        return state
    # A new run of the name: its attempts are counted on, so that no host takes one for an older one.
    shell.write(folder / 'spec.json', spec.to_json())
    return State(owner=owner(folder), attempt=state.attempt if state else 0)


def load(folder: Path) -> State | None:
    path = folder / 'state.json'
    if not path.exists():
        return None
    try:
        return State(**json.loads(path.read_text(encoding='utf-8')))
    except (json.JSONDecodeError, TypeError) as error:
        raise usage.UsageError(f'{path} is damaged ({error}): look with `diffusion launch ls --all-zones`') from error


def spec_of(folder: Path) -> jobs.Spec:
    if not (folder / 'spec.json').is_file():
        names = sorted(path.parent.name for path in folder.parent.glob('*/spec.json'))
        raise usage.UsageError(usage.unknown('job', folder.name, names) if names else f'no job {folder.name!r}')
    return jobs.from_json((folder / 'spec.json').read_text(encoding='utf-8'))


@contextlib.contextmanager
def held(folder: Path):
    """Only one supervisor of a job at a time; the lock goes with its process, however that ends."""
    with open(folder / 'lock', 'a') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            name = folder.name
            raise usage.UsageError(
                f'the job {name} is being supervised already: diffusion launch logs {name} --follow'
            ) from error
        yield


def supervised(folder: Path) -> bool:
    try:
        with held(folder):
            return False
    except usage.UsageError:
        return True
