"""JSON logs: one line, one object, fixed keys. Requests go to standard output, all else to standard error.

Never in a line: bodies, query strings, headers, keys. An error's stack (``exception``) names places in the code and
its message; the messages of `muelle.errors` quote at most the one offending value.
"""

from __future__ import annotations

import logging
import logging.config
import os
import select
import threading
import time
from functools import lru_cache
from typing import Any, Final

import orjson
from gunicorn import glogging

_EXTRAS: Final = ("request_id", "model", "version")


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _rfc3339(seconds: float) -> str:
    """Return a Unix time as RFC 3339 in UTC with milliseconds."""
    whole = int(seconds)
    return f"{_second(whole)}.{int((seconds - whole) * 1000):03d}Z"


def _encode(line: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        # Half a surrogate pair (an undecodable file name), or a label that is no string.
        clean = {key: str(value).encode("utf-8", "backslashreplace").decode() for key, value in line.items()}
        return orjson.dumps(clean, option=orjson.OPT_APPEND_NEWLINE)


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object.

    Keys: ``time``, ``level``, ``logger``, ``message``; ``request_id``, ``model``, ``version`` when given as ``extra``;
    ``exception`` when there is a stack.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        line: dict[str, Any] = {
            "time": _rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for key in _EXTRAS:
            if (value := getattr(record, key, None)) is not None:
                line[key] = value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        return _encode(line).decode().rstrip("\n")


def log_config(level: str) -> dict[str, Any]:
    """Return the `logging.config` dictionary; gunicorn takes it as ``logconfig_dict``."""
    name = level.upper()
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "service.logs.JsonFormatter"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"}},
        "root": {"level": name, "handlers": ["stderr"]},
        # Named, since only then does dictConfig take away the text handlers that gunicorn has given them.
        "loggers": {
            "gunicorn.error": {"level": name, "handlers": ["stderr"], "propagate": False},
            "gunicorn.access": {"level": name, "handlers": [], "propagate": False},
        },
    }


def configure(level: str) -> None:
    """Set up logging of a process that gunicorn doesn't set up: the command line, tests."""
    logging.config.dictConfig(log_config(level))


class GunicornLogger(glogging.Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's logger without its access log.

    With a ``logconfig_dict`` gunicorn believes that its access log is on, and collects some sixty values a request for
    it, headers with keys among them.
    """

    access_log_enabled = False

    def access(self, *_: object) -> None:
        """Do nothing; `AccessLog` writes these lines."""


class AccessLog:
    """Writes one line a request to a file descriptor; thread-safe.

    A line is written whole, with one system call, when the pipe has room for it (lines stay below POSIX's PIPE_BUF);
    else it is dropped and counted: a collector of logs that stands still must not stop the answers. The next line that
    gets through says in ``dropped`` how many are missing.
    """

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        # A poll object can't be used by two threads at a time.
        self._lock = threading.Lock()
        self.dropped = 0

    def write(  # noqa: PLR0913 (a line's keys; an object made only to carry them would cost as much as the line)
        self,
        request_id: str,
        method: str,
        path: str,
        status: int,
        duration_seconds: float,
        *,
        model: str | None = None,
        version: str | None = None,
        bytes_in: int = 0,
        bytes_out: int = 0,
        rows: int | None = None,
        caller: str | None = None,
    ) -> None:
        """Write the line of one request; never raises.

        Parameters
        ----------
        request_id, method, path : str
            As they came; cut to 128, 16 and 200 characters, the path at its query string.
        status : int
            HTTP status of the answer.
        duration_seconds : float
            From reading the request to handing over its answer.
        model, version : str, optional
            Of the model that was found; None before that.
        bytes_in, bytes_out : int
            Sizes of the two bodies.
        rows : int, optional
            Rows predicted.
        caller : str, optional
            Name of the API key that was used, never the key.
        """
        line: dict[str, Any] = {
            "time": _rfc3339(time.time()),
            "level": "info",
            "logger": "service.access",
            "message": "request",
            "request_id": request_id[:128],
            "method": method[:16],
            "path": path.partition("?")[0][:200],
            "status": status,
            "duration_seconds": round(duration_seconds, 6),
            "bytes_in": bytes_in,
            "bytes_out": bytes_out,
        }
        if model is not None:
            line["model"] = model
            line["version"] = version
        if rows is not None:
            line["rows"] = rows
        if caller is not None:
            line["caller"] = caller
        with self._lock:
            if self.dropped:
                line["dropped"] = self.dropped
            try:
                if self._poll.poll(0):
                    os.write(self._descriptor, _encode(line))
                    self.dropped = 0
                else:
                    self.dropped += 1
            except OSError:  # closed, or its reader is gone
                self.dropped += 1
