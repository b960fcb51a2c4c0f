"""Which requests are answered in a worker's main thread: quick ones, as the last ones were, that have come whole."""

from __future__ import annotations

import fcntl
import re
import socket
import struct
import termios
from typing import Final

#: A request longer than this holds up the main thread, and with it new connections and probes, for too long.
_QUICK_SECONDS: Final = 0.005
#: One slow request takes back what this many quick ones gave: where more than one in 25 is slow, all go to the threads.
_PRICE: Final = 25
#: So much can be saved up, so that a few slow ones end it soon.
_SAVINGS: Final = 100
#: Requests up to this size; their answers fit into the socket's send buffer, so that writing them can't block.
_SMALL_BYTES: Final = 8 * 1024
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d{1,5})\r\n", re.IGNORECASE)


class Quickness:
    """Whether the next request is expected to be quick. It is not until some have been."""

    def __init__(self) -> None:
        self._saved = -_SAVINGS

    @property
    def expected(self) -> bool:
        """Whether nearly all of the last requests were quick."""
        return self._saved > 0

    def add(self, seconds: float) -> None:
        """Take note of how long a request took. Two threads may lose a count between them, which does no harm."""
        if seconds < _QUICK_SECONDS:
            self._saved = min(self._saved + 1, _SAVINGS)
        else:
            self._saved = max(self._saved - _PRICE, -_SAVINGS)


def is_whole_and_small(connection: socket.socket) -> bool:
    """Whether a small POST lies complete in the socket's receive buffer, and earlier answers have been taken.

    Only looks: the bytes stay where they are. Anything unusual (chunks, other methods, a client that doesn't read its
    answers) gives False, as a thread can wait for it and the main thread can't.
    """
    try:
        seen = connection.recv(_SMALL_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        unsent = fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0\0\0\0")
    except OSError:
        return False
    if not seen.startswith(b"POST ") or struct.unpack("i", unsent) != (0,):
        return False
    end = seen.find(b"\r\n\r\n")
    length = _LENGTH.search(seen, 0, end + 2)
    # A request of one's own length and nothing behind it: the next one is looked at by itself.
    return end > 0 and length is not None and len(seen) == end + 4 + int(length[1])
