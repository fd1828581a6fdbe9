"""What runs on a host: unpacks the tree, installs it, starts the program once and says how it is getting on.

One file that any Python from 3.8 on runs by itself, for it is copied to hosts that have nothing else of this project.
A program is started at most once an attempt, and never beside another attempt: it holds a lock for as long as it, or
what it was started by, lives. Answers are single lines after MARK, for a connection may print what it likes.
"""

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time

MARK = 'launch-agent: '
CHUNK = 1 << 16  # bytes of the log in one answer
KILLED = -9  # the status of a program that has left none


def main(argv=None):
    parser = argparse.ArgumentParser()
    parser.add_argument('action', choices=('prepare', 'start', 'hold', 'poll', 'stop', 'main'))
    parser.add_argument('job', help='a JSON file: name, tree, archive, words, install, bucket, mount, setup, home')
    parser.add_argument('--attempt', type=int, default=0)
    parser.add_argument('--host', type=int, default=0)
    parser.add_argument('--offset', type=int, default=0)
    parser.add_argument('--grace', type=float, default=120.0)
    args = parser.parse_args(argv)
    with open(args.job, encoding='utf-8') as file:
        job = json.load(file)
    return globals()['do_' + args.action](job, args)


def say(**answer):
    sys.stdout.write(MARK + json.dumps(answer) + '\n')
    sys.stdout.flush()


def home(job):
    return os.path.join(os.path.expanduser(job['home']), job['name'])


def tree(job):
    return os.path.join(home(job), 'tree-' + job['tree'])


def place(job, args):
    return os.path.join(home(job), f'host-{args.host}')


def python(job):
    return job.get('python') or os.path.join(tree(job), '.venv', 'bin', 'python')


def do_prepare(job, args):
    """Everything that a start needs; what is there already is left as it is."""
    root = tree(job)
    if job.get('bucket'):
        mount(job['bucket'], job['mount'])
    if not os.path.isdir(root):
        beside = f'{root}.{os.getpid()}.tmp'
        os.makedirs(beside)
        with tarfile.open(os.path.expanduser(job['archive'])) as packed:
            if hasattr(tarfile, 'data_filter'):
                packed.extractall(beside, filter='data')
            else:
                packed.extractall(beside)
        try:
            os.rename(beside, root)
        except OSError:  # another process on this host was first
            shutil.rmtree(beside)
    done = os.path.join(root, '.launch-ready')
    if not os.path.exists(done):
        if job.get('setup'):
            called(['bash', job['setup']], root)
        if job.get('install'):
            install(root, job['install'])
        open(done, 'w').close()
    say(ready=job['tree'])
    return 0


def install(root, extra):
    """Into an environment of its own. A Python older than 3.11 fetches a newer one through uv."""
    venv = os.path.join(root, '.venv')
    what = f'.[{extra}]'
    if sys.version_info >= (3, 11):  # noqa: UP036 (a host may have an older one)
        called([sys.executable, '-m', 'venv', venv], root)
        called([os.path.join(venv, 'bin', 'python'), '-m', 'pip', 'install', '--quiet', what], root)
    else:
        called([sys.executable, '-m', 'pip', 'install', '--quiet', '--user', 'uv'], root)
        called([sys.executable, '-m', 'uv', 'venv', '--python', '3.12', venv], root)
        binary = os.path.join(venv, 'bin', 'python')
        called([sys.executable, '-m', 'uv', 'pip', 'install', '--quiet', '--python', binary, what], root)


def mount(bucket, point):
    """Through Cloud Storage FUSE, with renames of folders, by which a checkpoint gets its name."""
    os.makedirs(point, exist_ok=True)
    if os.path.ismount(point):
        return
    if not shutil.which('gcsfuse'):
        with open('/etc/os-release') as file:
            release = dict(line.rstrip().split('=', 1) for line in file if '=' in line)
        code = release.get('VERSION_CODENAME', '').strip('"')
        key = '/usr/share/keyrings/cloud.google.asc'
        source = f'deb [signed-by={key}] https://packages.cloud.google.com/apt gcsfuse-{code} main\n'
        called(['sudo', 'curl', '-fsSL', '-o', key, 'https://packages.cloud.google.com/apt/doc/apt-key.gpg'], None)
        called(['sudo', 'tee', '/etc/apt/sources.list.d/gcsfuse.list'], None, source)
        called(['sudo', 'apt-get', '-q', 'update'], None)
        called(['sudo', 'apt-get', '-qy', 'install', 'gcsfuse'], None)
    called(['gcsfuse', '--implicit-dirs', '--rename-dir-limit=1000000', bucket, point], None)


def called(argv, cwd, text=None):
    done = subprocess.run(argv, cwd=cwd, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding='utf-8')
    if done.returncode:
        last = (done.stdout.strip().splitlines() or ['nothing'])[-1]
        say(error=f'{argv[0]}: exit status {done.returncode}: {last[:500]}')
        sys.exit(1)


