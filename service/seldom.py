"""A library's log in ours: what goes wrong again and again is said once a minute, and no secret is said at all."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from copy import copy
from typing import Final

_PAUSE_SECONDS: Final = 60.0
#: Different messages that are told apart; a library has far fewer.
_MOST: Final = 256


class LibraryLog(logging.Handler):
    """Takes over a library's log while it is open, and keeps the messages for whoever made it.

    Parameters
    ----------
    name : str
        Of the library's topmost logger.
    quoting : sequence of str
        The beginnings of the names of those loggers whose messages may quote values. Others quote headers: a caller's,
        or the receiver's password; of their messages only the fixed part is kept.

    Attributes
    ----------
    messages : list of str
        What was said, from warnings on.
    """

    def __init__(self, name: str, quoting: Sequence[str]) -> None:
        super().__init__()
        self.messages: list[str] = []
        self._quoting = tuple(quoting)
        self._logger = logging.getLogger(name)
        self._propagated = self._logger.propagate
        self._logger.addHandler(self)
        self._logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        if record.levelno >= logging.WARNING:
            self.messages.append(self.harmless(record).getMessage())

    def harmless(self, record: logging.LogRecord) -> logging.LogRecord:
        """Return the record, without values where they may be secret."""
        if record.name.startswith(self._quoting):
            return record
        fixed = copy(record)
        fixed.msg, fixed.args, fixed.exc_info = str(record.msg).partition("%")[0].rstrip(" :("), None, None
        return fixed

    def close(self) -> None:
        """Give the library's log back."""
        self._logger.removeHandler(self)
        self._logger.propagate = self._propagated
        super().close()


class Seldom(LibraryLog):
    """Passes a library's messages on to our log, each at most once a minute, with how many of them there were."""

    def __init__(self, name: str, quoting: Sequence[str]) -> None:
        super().__init__(name, quoting)
        self._said: dict[tuple[str, str], float] = {}
        self._left_out: dict[tuple[str, str], int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a message on, or count it."""
        # Before its values are put in: they differ each time.
        key = (record.name, str(record.msg))
        now = time.monotonic()
        if key not in self._said and len(self._said) >= _MOST:
            return
        if now - self._said.get(key, -math.inf) < _PAUSE_SECONDS:
            self._left_out[key] = self._left_out.get(key, 0) + 1
            return
        self._said[key] = now
        said = self.harmless(record)
        if left_out := self._left_out.pop(key, 0):
            text, said = said.getMessage(), copy(said)
            said.msg, said.args = f"{text} (and {left_out} times before)", None
        logging.getLogger().handle(said)
