"""Training in processes of its own that are killed on purpose, as often and where a plan says."""

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from diffusion import ports
from diffusion.programs import measured
from diffusion.runtime import checkpoint, preemption, store

# When a process is killed: while it starts and compiles, after a step, while a checkpoint is being written.
MOMENTS = ('start', 'step', 'save')
SIGNALS = {'KILL': signal.SIGKILL, 'TERM': signal.SIGTERM}
START = 6.0  # s, about what a start takes
# s; the others of a killed process end by themselves, and where they do not, what has started them ends them.
GRACE = 60.0


@dataclasses.dataclass(frozen=True)
class Training:
    """`diffusion train WORDS` into a folder, as so many processes of this machine."""

    words: tuple[str, ...]
    folder: Path
    processes: int = 1

    def log(self, process: int) -> Path:
        """Where the output of a process goes: of all its starts, one after the other."""
        return self.folder.parent / f'{self.folder.name}_{process}.txt'

    def start(self) -> list[subprocess.Popen]:
        self.folder.mkdir(parents=True, exist_ok=True)
        peers = ('--coordinator', f'127.0.0.1:{ports.free_pair()}', '--processes', str(self.processes), '--process')
        return [self._process(i, (*peers, str(i)) if self.processes > 1 else ()) for i in range(self.processes)]

    def _process(self, index, peers):
        with open(self.log(index), 'ab') as log:
            command = [sys.executable, '-m', 'diffusion.cli', 'train', *self.words, f'--workdir={self.folder}', *peers]
            return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def logged(self) -> int:
        """The newest step in metrics.jsonl, 0 where there is none."""
        return max(measured.logged(self.folder / 'metrics.jsonl', 'loss'), default=0)

    def failed(self, process: int, status: int) -> RuntimeError:
        """What to raise where a process ended as it should not."""
        lines = self.log(process).read_text(encoding='utf-8', errors='replace').strip().splitlines()
        said = lines[-1] if lines else 'without a word'
        return RuntimeError(f'the training ended with status {status}: {said} (see {self.log(process)})')


@dataclasses.dataclass(frozen=True)
class Kill:
    """What happened: the signal, when it was sent, to which process, the newest step that was logged then, how all
    processes ended."""

    signal: str
    moment: str
    process: int
    step: int
    statuses: tuple[int, ...]


def undisturbed(training: Training) -> None:
    """Runs it to its end. Raises RuntimeError with its last line where it fails."""
    statuses = [process.wait() for process in training.start()]
    for process, status in enumerate(statuses):
        if status:
            raise training.failed(process, status)


def disturbed(
    training: Training, steps: int, kills: int, signals: list[str], moments: list[str], seed: int
) -> list[Kill]:
    """The same, killed `kills` times at random moments and started again each time; fewer where it ended before.

    steps: that it takes; signals: of SIGNALS, moments: of MOMENTS, which the first does not follow: it is after a step,
    so that something is lost.
    """
    chance, done = random.Random(seed), []
    while len(done) < kills:
        moment, name = chance.choice(moments) if done else 'step', chance.choice(signals)
        victim = chance.randrange(training.processes)
        happened = _moment(moment, training, _target(chance, training, steps, kills - len(done)), chance)
        there = training.start()
        while all(process.poll() is None for process in there) and not happened():
            time.sleep(0.002)
        step = training.logged()
        if there[victim].poll() is None:
            there[victim].send_signal(SIGNALS[name])
        statuses = _ended(there)
        if not any(statuses):
            return done
        if statuses[victim] not in (-SIGNALS[name], preemption.STOPPED):
            raise training.failed(victim, statuses[victim])
        done.append(Kill(name, moment, victim, step, statuses))
    undisturbed(training)
    return done


def _ended(processes) -> tuple[int, ...]:
    end = time.monotonic() + GRACE
    for process in processes:
        try:
            process.wait(max(end - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            process.kill()
    return tuple(process.wait() for process in processes)


def _target(chance, training, steps, left) -> int:
    """A step to come, early enough that as many kills as are left find the run still going."""
    newest = max(store.steps(training.folder / checkpoint.FOLDER), default=0)
    return newest + chance.randint(1, max(1, (steps - newest) // (left + 1)))


def _moment(moment, training, target, chance) -> Callable[[], bool]:
    if moment == 'start':
        # At the first new step at the latest: then it has started.
        end, before = time.monotonic() + chance.uniform(0, START), training.logged()
        return lambda: time.monotonic() > end or training.logged() != before
    if moment == 'save':
        saves, delay = training.folder / checkpoint.FOLDER, chance.uniform(0, 0.05)
        return lambda: _saving(saves) and not time.sleep(delay)
    return lambda: training.logged() >= target


def _saving(folder) -> bool:
    try:
        return any('.orbax-checkpoint-tmp' in name for name in os.listdir(folder))
    except FileNotFoundError:
        return False
