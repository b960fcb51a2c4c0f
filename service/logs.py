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
from typing import TYPE_CHECKING, Any, Final

import orjson
from gunicorn import glogging

if TYPE_CHECKING:
    from service.spans import Trace

_EXTRAS: Final = ("request_id", "model", "version")
#: How long an access line waits for others at most.
_COMPANY_SECONDS: Final = 0.2


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

    Lines are written whole, as many in one system call as stay below POSIX's PIPE_BUF, when the pipe has room for them;
    else they are dropped and counted: a collector of logs that stands still must not stop the answers. The next lines
    that get through say in ``dropped`` how many are missing.

    Until `start` each line is written at once. From then on lines wait for company, a fifth of a second at most: a
    system call in a request's path gives the interpreter lock away, and getting it back costs more than the call.
    """

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        # A poll object can't be used by two threads at a time.
        self._lock = threading.Lock()
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.dropped = 0

    def start(self) -> None:
        """Let lines wait from now on; after the fork, since threads don't survive one. `close` must follow."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._flush_until_closed, name="access-log", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Write what waits, and each later line at once; may be called again."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with self._lock:
            self._flush()

    def _flush_until_closed(self) -> None:
        while not self._stop.wait(_COMPANY_SECONDS):
            with self._lock:
                self._flush()

    def _flush(self) -> None:
        """Write what waits; the caller holds the lock."""
        if not self._waiting:
            return
        try:
            if self._poll.poll(0):
                os.write(self._descriptor, b"".join(self._waiting))
                self.dropped = 0
            else:
                self.dropped += len(self._waiting)
        except OSError:  # closed, or its reader is gone
            self.dropped += len(self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0

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
        trace: Trace | None = None,
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
        trace : Trace, optional
            Gives the line ``trace_id`` and ``span_id``.
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
        if trace is not None:
            line["trace_id"] = trace.trace_id
            line["span_id"] = trace.span_id
        with self._lock:
            if self.dropped:
                line["dropped"] = self.dropped
            data = _encode(line)
            if self._waiting_bytes + len(data) > select.PIPE_BUF:
                self._flush()
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            if self._thread is None:
                self._flush()
