"""``/metrics`` on a port of its own, by a companion: it answers while all workers are busy, or stuck.

Nothing else is there, and no ingress leads to it. One thread serves it, connection by connection is closed after its
answer, and whoever is slow, or one too many, is cut off: a scrape takes some milliseconds and comes every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Final

from prometheus_client.registry import Collector

from muelle.errors import SettingsError
from service.companions import Companion
from service.metrics import exposed
from service.procfs import ProcessGroup
from service.slots import SlotValues

_log = logging.getLogger(__name__)

NAME: Final = "metrics"
PATH: Final = "/metrics"
#: For a request to come whole, and for its answer to be taken, each; Prometheus itself waits for ten by default.
_PATIENCE_SECONDS: Final = 5.0
_HEAD_BYTES: Final = 16_384
_MAX_CONNECTIONS: Final = 16
_REASONS: Final = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 500: "Internal Error"}


def metrics_companion(host: str, port: int, directory: Path) -> Companion:
    """Listen, and return the companion that serves the metrics there; called in the arbiter.

    Parameters
    ----------
    host : str
        Name or address to listen on.
    port : int
        TCP port.
    directory : Path
        The metrics folder.

    Raises
    ------
    SettingsError
        When the port can't be had.
    """
    listener = listen(host, port)
    return Companion(NAME, partial(serve, listener, directory), (listener,))


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises
    ------
    SettingsError
        When the port can't be had.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # "::" stands for all addresses, as it does for the other port.
        both = address[0] == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(address[:2], family=family, backlog=_MAX_CONNECTIONS, dualstack_ipv6=both)
    except OSError as error:
        # create_server adds the address to the words, and a name that can't be found has words of its own.
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise SettingsError(
            f"MUELLE_METRICS_PORT: expected a port that is free on {host}, got {port}: {reason}"
        ) from error


def serve(listener: socket.socket, directory: Path, stop: threading.Event) -> None:
    """Answer until told to stop; in the companion.

    Parameters
    ----------
    listener : socket
        Listens already.
    directory : Path
        The metrics folder.
    stop : Event
        Set when it is time to end.
    """
    collectors = (SlotValues(directory), ProcessGroup(directory, os.getppid()))
    asyncio.run(_Server(collectors).run(listener, stop))


class _Server:
    """The answers; everything runs in one thread."""

    def __init__(self, collectors: Iterable[Collector]) -> None:
        self._collectors = tuple(collectors)
        self._connections = 0

    async def run(self, listener: socket.socket, stop: threading.Event) -> None:
        server = await asyncio.start_server(self._connected, sock=listener, limit=_HEAD_BYTES)
        await asyncio.to_thread(stop.wait)
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= _MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._connections += 1
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                try:
                    head = await reader.readuntil(b"\r\n\r\n")
                except asyncio.LimitOverrunError:
                    head = b""
            writer.write(self._answer(head))
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, asyncio.IncompleteReadError):
            # TimeoutError is one of them. Who has gone, or is slow, gets no answer.
            writer.transport.abort()
        finally:
            self._connections -= 1

    def _answer(self, head: bytes) -> bytes:
        """Return the answer to a request's head."""
        line, *lines = head.decode("latin-1").split("\r\n")
        method, _, rest = line.partition(" ")
        target, _, version = rest.rpartition(" ")
        if not (method and target and version.startswith("HTTP/1.")):
            return _message(400, "a request in HTTP/1 is expected\n")
        if method not in ("GET", "HEAD"):
            return _message(405, "GET and HEAD only\n", allow="Allow: GET, HEAD\r\n")
        whole = method == "GET"
        if target.partition("?")[0] != PATH:
            return _message(404, f"only {PATH} is here\n", whole=whole)
        fields = (field.partition(":") for field in lines)
        accept = ",".join(value.strip() for name, _, value in fields if name.lower() == "accept")
        try:
            page, content_type = exposed(self._collectors, accept)
        except Exception:  # noqa: BLE001 (one scrape fails, not the server)
            # The next scrape may find again what this one did not.
            _log.exception("the metrics could not be collected")
            return _message(500, "the metrics could not be collected\n", whole=whole)
        return _message(200, page, content_type, whole=whole)


def _message(
    status: int,
    body: str | bytes,
    content_type: str = "text/plain; charset=utf-8",
    *,
    allow: str = "",
    whole: bool = True,
) -> bytes:
    """Return a response; without its body for HEAD."""
    data = body.encode() if isinstance(body, str) else body
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {content_type}\r\nContent-Length: {len(data)}\r\n"
        f"{allow}Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (data if whole else b"")
