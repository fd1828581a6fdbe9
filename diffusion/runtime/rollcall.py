"""The roll call before a job begins: every process reports to process 0, which tells all of them who is missing or
different. Over plain sockets, since JAX's own start can only hang or time out without a name.

The connections then stay open, as `Links`: a process that is gone is missed at once, and `agreement` runs over them.
Nothing received is more than JSON, and none of it is acted on beyond what `agreement` defines; like JAX's coordinator
the port authenticates nobody and must not face the outside.
"""

import collections
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable

LONGEST = 2**16  # bytes of a message
MARGIN = 10.0  # s that a process waits for the verdict of process 0 beyond the deadline


class RollCallError(Exception):
    """A process is missing or different; the message names it."""


class Links:
    """Process 0's connections with all others, another one's with process 0. `others`: process to host name."""

    def __init__(self, process: int, count: int, sockets: dict[int, socket.socket], others: dict[int, str]):
        self.process, self.count, self.others = process, count, others
        self._sockets = sockets
        self._files = {peer: each.makefile('rb') for peer, each in sockets.items()}
        self._lock, self._closed = threading.Lock(), False

    def send(self, peer: int, message: dict) -> None:
        """To one that may be gone, which `listen` tells."""
        with contextlib.suppress(OSError), self._lock:
            self._sockets[peer].sendall(json.dumps(message).encode() + b'\n')

    def compare(self, what: dict, deadline: float) -> None:
        """Returns on every process when all have reported the same, JSON values by name, within deadline, in s.
        Raises RollCallError on every process otherwise."""
        end = time.monotonic() + deadline
        if self.process:
            self.send(0, what)
            verdict = self._receive(0, end + MARGIN)
            if verdict is None:
                raise RollCallError(f'host 0 has not answered after {deadline:.0f} s: see what it says')
        else:
            found = {0: what} | {peer: self._receive(peer, end) for peer in sorted(self._sockets)}
            verdict = judged(found, self.others, deadline)
            for peer in self._sockets:
                self.send(peer, verdict)
        if verdict['error']:
            raise RollCallError(verdict['error'])

    def _receive(self, peer, end):
        try:
            self._sockets[peer].settimeout(max(end - time.monotonic(), 0.01))
            return _parsed(self._files[peer].readline(LONGEST))
        except OSError:
            return None

    def listen(self, heard: Callable[[int, dict], None], lost: Callable[[int], None]) -> None:
        """From now on each message goes to heard(process, message), and a process that is gone to lost(process)."""
        for peer in self._sockets:
            threading.Thread(target=self._hear, args=(peer, heard, lost), daemon=True).start()

    def _hear(self, peer, heard, lost):
        self._sockets[peer].settimeout(None)
        while True:
            try:
                message = _parsed(self._files[peer].readline(LONGEST))
            except (OSError, ValueError):
                message = None
            if message is None or message.get('bye'):
                break
            heard(peer, message)
        if message is None and not self._closed:
            lost(peer)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.close(farewell=kind is None)

    def close(self, farewell: bool = True) -> None:
        """farewell: without alarm on the other side; a process that an error ends says none."""
        self._closed = True
        for peer, each in self._sockets.items():
            if farewell:
                self.send(peer, {'bye': True})
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)  # closed alone it would live on in the reader's file
            each.close()


def assemble(address: str, process: int, count: int, report: dict, deadline: float) -> Links:
    """Returns when all of `count` processes have reported the same at process 0's address 'host:port'.

    report: JSON values by name, as {'jaxlib': '0.10.2'}; deadline: in s. Raises RollCallError on every process, within
    the deadline (and MARGIN, where process 0 itself is missing), with the one that is missing or different by name.
    """
    host, _, port = address.rpartition(':')
    end = time.monotonic() + deadline
    hello = {'process': process, 'host': socket.gethostname()}
    if process:
        sockets, others = {0: _connected(host, int(port), hello, deadline, end)}, {0: host}
    else:
        sockets, others = _accepted(int(port), count, end)
        others[0] = hello['host']
    links = Links(process, count, sockets, others)
    try:
        if not process:
            missing = sorted(set(range(1, count)) - set(sockets))
            if missing:
                raise RollCallError(absent(missing, count, deadline))
        links.compare(report, max(end - time.monotonic(), 1.0) if process else end - time.monotonic() + 1.0)
    except RollCallError as error:
        for peer in sockets if not process else ():
            links.send(peer, {'error': str(error)})
        links.close()
        raise
    return links


