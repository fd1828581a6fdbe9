"""What a supervisor does at every turn, whatever it is at: looks, says, remembers, waits."""

import math
from collections.abc import Callable

from diffusion import usage
from launch import memory, pace, sight, targets

Show = Callable[[int, str], None]


class Keeper:
    """One job's. What there is to remember lies in its state, which is written before anything is done."""

    def __init__(self, job: memory.Job, clock: pace.Clock, pacing: pace.Pace, show: Show):
        """show: (host, text) of what the programs say."""
        self.job, self.clock, self.pace, self.show = job, clock, pacing, show
        self.target = targets.BY_NAME[job.spec.target]
        self._said = ''

    def say(self, message: str) -> None:
        """Once, however often it is found again."""
        if message != self._said:
            self._said = message
            self.job.say(message)

    def look(self) -> sight.Sight:
        """What is there, and the bill for the time since the last look. Nobody else's is ever touched."""
        job, state = self.job, self.job.state
        found = self.target.look(job)
        now = self.clock.now()
        if state.billing:
            state.billed += max(now - state.tick, 0.0)
        state.tick = now
        if found.kind != sight.UNKNOWN:
            state.billing = found.kind in sight.BILLED or found.said == 'PROVISIONING'
        if found.kind != sight.ABSENT and found.owner and found.owner != state.owner and state.asked:
            raise usage.UsageError(
                f'the {job.spec.target} job {job.spec.name}{placed(state.zone)} was made by something else '
                f'(launched-by={found.owner}): it is left alone; give this one another --name'
            )
        return found

    def words(self, found: sight.Sight) -> str:
        """What the state that was found means, in plain words."""
        known = self.target.WORDS.get(found.said.split(',')[0])
        return known[1] if known and known[0] == found.kind else found.kind

    def read(self) -> list[sight.Worker]:
        """How the program is on every host; what it has said since is shown."""
        workers = self.target.poll(self.job)
        for worker in workers:
            if worker.text and worker.state != 'silent':
                self.show(worker.host, worker.text)
        return workers

    def end(self, code: int, why: str) -> None:
        """Remembers how the job ends; what is there is then still to be cleared."""
        self.job.state.outcome = [code, why]
        self.job.save()
        self.job.say(f'ends: {why}')

    def over(self) -> None:
        """The attempt is over, whatever ended it; one that lasted was sound."""
        state = self.job.state
        if state.launched and self.clock.now() - state.launched_at >= self.pace.steady:
            state.failures, state.delays = 0, 0
        state.launched = False

    def lost(self) -> None:
        """What is dead goes before anything new is asked for."""
        self.over()
        self.job.state.not_before = self.clock.now() + self.delay()
        self.remove()

    def remove(self) -> None:
        """Asks for what is there to go, which a later look confirms."""
        self.job.state.removing = True
        self.job.save()
        self.target.remove(self.job)

    def launched(self) -> None:
        """Remembers that a new attempt begins, before it does."""
        state = self.job.state
        state.attempt += 1
        state.launched, state.launched_at, state.started, state.read = True, self.clock.now(), False, {}
        state.lingering, state.silent = 0.0, 0
        self.job.save()

    def delay(self) -> float:
        """The next wait; each is twice the last, up to the longest."""
        state = self.job.state
        wait = min(self.pace.first * 2.0 ** min(state.delays, 30), self.pace.most)
        state.delays += 1
        return wait

    def sleep(self, seconds: float) -> None:
        """Not beyond the end of what is left of the limits, while that is being used up."""
        self.job.save()
        left = self.job.remaining()
        if self.job.state.billing and self.job.state.outcome is None and math.isfinite(left):
            seconds = min(seconds, max(left, 0.0) + 1.0)
        self.clock.sleep(seconds)


def placed(zone: str) -> str:
    """' in ZONE', '' where there are no zones."""
    return f' in {zone}' if zone else ''
