"""`diffusion PROGRAM ...`: the one dispatcher."""

import contextlib
import importlib
import signal
import sys
import traceback

from diffusion import usage

PROGRAMS = {
    'train': 'train a model, or go on where a run stopped',
    'sample': 'draw pictures from a checkpoint',
    'evaluate': 'measure a checkpoint: bits per dimension, FID, KID, precision and recall',
    'edit': 'change pictures with a checkpoint: interpolate, invert',
    'checkpoint': 'look at, check and use checkpoints: show, verify, prove, ema',
    'data': 'look at a data set, store it, measure how fast it is read: check, build, bench',
    'plan': 'whether a run fits a slice of TPUs or GPUs that is not here, and what it costs there',
    'report': 'a run as one page of HTML that opens offline: curves, samples, metrics, incidents',
    'launch': 'run any of these on TPU VMs, GKE, Slurm or here, and look after it until it is done',
    'doctor': 'what is installed, what devices there are, what is missing',
}


def main(argv: list[str] | None = None) -> int:
    """Runs one program; returns its exit status: 0 done, 2 wrong call, 70 fault, 75 stopped with all saved."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ('-h', '--help'):
        width = max(map(len, PROGRAMS))
        lines = [f'  {name:{width}}  {what}' for name, what in PROGRAMS.items()]
        print('usage: diffusion PROGRAM ...   (diffusion PROGRAM --help for each)\n\n' + '\n'.join(lines))
        return 0 if argv else 2
    if argv[0] not in PROGRAMS:
        return _fail(usage.unknown('program', argv[0], PROGRAMS), 2)
    debug = '--debug' in argv
    try:
        if argv[0] != 'launch':  # which does without JAX
            from diffusion.runtime import platform

            platform.leave_out_absent()
        program = importlib.import_module(f'diffusion.programs.{argv[0]}')
        with _stopping_at_once(argv[0]):
            return program.main([word for word in argv[1:] if word != '--debug'])
    except usage.UsageError as error:
        if debug:
            traceback.print_exc()
        return _fail(str(error), 2)
    except usage.Fault as error:
        if debug:
            traceback.print_exc()
        return _fail(str(error), 70)
    except KeyboardInterrupt:
        return _fail('interrupted', 130)
    except Exception as error:
        if debug:
            traceback.print_exc()
        message = str(error).strip().split('\n')[0]
        return _fail(f'{type(error).__name__}: {message} (a fault inside; --debug shows where)', 70)


@contextlib.contextmanager
def _stopping_at_once(program: str):
    """SIGTERM ends a program that keeps no state, with the status that says: start it again. Those that keep some do
    better by themselves."""
    if program in ('train', 'launch'):
        yield
    else:
        from diffusion.runtime import preemption  # here, for it loads JAX, which a launch does without

        with preemption.listening(print, numbers=(signal.SIGTERM,)) as stop:
            stop.nothing_to_save('nothing to save, files that were written stay: the same command starts again')
            yield


def _fail(message: str, status: int) -> int:
    sys.stderr.write(f'diffusion: {message}\n')  # in one write: a thread that speaks too cannot come between
    return status


if __name__ == '__main__':
    sys.exit(main())
