"""Load in short slices from this process, for differences that are smaller than what a busy machine does to a round.

wrk's rounds last seconds, and in that time the machine's other work comes and goes. Slices of a fraction of a second,
to one server after the other and round again, meet the same weather; and the scheduler's own account of processor time
is exact to the nanosecond, where a process' clock ticks a hundred times a second.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from pathlib import Path
from typing import Final, Self

from benchmarks import BenchmarkError
from benchmarks.servers import Server, session
from benchmarks.works import Call

CONNECTIONS: Final = 8
_LIMIT_SECONDS: Final = 10.0


class Slices:
    """Connections to a server that are kept, each with one request under way during a slice; a context manager.

    Parameters
    ----------
    server : Server
        Who is asked.
    call : Call
        What is asked, always the same.
    """

    def __init__(self, server: Server, call: Call) -> None:
        head = [f"POST {call.path} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", f"Content-Length: {len(call.body)}"]
        head += [f"{name}: {value}" for name, value in call.headers.items()]
        self._request = "\r\n".join([*head, "", ""]).encode() + call.body
        self._server = server
        self._selector = selectors.DefaultSelector()
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        for _ in range(CONNECTIONS):
            self._connect()
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._sockets:
            connection.close()
        self._selector.close()

    def ask(self, count: int) -> float:
        """Ask so often, and return how many seconds it took.

        Raises
        ------
        BenchmarkError
            When an answer is not a good one, or doesn't come.
        """
        sent = answered = 0
        started = time.perf_counter()
        for idle in self._sockets[:count]:
            idle.sendall(self._request)
            sent += 1
        while answered < count:
            ready = self._selector.select(_LIMIT_SECONDS)
            if not ready:
                raise BenchmarkError(f"{self._server.url}: no answer in {_LIMIT_SECONDS:g} s")
            for key, _ in ready:
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                self._take(connection)
                answered += 1
                if sent < count:
                    connection.sendall(self._request)
                    sent += 1
        return time.perf_counter() - started

    def _connect(self) -> None:
        connection = socket.create_connection(("127.0.0.1", self._server.port), timeout=_LIMIT_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sockets.append(connection)
        self._selector.register(connection, selectors.EVENT_READ)

    def _take(self, connection: socket.socket) -> None:
        """Read one answer; ours come in one piece or two."""
        data = connection.recv(65536)
        while b"\r\n\r\n" not in data or len(data) < _whole(data):
            more = connection.recv(65536)
            if not more:
                raise BenchmarkError(f"{self._server.url} hung up after {data[:80]!r}")
            data += more
        if not data.startswith(b"HTTP/1.1 200 "):
            raise BenchmarkError(f"{self._server.url}: {data[:80]!r}")


def processor_seconds(server: Server) -> float:
    """Return the processor time of all threads of all its processes that are alive, exact to the nanosecond."""
    total = 0
    for pid in session(server.pid):
        # A thread may end in between.
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def _whole(data: bytes) -> int:
    """Return an answer's size, of which the head has come."""
    head, _, _ = data.partition(b"\r\n\r\n")
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return len(head) + 4 + int(value)
    raise BenchmarkError(f"an answer without a length: {head[:80]!r}")
