"""The one job spec: what to run, where, on how much, for how long and how much at most. It never holds a secret."""

import dataclasses
import json
import os
import re
from pathlib import Path

from diffusion import usage

NAME = re.compile(r'[a-z]([-a-z0-9]{0,38}[a-z0-9])?')
ZONE = re.compile(r'[a-z]+-[a-z]+[0-9]+-[a-z]')
PLAIN = re.compile(r'[A-Za-z0-9][-A-Za-z0-9_.:/@]*')
VARIABLE = re.compile(r'[A-Za-z_][A-Za-z0-9_]*')
BUCKET = re.compile(r'[a-z0-9][-_.a-z0-9]{1,61}[a-z0-9]')
CAPACITIES = ('on-demand', 'spot', 'reserved')
MOUNT = '/tmp/bucket'  # where the bucket lies on every rented host
BILLED = ('tpu-vm', 'gke')  # what is paid by the hour must say for how many


@dataclasses.dataclass(frozen=True)
class Spec:
    """words: the arguments of `diffusion`. tree: the hash of the packed working tree. accelerator: v5e-16, v5e:4x4,
    nvidia-h100-80gb; hosts: machines, or processes on `local`; tasks: processes a host; gpus: a host; price: of all
    machines together for one hour, max_cost in the same money; 0: no limit. secrets: names of environment variables,
    whose values go to the hosts and nowhere else. workdir: where a training lives, as the hosts see it.
    """

    name: str
    target: str
    words: tuple[str, ...]
    tree: str
    accelerator: str = ''
    hosts: int = 1
    tasks: int = 1
    gpus: int = 0
    slices: int = 1
    capacity: str = 'on-demand'
    zones: tuple[str, ...] = ()
    project: str = ''
    network: str = ''
    runtime: str = ''
    bucket: str = ''
    workdir: str = ''
    setup: str = ''
    max_hours: float = 0.0
    max_cost: float = 0.0
    price: float = 0.0
    secrets: tuple[str, ...] = ()
    namespace: str = 'default'
    image: str = 'python:3.12'
    service_account: str = ''
    partition: str = ''
    account: str = ''

    def __post_init__(self):
        if not NAME.fullmatch(self.name):
            raise usage.UsageError(
                f'job name {self.name!r}: a letter, then letters, digits and "-", all small, at most 40: --name=...'
            )
        if not self.words:
            raise usage.UsageError('nothing to run: end the call with -- train --config=FILE')
        _whole(self.words)
        for field, pattern in (('secrets', VARIABLE), ('zones', ZONE)):
            for value in getattr(self, field):
                if not pattern.fullmatch(value):
                    raise usage.UsageError(f'{field}: {value!r} cannot be one')
        for field in ('project', 'network', 'runtime', 'namespace', 'image', 'service_account', 'partition', 'account'):
            value = getattr(self, field)
            if value and not PLAIN.fullmatch(value):
                raise usage.UsageError(f'--{field.replace("_", "-")}={value!r}: letters, digits and -_.:/@ only')
        if self.bucket and not BUCKET.fullmatch(self.bucket):
            raise usage.UsageError(f'--bucket={self.bucket!r}: the name of a bucket, as gs://my-bucket')
        if self.capacity not in CAPACITIES:
            raise usage.UsageError(usage.unknown('capacity', self.capacity, CAPACITIES))
        self._check_limits()

    def _check_limits(self):
        for field in ('hosts', 'tasks', 'slices'):
            if getattr(self, field) < 1:
                raise usage.UsageError(f'{field} = {getattr(self, field)}: at least 1')
        for field in ('gpus', 'max_hours', 'max_cost', 'price'):
            if not 0 <= getattr(self, field) < float('inf'):
                raise usage.UsageError(f'--{field.replace("_", "-")}={getattr(self, field)}: 0 or more')
        if self.max_cost and not self.price:
            raise usage.UsageError('--max-cost needs --price: what all machines together cost an hour')
        if self.target in BILLED and not self.max_hours:
            raise usage.UsageError(f'{self.target} is paid by the hour: say for how long at most, --max-hours=24')

    def hours(self) -> float:
        """Of machines, at most, by both limits; infinite where there is none."""
        limits = [self.max_hours or float('inf'), self.max_cost / self.price if self.max_cost else float('inf')]
        return min(limits)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + '\n'


def from_json(text: str) -> Spec:
    """Raises usage.UsageError for a key or type that is not of a spec."""
    try:
        found = json.loads(text)
        kinds = {field.name: field for field in dataclasses.fields(Spec)}
        if unknown := set(found) - set(kinds):
            raise usage.UsageError(f'a job spec has no {", ".join(sorted(unknown))}')
        values = {}
        for key, value in found.items():
            if isinstance(value, list) and all(isinstance(item, str) for item in value):
                value = tuple(value)
            wanted = type(kinds[key].default) if kinds[key].default is not dataclasses.MISSING else None
            wanted = wanted or (tuple if key == 'words' else str)
            if wanted is float and type(value) is int:
                value = float(value)
            if type(value) is not wanted:
                raise usage.UsageError(f'job spec: {key} is {value!r}; {wanted.__name__} is wanted')
            values[key] = value
        return Spec(**values)
    except (json.JSONDecodeError, TypeError, AttributeError) as error:
        raise usage.UsageError(f'this is no job spec: {error}') from error


def _whole(words) -> None:
    """Refuses what no argument list can hold, or no file name in UTF-8."""
    for word in words:
        if '\0' in word or any('\ud800' <= letter <= '\udfff' for letter in word):
            raise usage.UsageError(f'{word!r} cannot be passed to a program: it is no text in UTF-8')


def default_name(words: tuple[str, ...]) -> str:
    """From the config's name: configs/emoji_dit.py is emoji-dit."""
    configs = [word.split('=', 1)[1] for word in words if word.startswith('--config=')]
    stem = Path(configs[0]).stem if configs else 'job'
    name = re.sub('[^a-z0-9]+', '-', stem.lower()).strip('-')[:40].strip('-')
    return name if NAME.fullmatch(name) else 'job'


def with_workdir(words: tuple[str, ...], workdir: str) -> tuple[str, ...]:
    """The words with the place where a training lives, where they do not say it themselves."""
    if not workdir or words[0] != 'train' or any(word.split('=')[0] == '--workdir' for word in words):
        return words
    return (*words, f'--workdir={workdir}')


def check_paths(words: tuple[str, ...], packed: frozenset[str]) -> None:
    """Refuses a relative path that is here but not in the packed tree: the hosts would not have it."""
    for word in words:
        value = word.split('=', 1)[-1]
        if not value or os.path.isabs(value) or not os.path.exists(value) or word.startswith('--workdir'):
            continue
        path = os.path.normpath(value)
        if path not in packed and not any(name.startswith(path + '/') for name in packed):
            raise usage.UsageError(
                f'{word}: {value!r} is here but is not packed (it is ignored by git, or outside): '
                'give an absolute path that the hosts have'
            )
