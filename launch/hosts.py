"""Hosts that run `agent.py`: what its calls are and what its answers mean. Rented machines and this one alike."""

import concurrent.futures
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from launch import agent, memory, shell, sight
from launch import job as jobs

AGENT = Path(agent.__file__)
PATIENCE = 150.0  # s that a program has to save when it is asked to end
Call = Callable[..., shell.Command]  # (host, words of the agent, why, **fields of the command)


def describe(spec: jobs.Spec, **more) -> str:
    """The agent's job file."""
    known = dict(
        name=spec.name,
        tree=spec.tree,
        archive='launch-tree.tar.gz',
        words=list(jobs.with_workdir(spec.words, spec.workdir)),
        install='',
        bucket=spec.bucket,
        mount=jobs.MOUNT,
        setup=spec.setup,
        home='~/launch',
    )
    return json.dumps({**known, **more}, indent=1, ensure_ascii=False) + '\n'


def each(job: memory.Job, commands: list[shell.Command]) -> list[shell.Result]:
    """All at once, for hosts take seconds to answer; in order where it is only a rehearsal."""
    if len(commands) == 1 or not job.together:
        return [job.run(command) for command in commands]
    with concurrent.futures.ThreadPoolExecutor(min(len(commands), 32)) as pool:
        return list(pool.map(job.run, commands))


def start(job: memory.Job, call: Call, environment: Callable[[int], Mapping[str, str]] = lambda host: {}) -> None:
    """Starts the attempt on every host where it is not. Raises sight.Broken where one does not take it."""
    names = job.spec.secrets

    def command(host):
        def text(values):
            return json.dumps({**environment(host), **values}, ensure_ascii=False)

        words = ('start', f'--attempt={job.state.attempt}', f'--host={host}')
        stdin = text if names or environment(host) else ''
        return call(host, words, 'starts the program', stdin=stdin, secrets=names)

    commands = [command(host) for host in range(job.state.hosts)]
    results = each(job, commands)
    if any(answer(result).get('state') == 'busy' for result in results):
        stop(job, call)  # an older attempt, of which the memory was lost, still runs: never two
        results = each(job, commands)
    for host, result in enumerate(results):
        if answer(result).get('state') not in ('running', 'ended'):
            raise sight.Broken(f'host {host} does not start the program: {fault(result)}')


def poll(job: memory.Job, call: Call) -> list[sight.Worker]:
    def command(host):
        offset = job.state.read.get(str(host), 0)
        words = ('poll', f'--attempt={job.state.attempt}', f'--host={host}', f'--offset={offset}')
        return call(host, words, 'is it running, and what does it say', again=True)

    workers = []
    for host, result in enumerate(each(job, [command(host) for host in range(job.state.hosts)])):
        found = answer(result)
        if 'state' not in found:
            workers.append(sight.Worker(host, 'silent', None, fault(result)))
            continue
        job.state.read[str(host)] = found.get('offset', 0)
        workers.append(sight.Worker(host, found['state'], found.get('code'), found.get('log', '')))
    return workers


def stop(job: memory.Job, call: Call) -> None:
    """Asks all at once, for they save together, and waits until they have."""
    words = ('stop', f'--grace={PATIENCE:g}')
    why = 'asks the program to save and end'
    commands = [call(host, (*words, f'--host={host}'), why, timeout=PATIENCE + 60) for host in range(job.state.hosts)]
    each(job, commands)


def answer(result: shell.Result) -> dict:
    """The last answer of the agent in all that was printed, {} where there is none."""
    lines = [line for line in result.out.splitlines() if line.startswith(agent.MARK)]
    try:
        found = json.loads(lines[-1].removeprefix(agent.MARK)) if lines else {}
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def fault(result: shell.Result) -> str:
    return answer(result).get('error') or result.said