def taken(folder):
    """The lock of a host's program as an open file, or None where it is held."""
    file = os.open(os.path.join(folder, 'lock'), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return None
    return file


def read(path):
    try:
        with open(path, encoding='utf-8') as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def write(path, value):
    with open(path + '.tmp', 'w', encoding='utf-8') as file:
        json.dump(value, file)
    os.replace(path + '.tmp', path)


def seen(folder, attempt):
    """(state, exit status) of an attempt: none, busy (another one runs), running or ended."""
    if not os.path.isdir(folder):
        return 'none', None
    lock = taken(folder)
    if lock is not None:
        os.close(lock)
    running = lock is None
    if read(os.path.join(folder, 'attempt')).get('attempt') != attempt:
        return ('busy' if running else 'none'), None
    ended = read(os.path.join(folder, 'ended'))
    if ended.get('attempt') == attempt and not running:
        return 'ended', ended['code']
    return ('running', None) if running else ('ended', KILLED)


def do_start(job, args):
    """Starts the attempt unless it was; reads further variables of its environment as JSON from the standard input."""
    folder = place(job, args)
    os.makedirs(folder, exist_ok=True)
    state, _ = seen(folder, args.attempt)
    if state == 'none':
        text = sys.stdin.read()
        environment = dict(os.environ, **(json.loads(text) if text.strip() else {}))
        flags = [f'--attempt={args.attempt}', f'--host={args.host}']
        call = [sys.executable, os.path.abspath(__file__), 'hold', os.path.abspath(args.job), *flags]
        with open(os.path.join(folder, 'holder.log'), 'ab') as log:
            subprocess.Popen(
                call, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + 20
        while state in ('none', 'busy') and time.monotonic() < end:
            time.sleep(0.05)
            state, _ = seen(folder, args.attempt)
    say(state=state, host=args.host)
    return 0 if state in ('running', 'ended') else 1


def do_hold(job, args):
    """Runs the program, holding the lock, and writes down how it ended."""
    folder = place(job, args)
    lock = taken(folder)
    if lock is None:
        return 1
    before = read(os.path.join(folder, 'attempt')).get('attempt')
    if before == args.attempt:
        return 1  # a second start of the same attempt came too late
    write(os.path.join(folder, 'attempt'), {'attempt': args.attempt, 'pid': 0})
    with open(os.path.join(folder, f'log-{args.attempt}'), 'ab') as log:
        program = subprocess.Popen(
            [python(job), '-m', 'diffusion.cli', *job['words']],
            cwd=tree(job),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(lock,),
            start_new_session=True,
        )
    write(os.path.join(folder, 'attempt'), {'attempt': args.attempt, 'pid': program.pid})
    code = program.wait()
    write(os.path.join(folder, 'ended'), {'attempt': args.attempt, 'code': code})
    return 0


def do_poll(job, args):
    folder = place(job, args)
    state, code = seen(folder, args.attempt)
    text, offset = b'', args.offset
    path = os.path.join(folder, f'log-{args.attempt}')
    if os.path.exists(path):
        with open(path, 'rb') as log:
            log.seek(offset)
            text = log.read(CHUNK)
        if len(text) == CHUNK:
            state, code = ('running', None) if state == 'ended' else (state, code)  # there is more to be read first
        elif state == 'running':
            text = text[: text.rfind(b'\n') + 1]
    say(state=state, code=code, host=args.host, offset=offset + len(text), log=text.decode('utf-8', 'replace'))
    return 0


def do_stop(job, args):
    """Asks the program to save and end; ends it where it has not within the grace."""
    folder = place(job, args)
    running = read(os.path.join(folder, 'attempt'))
    state, code = seen(folder, running.get('attempt', 0))
    if state == 'running':
        send(running['pid'], signal.SIGTERM, False)
        end = time.monotonic() + args.grace
        while state == 'running' and time.monotonic() < end:
            time.sleep(0.2)
            state, code = seen(folder, running['attempt'])
        if state == 'running':
            send(running['pid'], signal.SIGKILL, True)
            time.sleep(1.0)
            state, code = seen(folder, running['attempt'])
    say(state=state, code=code, host=args.host)
    return 0


def send(pid, number, group):
    if not pid:
        return  # it is being started at this moment: the next to ask will find it
    with contextlib.suppress(ProcessLookupError):
        (os.killpg if group else os.kill)(pid, number)


def do_main(job, args):
    """Prepares and becomes the program: for a host that something else starts and watches, as a pod."""
    do_prepare(job, args)
    os.chdir(tree(job))
    os.execv(python(job), [python(job), '-m', 'diffusion.cli', *job['words']])


if __name__ == '__main__':
    sys.exit(main())
