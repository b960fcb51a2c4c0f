"""A connection for tests that need to be slow, silent, or wrong in ways that no HTTP client is."""

from __future__ import annotations

import contextlib
import math
import socket
from typing import Self


class RawClient:
    """A connection on which the test itself says every byte.

    Parameters
    ----------
    port : int
        Of 127.0.0.1.
    first : bytes
        What to send at once.
    buffer_bytes : int, optional
        How much the kernel takes for this end before the test reads it.
    """

    def __init__(self, port: int, first: bytes = b"", *, buffer_bytes: int | None = None) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(30)
        if buffer_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        try:
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.socket.close()
            raise
        if first:
            self.socket.sendall(first)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> bool:
        """Send, and return whether the other end still takes it."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def read_to_end(self, enough: float = math.inf) -> bytes:
        """Return all that comes until the other end closes, or so many bytes; nothing more after a reset."""
        data = bytearray()
        with contextlib.suppress(ConnectionError):
            while len(data) < enough and (part := self.socket.recv(65536)):
                data += part
        return bytes(data)

    def read_until(self, end: bytes) -> bytes:
        """Return what comes up to these bytes, which must come last for now."""
        data = b""
        while not data.endswith(end):
            part = self.socket.recv(65536)
            assert part, data
            data += part
        return data
