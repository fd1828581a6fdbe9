"""`--dry-run`: the supervisor itself, on a cloud of paper where everything goes well; what it calls is printed instead.

So what is printed is what would be called, made by the same code, and nothing is asked of any cloud.
"""

import json
from collections.abc import Callable
from pathlib import Path

from launch import agent, hardware, memory, pace, shell, supervisor


class Paper:
    """Answers commands as clouds and hosts would. show: prints; where: what the folder of the rehearsal stands for."""

    def __init__(self, job: memory.Job, show: Callable[[str], None], where: tuple[str, str]):
        self.job, self.show, self.where = job, show, where
        self.there, self.started, self.seen = False, set(), set()

    def __call__(self, command: shell.Command) -> shell.Result:
        text = command.shown().replace(*self.where)
        if text not in self.seen:
            self.seen.add(text)
            again = ', again and again' if command.again else ''
            self.show(f'\n# {command.why}{again}')
            if command.cwd:
                self.show(f'cd {shell.quoted((command.cwd,))}'.replace(*self.where))
            self.show(text)
        return shell.Result(0, self._answer(command.argv))

    def _answer(self, argv) -> str:
        if argv[:4] == ('gcloud', 'compute', 'tpus', 'queued-resources'):
            return self._request(argv)
        if argv[:5] == ('gcloud', 'compute', 'tpus', 'tpu-vm', 'list'):
            name, count = self.job.spec.name, hardware.tpu(self.job.spec.accelerator).hosts
            node = {'name': name, 'state': 'READY', 'networkEndpoints': [{}] * count}
            return json.dumps([node] if self.there else [])
        if argv[0] == 'squeue':
            return f'1|RUNNING|{self.job.state.owner}\n' if self.there else ''
        if argv[0] == 'sbatch':
            self.there = True
            ended = self.job.folder / f'ended-{self.job.state.attempt}'
            ended.write_text('0\n', encoding='utf-8')
            return '1\n'
        if argv[0] == 'scancel':
            self.there = False
        if argv[0] == 'kubectl':
            return self._kubectl(argv)
        return self._host(' '.join(argv))

    def _request(self, argv):
        if argv[4] in ('create', 'delete'):
            self.there = argv[4] == 'create'
        return json.dumps([{'name': self.job.spec.name, 'state': {'state': 'ACTIVE'}}] if self.there else [])

    def _kubectl(self, argv):
        if argv[1] in ('create', 'delete'):
            self.there = argv[1] == 'create'
        if argv[1:3] == ('get', 'jobset') and self.there:
            owner = {'launched-by': self.job.state.owner}
            done = [{'type': 'Completed', 'status': 'True'}]
            return json.dumps({'metadata': {'labels': owner}, 'status': {'conditions': done}})
        if argv[1:3] == ('get', 'pods') and self.there:
            name = f'{self.job.spec.name}-job-0-0-abcde'
            return json.dumps({'items': [{'metadata': {'name': name}, 'status': {'phase': 'Running'}}]})
        return ''

    def _host(self, text):
        """Of the agent: none before it was started, done after."""
        host = text.partition('--host=')[2].split(' ')[0].strip("'")
        if ' start ' in text:
            self.started.add(host)
        state = {'state': 'ended', 'code': 0} if host in self.started else {'state': 'none'}
        return agent.MARK + json.dumps({'state': 'running'} if ' start ' in text else state) + '\n'


class Still(pace.Clock):
    """A clock that stands: on paper nothing takes time."""

    def now(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        pass


def rehearse(job: memory.Job, real: Path, show: Callable[[str], None]) -> int:
    """Runs the job on paper, in a folder that stands for the `real` one; prints what would be called and sent."""
    where = (str(job.folder.parent), str(real.parent))
    job.run = Paper(job, lambda text: show(text.replace(*where)), where)
    job.say, job.together = (lambda message: None), False
    code = supervisor.Supervisor(job, Still(), pace.Pace(), lambda: '', lambda host, text: None).run()
    for path in sorted(job.folder.glob('*job.json')):
        show(f'\n# {path.name}, what the agent on each host reads\n{path.read_text(encoding="utf-8")}'.replace(*where))
    return code