def _connected(host, port, hello, deadline, end):
    """A connection with process 0, which may not be there yet."""
    why = ''
    while time.monotonic() < end:
        try:
            found = socket.create_connection((host, port), timeout=max(end - time.monotonic(), 0.1))
            _keep(found)
            found.sendall(json.dumps(hello).encode() + b'\n')
            return found
        except OSError as error:
            why = f' ({error})'
            time.sleep(0.2)
    raise RollCallError(f'host 0 cannot be reached at {host}:{port} after {deadline:.0f} s{why}')


def _accepted(port, count, end):
    """The sockets of the processes that said hello by the end, and their hosts."""
    sockets, hosts = {}, {}
    with socket.create_server(('', port), backlog=count) as server:
        while len(sockets) < count - 1 and time.monotonic() < end:
            server.settimeout(max(end - time.monotonic(), 0.01))
            try:
                each, address = server.accept()
            except TimeoutError:
                break
            _keep(each)
            each.settimeout(2.0)
            hello = _hello(each)
            if hello and 0 < hello['process'] < count and hello['process'] not in sockets:
                sockets[hello['process']], hosts[hello['process']] = each, f'{hello["host"]}'
            else:
                _refuse(each, hello, count, hosts, address)
    return sockets, hosts


def _refuse(each, hello, count, hosts, address):
    """Tells one that cannot be part of the job why, where it spoke the language at all."""
    if hello:
        number = hello['process']
        twice = f'process {number} has reported already, from {hosts[number]}' if number in hosts else ''
        why = twice or f'there is no process {number} among {count}'
        with contextlib.suppress(OSError):
            each.sendall(json.dumps({'error': f'host {address[0]}: {why}'}).encode() + b'\n')
    each.close()


def _hello(each):
    """Read by the byte: what follows belongs to the reader of the connection."""
    line = b''
    try:
        while not line.endswith(b'\n') and len(line) < 1000:
            more = each.recv(1)
            if not more:
                return None
            line += more
        found = _parsed(line)
        return found if found and isinstance(found.get('process'), int) else None
    except OSError:
        return None


def _parsed(line: bytes) -> dict | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _keep(each):
    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    each.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def absent(missing: list[int], count: int, deadline: float) -> str:
    """'host 3 of 4 has not reported after 60 s'."""
    several = len(missing) > 1
    listed = ', '.join(map(str, missing))
    return (
        f'host{"s" if several else ""} {listed} of {count} {"have" if several else "has"} not reported after '
        f'{deadline:.0f} s: start the same command on every host, with the same port open between them'
    )


def judged(found: dict[int, dict | None], hosts: dict[int, str], deadline: float) -> dict:
    """{'error': None, or what is wrong with whom}. found: the report of each process, None where none came."""
    missing = [process for process, report in found.items() if report is None]
    if missing:
        return {'error': absent(missing, len(found), deadline)}
    wrong = []
    for name in found[0]:
        values = {process: json.dumps(report.get(name)) for process, report in found.items()}
        # Of two groups as large as each other, the one of host 0 is right.
        common = collections.Counter(values.values()).most_common()
        right = values[0] if common[0][1] == list(values.values()).count(values[0]) else common[0][0]
        for process, value in values.items():
            if value != right:
                who = f'host {process} ({hosts.get(process, "?")})'
                wrong.append(f'{who} runs {name} {json.loads(value)}, the others {json.loads(right)}')
    return {'error': '; '.join(wrong) or None}
