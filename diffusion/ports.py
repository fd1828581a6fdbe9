"""Ports of this machine for a job of several processes: JAX's coordinator on one, the roll call beside it."""

import errno
import random
import socket

# Below what Linux (32768), macOS and Windows (49152) give to whoever asks for any port: one from there could go to
# another program between the look and the use, as happens where several jobs start at once.
FIRST, LAST = 20_000, 32_768


def free_pair() -> int:
    """An even port P that is free now, as P + 1 is. Raises OSError where none of a thousand tried was."""
    for port in random.SystemRandom().sample(range(FIRST, LAST, 2), 1000):
        if not taken(port) and not taken(port + 1):
            return port
    raise OSError(errno.EADDRINUSE, f'no two free ports between {FIRST} and {LAST}')


def taken(port: int) -> bool:
    """Whether another program of this machine listens there, on any of its addresses."""
    try:
        socket.create_server(('', port)).close()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return True
    return False
