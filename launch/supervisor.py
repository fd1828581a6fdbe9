"""Keeps one job running until it is done, its limits are reached or it is asked to end, and leaves nothing behind.

It is a state machine whose every turn looks at what is really there, does one thing and remembers it before it does.
So it may be killed at any moment: the next one of the same job goes on from what it finds. Nothing is asked for while
anything is there, and the job has not ended before a look has found nothing.
"""

import math
from collections.abc import Callable

from diffusion import usage
from launch import hosts, memory, pace, sight, targets

WRONG, FAULT, STOPPED = 2, 70, 75  # exit statuses (docs/pods.md)
STATUSES = (0, 1, WRONG, 126, 127)  # after which the same again would end the same
DONE, FINAL, KILLED, SAVED, FAILED = 'done', 'final', 'killed, goes on', 'stopped with all saved, goes on', 'failed'


Show = Callable[[int, str], None]


def verdict(codes: list[int]) -> str:
    """What the exit statuses of all hosts mean together; negative ones are signals.

    A final one decides. A kill says that a machine was lost, for which the others (70) are not to blame. Hosts of which
    some were stopped and some are done go on too: the next attempt finds out.
    """
    if set(codes) == {0}:
        return DONE
    if any(code in STATUSES and code for code in codes):
        return FINAL
    if any(code < 0 for code in codes):
        return KILLED
    return SAVED if STOPPED in codes else FAILED


