"""`diffusion launch`: run a command on rented machines, a cluster or here, and look after it until it is done."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from diffusion import usage
from launch import job as jobs
from launch import memory, options, overview, pace, rehearsal, shell, supervisor

COMMANDS = {
    **options.ABOUT,
    'status': 'how each job is, in words, and what to do next',
    'logs': 'what the hosts have said, each line with its host',
    'stop': 'let a job save and end, remove its machines, and see that they are gone',
    'resume': 'supervise a job again whose supervisor was killed',
    'ls': 'all jobs; with --all-zones everything that still bills, wherever it came from',
}


def main(argv: list[str]) -> int:
    """Exit status: the program's; 75 stopped with all saved; 70 given up; 2 wrong call. Nothing is left in any case."""
    words, dashes, program = list(argv), '--' in argv, ()
    if dashes:
        at = argv.index('--')
        words, program = argv[:at], tuple(argv[at + 1 :])
    if not words or words[0] in ('-h', '--help'):
        width = max(map(len, COMMANDS))
        lines = [f'  {name:{width}}  {what}' for name, what in COMMANDS.items()]
        print('usage: diffusion launch TARGET ... -- train --config=FILE\n\n' + '\n'.join(lines))
        return 0 if words else 2
    if words[0] not in COMMANDS:
        raise usage.UsageError(usage.unknown('target or command', words[0], COMMANDS))
    if words[0] in options.ABOUT:
        return _launch(words[0], words[1:], program)
    if dashes:
        raise usage.UsageError(f'launch {words[0]} takes no -- and nothing behind it')
    return {'status': _status, 'logs': _logs, 'stop': _stop, 'resume': _resume, 'ls': _ls}[words[0]](words[1:])


def _launch(target, words, program) -> int:
    args, _ = options.parser(target).parse(words)
    if args.dry_run:
        return _rehearse(target, args, program)
    spec = options.spec(target, args, program, memory.root())
    folder = options.folder(spec.name)
    with memory.held(_made(folder)):
        state = memory.create(spec, folder)
        job = memory.Job(spec, state, folder, shell.run, _said(folder))
        job.save()
        if not args.detach:
            return supervise(job)
    return _detached(folder)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _rehearse(target, args, program) -> int:
    with tempfile.TemporaryDirectory() as place:
        spec = options.spec(target, args, program, Path(place))
        real = options.folder(spec.name)
        folder = _made(Path(place) / spec.name)
        print(f'# {spec.name}: diffusion {shell.quoted(spec.words)}')
        print(f'# tree {spec.tree}, {_size(Path(place) / "trees")} packed; nothing of this is called now')
        state = memory.State(owner=memory.owner(real))
        with _home(place):
            rehearsal.rehearse(memory.Job(spec, state, folder, shell.run, print), real, print)
    return 0


def _size(folder):
    size = sum(path.stat().st_size for path in folder.iterdir())
    return f'{size / 2**20:.1f} MB' if size >= 2**20 else f'{size / 1024:.0f} kB'


@contextlib.contextmanager
def _home(place):
    before = os.environ.get('DIFFUSION_LAUNCH_HOME')
    os.environ['DIFFUSION_LAUNCH_HOME'] = place
    try:
        yield
    finally:
        if before is None:
            del os.environ['DIFFUSION_LAUNCH_HOME']
        else:
            os.environ['DIFFUSION_LAUNCH_HOME'] = before


def _said(folder):
    """Speaks on the terminal, and into the log of the job with the time."""

    def say(message):
        print(f'launch: {message}', file=sys.stderr, flush=True)
        _note(folder, f'{time.strftime("%F %T")} launch: {message}\n')

    return say


def _note(folder, text):
    with open(folder / 'log', 'a', encoding='utf-8') as log:
        log.write(text)


def supervise(job: memory.Job, why: str = '') -> int:
    """Until the job is over. SIGINT, SIGTERM, SIGHUP and `launch stop` let it save, and remove its machines."""
    clock, asked = pace.Clock(), [why]
    (job.folder / 'stop').unlink(missing_ok=True)

    def heard(number, frame):
        if asked[0]:
            raise KeyboardInterrupt
        asked[0] = f'{signal.Signals(number).name} (again: leave everything as it is)'
        clock.woken.set()

    def wanted():
        return asked[0] or ('asked to stop' if (job.folder / 'stop').exists() else '')

    def show(host, text):
        prefix = '' if job.spec.target == 'slurm' else f'[{host}] '
        text = options.scrubbed(text, job.spec.secrets)
        lines = ''.join(f'{prefix}{line}\n' for line in text.splitlines())
        sys.stdout.write(lines)
        sys.stdout.flush()
        _note(job.folder, lines)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, heard) for number in numbers]
    try:
        return supervisor.Supervisor(job, clock, pace.Pace(poll=_poll(job)), wanted, show).run()
    except KeyboardInterrupt:
        job.say(
            f'left as it is, machines may be billed: diffusion launch resume {job.spec.name}, or stop {job.spec.name}'
        )
        raise
    finally:
        (job.folder / 'stop').unlink(missing_ok=True)
        for number, handler in zip(numbers, before):
            signal.signal(number, handler)


