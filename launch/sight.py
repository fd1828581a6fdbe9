"""What a target says of a job's machines and of the programs on them, in words that are the same for all targets."""

import dataclasses

ABSENT = 'absent'  # nothing is there, nothing is billed
WAITING = 'waiting'  # asked for, or being made
READY = 'ready'  # machines are there
DEAD = 'dead'  # something is there that will never run again, and stands in the way
LEAVING = 'leaving'  # being deleted
UNKNOWN = 'unknown'  # no answer, or none that makes sense: nothing is concluded from it

BILLED = (READY, DEAD, LEAVING)


@dataclasses.dataclass(frozen=True)
class Sight:
    """said: the state in the target's own words; owner: the mark of what made it, '' where it has none."""

    kind: str
    said: str = ''
    owner: str = ''


@dataclasses.dataclass(frozen=True)
class Worker:
    """state: none, busy (an older attempt runs), running, ended, silent (does not answer) or gone (taken away with
    the others); code: the exit status of one that has ended, negative for a signal; text: what it has said since."""

    host: int
    state: str
    code: int | None = None
    text: str = ''


class Refusal(Exception):
    """A request that was not granted. capacity: elsewhere or later it may be."""

    def __init__(self, said: str, capacity: bool = False):
        super().__init__(said)
        self.capacity = capacity


class Broken(Exception):
    """The machines are there, but the job cannot be set up on them."""


@dataclasses.dataclass(frozen=True)
class Billed:
    """Something that is there, for `ls`."""

    target: str
    name: str
    where: str
    what: str
    said: str