class Supervisor:
    """One job's."""

    def __init__(self, job: memory.Job, clock: pace.Clock, pacing: pace.Pace, asked: Callable[[], str], show: Show):
        """asked: '' or why the job is to end now; show: (host, text) of what the programs say."""
        self.job, self.clock, self.pace, self.asked, self.show = job, clock, pacing, asked, show
        self.target = targets.BY_NAME[job.spec.target]
        self.said = ''

    def run(self) -> int:
        """The exit status: the program's, 75 where it was stopped with all saved, 70 where it was given up."""
        self._adopt()
        while True:
            code = self._turn()
            self.job.save()
            if code is not None:
                return code

    def _say(self, message: str) -> None:
        """Once, however often it is found again."""
        if message != self.said:
            self.said = message
            self.job.say(message)

    def _adopt(self) -> None:
        """A job that has just begun may find something of its name: its own from before, or somebody else's."""
        state, zones = self.job.state, self.job.spec.zones or ('',)
        if not state.zone:
            state.zone = zones[0]
        if state.asked or self.job.spec.target == 'local':
            return
        here = state.zone
        for zone in (here, *(zone for zone in zones if zone != here)):
            state.zone = zone
            found = self._look()
            for _ in range(self.pace.failures):
                if found.kind != sight.UNKNOWN:
                    break
                self._sleep(min(self.pace.poll, 5.0))
                found = self._look()
            if found.kind == sight.UNKNOWN:
                raise usage.UsageError(f'{self.job.spec.target} does not answer, nothing was asked for: {found.said}')
            if found.owner == state.owner:
                state.asked = True
                self._say(f'goes on with what is there{_in(zone)}: {found.said}')
                return
            if found.kind != sight.ABSENT:
                raise usage.UsageError(
                    f'there is a {self.job.spec.target} job {self.job.spec.name}{_in(zone)} already ({found.said}), '
                    'not started from here: remove it there, or give this one another --name'
                )
        state.zone = here

    def _look(self) -> sight.Sight:
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
                f'the {job.spec.target} job {job.spec.name}{_in(state.zone)} was made by something else '
                f'(launched-by={found.owner}): it is left alone; give this one another --name'
            )
        return found

    def _turn(self) -> int | None:
        state = self.job.state
        if state.outcome is None and (why := self.asked()):
            self._end(STOPPED, why)
        if state.outcome is None and self.job.remaining() <= 0:
            self._end(STOPPED, self._limit())
        if state.outcome is not None or state.removing:
            return self._clear()
        found = self._look()
        if found.kind == sight.UNKNOWN:
            self._say(f'does not know how things are, and does nothing: {found.said}')
            self._sleep(self.pace.poll)
        elif found.kind == sight.LEAVING:
            self._say(f'{found.said}: {self._words(found)}')
            self._sleep(self.pace.poll)
        elif found.kind == sight.DEAD:
            self._say(f'{found.said}: {self._words(found)}')
            self._lost()
        elif found.kind == sight.ABSENT:
            self._absent()
        elif found.kind == sight.WAITING:
            self._wait(found)
        else:
            self._work()
        return None

    def _words(self, found):
        known = self.target.WORDS.get(found.said.split(',')[0])
        return known[1] if known and known[0] == found.kind else found.kind

    def _limit(self):
        spec, hours = self.job.spec, self.job.state.billed / 3600
        cost = f', {hours * spec.price:.2f} of --max-cost={spec.max_cost:g}' if spec.max_cost else ''
        return f'{hours:.2f} h of --max-hours={spec.max_hours:g}{cost} are used'

    def _end(self, code: int, why: str) -> None:
        self.job.state.outcome = [code, why]
        self.job.save()
        self.job.say(f'ends: {why}')

    def _clear(self) -> int | None:
        """Stops what runs, removes what is there, and looks whether it is gone; until it is."""
        job, state = self.job, self.job.state
        if not state.removing:
            if state.launched and state.outcome and state.outcome[0] == STOPPED and not self._saved():
                self._sleep(min(self.pace.poll, 5.0))
                return None
            state.delays = 0
            self._remove()
        found = self._look()
        if found.kind == sight.ABSENT:
            if state.outcome and (elsewhere := self._elsewhere()):
                self._say(elsewhere)
                self._sleep(self._delay())
                return None
            state.removing, state.asked, state.launched, state.stopping = False, False, False, 0.0
            if state.outcome:
                spec = job.spec
                cost = f', {state.billed / 3600 * spec.price:.2f} in money' if spec.price else ''
                hours = f' after {state.billed / 3600:.2f} h of machines{cost}' if spec.target != 'local' else ''
                job.say(f'over{hours}: exit status {state.outcome[0]} ({state.outcome[1]}); nothing is left')
                return state.outcome[0]
            return None
        if found.kind not in (sight.LEAVING, sight.UNKNOWN):
            self.target.remove(job)
        self._say(f'waits until nothing is there: {found.said}')
        self._sleep(self._delay() if found.kind != sight.LEAVING else self.pace.poll)
        return None

    def _saved(self) -> bool:
        """Whether the program has ended since it was asked to, once, for a second time would end it unsaved."""
        state = self.job.state
        if not state.stopping:
            state.stopping = self.clock.now()
            self.job.save()
            self.target.stop(self.job)
        running = any(worker.state == 'running' for worker in self._read())
        return not running or self.clock.now() - state.stopping > hosts.PATIENCE

    def _elsewhere(self) -> str:
        """What is left in any other zone, which becomes the one to clear: a request that was given up may come late."""
        state = self.job.state
        for zone in self.job.spec.zones:
            if zone != state.zone:
                before, state.zone = state.zone, zone
                found = self._look()
                if found.kind != sight.ABSENT:
                    return f'something is left{_in(zone)}: {found.said}'
                state.zone = before
        return ''

    def _over(self) -> None:
        """The attempt is over, whatever ended it; one that lasted was sound."""
        state = self.job.state
        if state.launched and self.clock.now() - state.launched_at >= self.pace.steady:
            state.failures, state.delays = 0, 0
        state.launched = False

    def _lost(self) -> None:
        """What is dead goes before anything new is asked for."""
        self._over()
        self.job.state.not_before = self.clock.now() + self._delay()
        self._remove()

    def _remove(self) -> None:
        self.job.state.removing = True
        self.job.save()
        self.target.remove(self.job)

    def _absent(self) -> None:
        """Nothing is there: asks for it, when it is time, in the next zone where the last one had none."""
        job, state = self.job, self.job.state
        if state.launched:
            self._over()
            state.not_before = self.clock.now() + self._delay()
            self._say('the machines are gone: asks for others')
        if self.clock.now() < state.not_before:
            self._sleep(state.not_before - self.clock.now())
            return
        zones = job.spec.zones or ('',)
        if state.move:
            state.zone, state.move = zones[(zones.index(state.zone) + 1) % len(zones)], False
        state.asked, state.asked_at, state.silent = True, self.clock.now(), 0
        if not self.target.KEEPS:
            self._launched()
        job.save()
        self._say(f'asks for {job.spec.accelerator or "machines"}{_in(state.zone)}')
        try:
            self.target.request(job)
            state.refusals = 0
        except sight.Refusal as refusal:
            self._refused(refusal, len(zones))

    def _refused(self, refusal, zones) -> None:
        state = self.job.state
        state.launched, state.move = False, True
        state.tried += 1
        if not refusal.capacity:
            state.refusals += 1
        if state.refusals >= self.pace.failures:
            self._end(WRONG, f'the request is refused: {refusal}')
            return
        self._say(f'refused{_in(state.zone)}: {refusal}')
        if state.tried % zones == 0:  # all have been tried
            state.not_before = self.clock.now() + self._delay()
        self._remove()  # one that was refused may be there all the same, or come late

    def _wait(self, found) -> None:
        """In a queue. With other zones to try it is left after a while."""
        state = self.job.state
        waited = self.clock.now() - state.asked_at
        useless = found.said.startswith('ACTIVE')  # granted, and nothing is there
        elsewhere = found.said != 'PROVISIONING' and len(self.job.spec.zones) > 1
        if waited > self.pace.queue and (useless or elsewhere):
            then = 'asks anew' if useless else 'tries the next zone'
            self._say(f'{found.said} for {waited / 60:.0f} minutes{_in(state.zone)}: {then}')
            state.move = not useless
            self._lost()
            state.not_before = 0.0
            return
        self._say(f'{found.said}: {self._words(found)}')
        self._sleep(self.pace.poll)

    def _launched(self) -> None:
        """Remembers that a new attempt begins, before it does."""
        state = self.job.state
        state.attempt += 1
        state.launched, state.launched_at, state.started, state.read = True, self.clock.now(), False, {}
        state.lingering, state.silent = 0.0, 0
        self.job.save()

    def _work(self) -> None:
        """Machines are there: starts the program where it is not, and sees how it is getting on."""
        state = self.job.state
        if not state.launched:
            if self.clock.now() < state.not_before:
                self._sleep(state.not_before - self.clock.now())
                return
            self._launched()
        if not state.started:
            self._start()
            return
        workers = self._read()
        if not workers or any(worker.state in ('none', 'busy') for worker in workers):
            state.started = False  # a host has been made anew: where the program runs it is not started a second time
            return
        if any(worker.state == 'silent' for worker in workers):
            self._silent(workers)
            return
        state.silent = 0
        ended = [worker for worker in workers if worker.state == 'ended']
        if not ended:
            self._say(f'attempt {state.attempt} runs on {len(workers)} host(s)')
            self._sleep(self.pace.poll)
        elif any(worker.state == 'running' for worker in workers) and not self._lingered():
            self._sleep(min(self.pace.poll, 5.0))
        else:
            self._judge([worker.code for worker in ended])

    def _read(self) -> list[sight.Worker]:
        workers = self.target.poll(self.job)
        for worker in workers:
            if worker.text and worker.state != 'silent':
                self.show(worker.host, worker.text)
        return workers

    def _start(self) -> None:
        """Sets up and starts what is not: both may be done a second time where the first was broken off."""
        state = self.job.state
        try:
            self.target.prepare(self.job)
            self.target.start(self.job)
            state.started, state.broken = True, 0
            self._say(f'attempt {state.attempt} is started')
        except sight.Broken as broken:
            self._say(str(broken))
            state.broken += 1
            self._failed(state.broken, str(broken))
            if state.outcome is None and self.job.spec.target != 'local':
                self._remove()  # a host that does not take the program is no use

    def _silent(self, workers) -> None:
        state = self.job.state
        state.silent += 1
        said = next(worker.text for worker in workers if worker.state == 'silent')
        names = ', '.join(str(worker.host) for worker in workers if worker.state == 'silent')
        self._say(f'host {names} does not answer: {said}')
        if state.silent >= self.pace.silent:
            self._lost()
        else:
            self._sleep(self.pace.poll)

    def _lingered(self) -> bool:
        """Whether the hosts that still run have had long enough since one ended; they are stopped then."""
        state = self.job.state
        state.lingering = state.lingering or self.clock.now()
        if self.clock.now() - state.lingering < self.pace.linger:
            return False
        self.target.stop(self.job)
        return True

    def _judge(self, codes: list[int]) -> None:
        """What the exit statuses of all hosts mean. One that is final decides; a kill says that a machine was lost."""
        state = self.job.state
        said = ', '.join(map(str, codes))
        kind = verdict(codes)
        if kind in (DONE, FINAL):
            code = next((code for code in codes if code in STATUSES and code), 0)
            self._end(code, 'done' if not code else f'ended with {said}: the same again would end the same')
            return
        self._over()
        self._say(f'attempt {state.attempt} ended with {said}: {kind}')
        if kind == FAILED:
            state.failures += 1
            self._failed(state.failures, f'exit status {said}')
        if state.outcome is None:
            self._again()

    def _failed(self, times: int, why: str) -> None:
        state = self.job.state
        state.launched = False
        state.not_before = self.clock.now() + self._delay()
        if times >= self.pace.failures:
            self._end(FAULT, f'{times} failures in a row, the last: {why}')

    def _again(self) -> None:
        """The next attempt, after a while: on the same machines if these are still there then."""
        state = self.job.state
        state.not_before = max(state.not_before, self.clock.now() + self._delay())
        if not self.target.KEEPS:
            self._remove()

    def _delay(self) -> float:
        """The next wait; each is twice the last, up to the longest."""
        state = self.job.state
        wait = min(self.pace.first * 2.0 ** min(state.delays, 30), self.pace.most)
        state.delays += 1
        return wait

    def _sleep(self, seconds: float) -> None:
        """Not beyond the end of what is left of the limits, while that is being used up."""
        self.job.save()
        left = self.job.remaining()
        if self.job.state.billing and self.job.state.outcome is None and math.isfinite(left):
            seconds = min(seconds, max(left, 0.0) + 1.0)
        self.clock.sleep(seconds)


def _in(zone):
    return f' in {zone}' if zone else ''
