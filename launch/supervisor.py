"""Keeps one job running until it is done, its limits are reached or it is asked to end, and leaves nothing behind.

It is a state machine whose every turn looks at what is really there, does one thing and remembers it before it does.
So it may be killed at any moment: the next one of the same job goes on from what it finds. Nothing is asked for while
anything is there, and the job has not ended before a look has found nothing.
"""

from collections.abc import Callable

from diffusion import usage
from launch import attempt, hosts, keeper, memory, pace, sight


class Supervisor:
    """One job's."""

    def __init__(
        self, job: memory.Job, clock: pace.Clock, pacing: pace.Pace, asked: Callable[[], str], show: keeper.Show
    ):
        """asked: '' or why the job is to end now; show: (host, text) of what the programs say."""
        self._asked, self._kept = asked, keeper.Keeper(job, clock, pacing, show)
        self._attempt = attempt.Attempt(self._kept)

    def run(self) -> int:
        """The exit status: the program's, 75 where it was stopped with all saved, 70 where it was given up."""
        self._adopt()
        while True:
            code = self._turn()
            self._kept.job.save()
            if code is not None:
                return code

    def _adopt(self) -> None:
        """A job that has just begun may find something of its name: its own from before, or somebody else's."""
        state, spec = self._kept.job.state, self._kept.job.spec
        zones = spec.zones or ('',)
        if not state.zone:
            state.zone = zones[0]
        if state.asked or spec.target == 'local':
            return
        here = state.zone
        for zone in (here, *(zone for zone in zones if zone != here)):
            state.zone = zone
            found = self._kept.look()
            for _ in range(self._kept.pace.failures):
                if found.kind != sight.UNKNOWN:
                    break
                self._kept.sleep(min(self._kept.pace.poll, 5.0))
                found = self._kept.look()
            if found.kind == sight.UNKNOWN:
                raise usage.UsageError(f'{spec.target} does not answer, nothing was asked for: {found.said}')
            if found.owner == state.owner:
                state.asked = True
                self._kept.say(f'goes on with what is there{keeper.placed(zone)}: {found.said}')
                return
            if found.kind != sight.ABSENT:
                raise usage.UsageError(
                    f'there is a {spec.target} job {spec.name}{keeper.placed(zone)} already ({found.said}), '
                    'not started from here: remove it there, or give this one another --name'
                )
        state.zone = here

    def _turn(self) -> int | None:
        state = self._kept.job.state
        if state.outcome is None and (why := self._asked()):
            self._kept.end(attempt.STOPPED, why)
        if state.outcome is None and self._kept.job.remaining() <= 0:
            self._kept.end(attempt.STOPPED, self._limit())
        if state.outcome is not None or state.removing:
            return self._clear()
        found = self._kept.look()
        if found.kind == sight.UNKNOWN:
            self._kept.say(f'does not know how things are, and does nothing: {found.said}')
            self._kept.sleep(self._kept.pace.poll)
        elif found.kind == sight.LEAVING:
            self._kept.say(f'{found.said}: {self._kept.words(found)}')
            self._kept.sleep(self._kept.pace.poll)
        elif found.kind == sight.DEAD:
            self._kept.say(f'{found.said}: {self._kept.words(found)}')
            self._kept.lost()
        elif found.kind == sight.ABSENT:
            self._absent()
        elif found.kind == sight.WAITING:
            self._wait(found)
        else:
            self._attempt.work()
        return None

    def _limit(self):
        spec, hours = self._kept.job.spec, self._kept.job.state.billed / 3600
        cost = f', {hours * spec.price:.2f} of --max-cost={spec.max_cost:g}' if spec.max_cost else ''
        return f'{hours:.2f} h of --max-hours={spec.max_hours:g}{cost} are used'

    def _clear(self) -> int | None:
        """Stops what runs, removes what is there, and looks whether it is gone; until it is."""
        job, state = self._kept.job, self._kept.job.state
        if not state.removing:
            if state.launched and state.outcome and state.outcome[0] == attempt.STOPPED and not self._saved():
                self._kept.sleep(min(self._kept.pace.poll, 5.0))
                return None
            state.delays = 0
            self._kept.remove()
        found = self._kept.look()
        if found.kind == sight.ABSENT:
            if state.outcome and (elsewhere := self._elsewhere()):
                self._kept.say(elsewhere)
                self._kept.sleep(self._kept.delay())
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
            self._kept.target.remove(job)
        self._kept.say(f'waits until nothing is there: {found.said}')
        self._kept.sleep(self._kept.delay() if found.kind != sight.LEAVING else self._kept.pace.poll)
        return None

    def _saved(self) -> bool:
        """Whether the program has ended since it was asked to, once, for a second time would end it unsaved."""
        state = self._kept.job.state
        if not state.stopping:
            state.stopping = self._kept.clock.now()
            self._kept.job.save()
            self._kept.target.stop(self._kept.job)
        running = any(worker.state == 'running' for worker in self._kept.read())
        return not running or self._kept.clock.now() - state.stopping > hosts.PATIENCE

    def _elsewhere(self) -> str:
        """What is left in any other zone, which becomes the one to clear: a request that was given up may come late."""
        state = self._kept.job.state
        for zone in self._kept.job.spec.zones:
            if zone != state.zone:
                before, state.zone = state.zone, zone
                found = self._kept.look()
                if found.kind != sight.ABSENT:
                    return f'something is left{keeper.placed(zone)}: {found.said}'
                state.zone = before
        return ''

    def _absent(self) -> None:
        """Nothing is there: asks for it, when it is time, in the next zone where the last one had none."""
        job, state = self._kept.job, self._kept.job.state
        if state.launched:
            self._kept.over()
            state.not_before = self._kept.clock.now() + self._kept.delay()
            self._kept.say('the machines are gone: asks for others')
        if self._kept.clock.now() < state.not_before:
            self._kept.sleep(state.not_before - self._kept.clock.now())
            return
        zones = job.spec.zones or ('',)
        if state.move:
            state.zone, state.move = zones[(zones.index(state.zone) + 1) % len(zones)], False
        state.asked, state.asked_at, state.silent = True, self._kept.clock.now(), 0
        if not self._kept.target.KEEPS:
            self._kept.launched()
        job.save()
        self._kept.say(f'asks for {job.spec.accelerator or "machines"}{keeper.placed(state.zone)}')
        try:
            self._kept.target.request(job)
            state.refusals = 0
        except sight.Refusal as refusal:
            self._refused(refusal, len(zones))

    def _refused(self, refusal, zones) -> None:
        state = self._kept.job.state
        state.launched, state.move = False, True
        state.tried += 1
        if not refusal.capacity:
            state.refusals += 1
        if state.refusals >= self._kept.pace.failures:
            self._kept.end(attempt.WRONG, f'the request is refused: {refusal}')
            return
        self._kept.say(f'refused{keeper.placed(state.zone)}: {refusal}')
        if state.tried % zones == 0:  # all have been tried
            state.not_before = self._kept.clock.now() + self._kept.delay()
        self._kept.remove()  # one that was refused may be there all the same, or come late

    def _wait(self, found) -> None:
        """In a queue. With other zones to try it is left after a while."""
        state = self._kept.job.state
        waited = self._kept.clock.now() - state.asked_at
        useless = found.said.startswith('ACTIVE')  # granted, and nothing is there
        elsewhere = found.said != 'PROVISIONING' and len(self._kept.job.spec.zones) > 1
        if waited > self._kept.pace.queue and (useless or elsewhere):
            then = 'asks anew' if useless else 'tries the next zone'
            self._kept.say(f'{found.said} for {waited / 60:.0f} minutes{keeper.placed(state.zone)}: {then}')
            state.move = not useless
            self._kept.lost()
            state.not_before = 0.0
            return
        self._kept.say(f'{found.said}: {self._kept.words(found)}')
        self._kept.sleep(self._kept.pace.poll)