def _poll(job):
    return 1.0 if job.spec.target == 'local' else pace.Pace.poll


def _detached(folder) -> int:
    # The program that runs here, whatever package of its name lies in the current folder.
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get('PYTHONPATH')])]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(paths)}
    call = [sys.executable, '-P', '-m', 'diffusion.cli', 'launch', 'resume', folder.name]
    with open(folder / 'supervisor.log', 'ab') as log:
        started = subprocess.Popen(
            call, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    while started.poll() is None and not memory.supervised(folder):
        time.sleep(0.1)
    if started.poll():
        lines = (folder / 'supervisor.log').read_text(encoding='utf-8').strip().splitlines()
        raise usage.Fault(
            f'the supervisor ended with {started.returncode}: {lines[-1] if lines else "it said nothing"}'
        )
    print(f'supervised in the background: diffusion launch logs {folder.name} --follow')
    return 0


def _job(folder) -> memory.Job:
    spec = memory.spec_of(folder)
    state = memory.load(folder)
    if state is None:
        raise usage.UsageError(f'the job {spec.name} has never begun')
    return memory.Job(spec, state, folder, shell.run, _said(folder))


def _resume(words) -> int:
    parser = usage.Parser('launch resume', COMMANDS['resume'])
    parser.add_argument('name')
    args, _ = parser.parse(words)
    folder = options.folder(args.name)
    job = _job(folder)
    with memory.held(folder):
        job = _job(folder)
        if job.state.outcome is not None and not job.state.removing:
            raise usage.UsageError(f'{args.name} is over ({job.state.outcome[1]}): give its first call again')
        options.check_secrets(job.spec)
        return supervise(job)


def _stop(words) -> int:
    parser = usage.Parser('launch stop', COMMANDS['stop'])
    parser.add_argument('name')
    args, _ = parser.parse(words)
    folder = options.folder(args.name)
    _job(folder)
    if memory.supervised(folder):
        (folder / 'stop').touch()
        print(f'launch: asked the supervisor of {args.name}; waits until nothing is left (Ctrl-C: do not wait)')
        while memory.supervised(folder):
            time.sleep(0.5)
        job = _job(folder)
    else:
        with memory.held(folder):
            job = _job(folder)
            if job.state.outcome is not None and not job.state.removing:
                print(f'launch: {args.name} is over: {job.state.outcome[1]}')
                return 0
            supervise(job, 'asked to stop')
    return 0 if job.state.outcome is not None and not job.state.removing else 70


def _logs(words) -> int:
    parser = usage.Parser('launch logs', COMMANDS['logs'])
    parser.add_argument('name')
    parser.add_argument('--follow', action='store_true', help='go on until the job is over')
    args, _ = parser.parse(words)
    folder = options.folder(args.name)
    memory.spec_of(folder)
    path = folder / 'log'
    if not path.exists() and not args.follow:
        raise usage.UsageError(f'{args.name} has said nothing yet')
    at = 0
    while True:
        alive = args.follow and memory.supervised(folder)
        if path.exists():
            with open(path, encoding='utf-8') as log:
                log.seek(at)
                shutil.copyfileobj(log, sys.stdout)
                at = log.tell()
        sys.stdout.flush()
        if not alive:
            return 0
        time.sleep(0.5)


def _status(words) -> int:
    parser = usage.Parser('launch status', COMMANDS['status'])
    parser.add_argument('name', nargs='?', help='default: all that are not over')
    args, _ = parser.parse(words)
    if args.name:
        print(overview.status(_job(options.folder(args.name))))
        return 0
    going = [folder for folder in overview.folders() if not overview.over(folder)]
    print('\n\n'.join(overview.status(_job(folder)) for folder in going) or 'no job is going on')
    return 0


def _ls(words) -> int:
    parser = usage.Parser('launch ls', COMMANDS['ls'])
    parser.add_argument('--all-zones', action='store_true', help='ask every cloud for whatever is there')
    parser.add_argument('--project', default='', help="default: gcloud's own")
    args, _ = parser.parse(words)
    if args.project and not jobs.PLAIN.fullmatch(args.project):
        raise usage.UsageError(f'--project={args.project!r} cannot be one')
    if not args.all_zones:
        print(overview.jobs_table())
        return 0
    text, whole = overview.billed(shell.run, args.project)
    print(text)
    return 0 if whole else 1
