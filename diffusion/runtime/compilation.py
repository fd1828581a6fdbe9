"""Compiled programs: kept on disk from one start to the next, and counted."""

import os

import jax
from jax import monitoring
from jax._src import compilation_cache, lru_cache

from diffusion.runtime import writer

REQUEST = '/jax/core/compile/backend_compile_duration'  # of every program, whether compiled or read
HIT = '/jax/compilation_cache/cache_hits'


class Tally:
    """What this process has asked XLA for: programs compiled, programs read from the cache, seconds for both."""

    def __init__(self):
        self.hits = self.requests = 0
        self.seconds = 0.0
        self.unkept = ''  # why no compiled program is kept, where none is
        monitoring.register_event_listener(self._event)
        monitoring.register_event_duration_secs_listener(self._duration)

    def _event(self, name, **_):
        self.hits += name == HIT

    def _duration(self, name, seconds, **_):
        if name == REQUEST:
            self.requests += 1
            self.seconds += seconds

    @property
    def missed(self) -> int:
        """Programs that had to be compiled."""
        return self.requests - self.hits

    def said(self) -> str:
        """'compile: 0 missed, 12 from the cache, 3 s', with a reason where nothing can be kept."""
        line = f'compile: {self.missed} missed, {self.hits} from the cache, {self.seconds:.2g} s'
        return line + (f' (nothing is kept: {self.unkept})' if self.unkept else '')


# One for the process, as JAX's own cache is; from its first import on.
TALLY = Tally()


class Whole(lru_cache.LRUCache):
    """JAX's cache, in which a file is there as a whole or not at all.

    JAX writes in place and lets a file stay that is there: what a killed process left half written would be read as
    broken, compiled anew and left as it is at every start, and a second process could read what a first still writes.
    """

    def put(self, key: str, value: bytes) -> None:
        if self.eviction_enabled:  # under a lock of its own
            super().put(key, value)
            return
        with writer.atomic(os.path.join(str(self.path), f'{key}-cache')) as file:
            file.write(value)


def cache(folder: str) -> None:
    """Keeps compiled programs in `folder`, so that the second start of the same job compiles nothing.

    Several processes may share it. Small programs are kept too: they are a few kB each, and compiling the thirty of a
    start anew takes longer than reading them. Where JAX has been told another folder (JAX_COMPILATION_CACHE_DIR), that
    one stays; where none can be written, nothing is kept, and `TALLY.said()` says so. Several processes on CPUs keep
    nothing either. Call when JAX's backend has started.
    """
    # XLA restores every collective of a CPU program with an order of its own ("communicator resource"), where the
    # compiled program shares one: the processes then run them in different orders, and Gloo aborts or mixes them up.
    if jax.process_count() > 1 and jax.default_backend() == 'cpu':
        jax.config.update('jax_enable_compilation_cache', False)
        compilation_cache.reset_cache()
        TALLY.unkept = 'XLA cannot restore a CPU program of several processes'
        return
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
    compilation_cache.LRUCache = Whole
    if jax.config.jax_compilation_cache_dir:
        return
    folder = os.path.abspath(folder)
    if _writable(folder):
        jax.config.update('jax_compilation_cache_dir', folder)
    else:
        TALLY.unkept = f'{folder} cannot be written'


def _writable(folder) -> bool:
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)
