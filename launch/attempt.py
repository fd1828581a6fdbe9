"""One attempt: the program on machines that are there, from its start to what its exit statuses mean."""

from launch import keeper, sight

WRONG, FAULT, STOPPED = 2, 70, 75  # exit statuses (docs/pods.md)
STATUSES = (0, 1, WRONG, 126, 127)  # after which the same again would end the same
DONE, FINAL, KILLED, SAVED, FAILED = 'done', 'final', 'killed, goes on', 'stopped with all saved, goes on', 'failed'


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


class Attempt:
    """The present one of a job."""

    def __init__(self, kept: keeper.Keeper):
        self._kept = kept

    def work(self) -> None:
        """Machines are there: starts the program where it is not, and sees how it is getting on."""
        state = self._kept.job.state
        if not state.launched:
            if self._kept.clock.now() < state.not_before:
                self._kept.sleep(state.not_before - self._kept.clock.now())
                return
            self._kept.launched()
        if not state.started:
            self._start()
            return
        workers = self._kept.read()
        if not workers or any(worker.state in ('none', 'busy') for worker in workers):
            state.started = False  # a host has been made anew: where the program runs it is not started a second time
            return
        if any(worker.state == 'silent' for worker in workers):
            self._silent(workers)
            return
        state.silent = 0
        ended = [worker for worker in workers if worker.state == 'ended']
        if not ended:
            self._kept.say(f'attempt {state.attempt} runs on {len(workers)} host(s)')
            self._kept.sleep(self._kept.pace.poll)
        elif any(worker.state == 'running' for worker in workers) and not self._lingered():
            self._kept.sleep(min(self._kept.pace.poll, 5.0))
        else:
            self._judge([worker.code for worker in ended])

    def _start(self) -> None:
        """Sets up and starts what is not: both may be done a second time where the first was broken off."""
        state = self._kept.job.state
        try:
            self._kept.target.prepare(self._kept.job)
            self._kept.target.start(self._kept.job)
            state.started, state.broken = True, 0
            self._kept.say(f'attempt {state.attempt} is started')
        except sight.Broken as broken:
            self._kept.say(str(broken))
            state.broken += 1
            self._failed(state.broken, str(broken))
            if state.outcome is None and self._kept.job.spec.target != 'local':
                self._kept.remove()  # a host that does not take the program is no use

    def _silent(self, workers) -> None:
        state = self._kept.job.state
        state.silent += 1
        said = next(worker.text for worker in workers if worker.state == 'silent')
        names = ', '.join(str(worker.host) for worker in workers if worker.state == 'silent')
        self._kept.say(f'host {names} does not answer: {said}')
        if state.silent >= self._kept.pace.silent:
            self._kept.lost()
        else:
            self._kept.sleep(self._kept.pace.poll)

    def _lingered(self) -> bool:
        """Whether the hosts that still run have had long enough since one ended; they are stopped then."""
        state = self._kept.job.state
        state.lingering = state.lingering or self._kept.clock.now()
        if self._kept.clock.now() - state.lingering < self._kept.pace.linger:
            return False
        self._kept.target.stop(self._kept.job)
        return True

    def _judge(self, codes: list[int]) -> None:
        """What the exit statuses of all hosts mean. One that is final decides; a kill says that a machine was lost."""
        state = self._kept.job.state
        said = ', '.join(map(str, codes))
        kind = verdict(codes)
        if kind in (DONE, FINAL):
            code = next((code for code in codes if code in STATUSES and code), 0)
            self._kept.end(code, 'done' if not code else f'ended with {said}: the same again would end the same')
            return
        self._kept.over()
        self._kept.say(f'attempt {state.attempt} ended with {said}: {kind}')
        if kind == FAILED:
            state.failures += 1
            self._failed(state.failures, f'exit status {said}')
        if state.outcome is None:
            self._again()

    def _failed(self, times: int, why: str) -> None:
        state = self._kept.job.state
        state.launched = False
        state.not_before = self._kept.clock.now() + self._kept.delay()
        if times >= self._kept.pace.failures:
            self._kept.end(FAULT, f'{times} failures in a row, the last: {why}')

    def _again(self) -> None:
        """The next attempt, after a while: on the same machines if these are still there then."""
        state = self._kept.job.state
        state.not_before = max(state.not_before, self._kept.clock.now() + self._kept.delay())
        if not self._kept.target.KEEPS:
            self._kept.remove()
