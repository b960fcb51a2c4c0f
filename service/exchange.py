"""One request and its answer, seen from outside Flask: id, timing, and what the log and the metrics say of it."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from muelle.errors import MuelleError
from service.logs import AccessLog
from service.metrics import Metrics

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from service.models import ServedModel
    from service.spans import Trace, Tracing

KEY: Final = "muelle.exchange"
#: An id from outside goes into logs and headers, so only these characters, and not too many of them.
REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
#: The version's and the variant's bits of a UUID.
_VERSION_7: Final = 0x7 << 76 | 0x2 << 62


def new_request_id() -> str:
    """Return a UUID of version 7 (RFC 9562, section 5.7), which sorts by time: labels find predictions by it, later.

    It need not be secret, so it is made without asking the kernel; gunicorn seeds each worker's generator anew.
    """
    milliseconds = time.time_ns() // 1_000_000
    bits = milliseconds << 80 | _VERSION_7 | random.getrandbits(12) << 64 | random.getrandbits(62)
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class OverloadedError(MuelleError):
    """Too many requests are in hand."""


class Exchange:
    """What is known of the request in hand.

    Attributes
    ----------
    request_id : str
        The caller's X-Request-Id when it is a plain one, else a new UUID.
    protocol : str
        ``simple`` or ``oip`` on the prediction routes, else empty: such requests count in no model's metrics.
    model : ServedModel, optional
        Set once the model was found.
    stages : tuple of float, optional
        Seconds of decode, validate, predict, encode; set when all are done.
    rows : int, optional
        Rows predicted.
    caller : str, optional
        Name of the API key that was used.
    trace : Trace, optional
        Its place in a trace, where traces are made.
    decode_started : float
        When the first stage began, on the clock of `time.perf_counter`; means something only beside `stages`.
    """

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "caller",
        "decode_started",
        "model",
        "protocol",
        "request_id",
        "rows",
        "stages",
        "status",
        "trace",
    )

    def __init__(self, given_id: str | None) -> None:
        if given_id is None or REQUEST_ID.fullmatch(given_id) is None:
            given_id = new_request_id()
        self.request_id = given_id
        self.protocol = ""
        self.model: ServedModel | None = None
        self.stages: tuple[float, float, float, float] | None = None
        self.rows: int | None = None
        self.status = 500
        self.bytes_in = 0
        self.bytes_out = 0
        self.caller: str | None = None
        self.trace: Trace | None = None
        self.decode_started = 0.0


def exchange_of(environ: WSGIEnvironment) -> Exchange:
    """Return the exchange of a request that came through `Observed`."""
    exchange: Exchange = environ[KEY]
    return exchange


class Observed:
    """WSGI middleware around Flask: gives each request an `Exchange`, then logs and counts it.

    Parameters
    ----------
    app : WSGI application
        What answers.
    metrics : Metrics
        Where prediction requests are counted.
    access_log : AccessLog, optional
        One line a request; None for none.
    tracing : Tracing, optional
        Where a request's trace is handed in; None for none.
    """

    def __init__(
        self, app: WSGIApplication, metrics: Metrics, access_log: AccessLog | None, tracing: Tracing | None = None
    ) -> None:
        self._app = app
        self._unknown = metrics.for_model()
        self._access_log = access_log
        self._tracing = tracing

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        started = time.perf_counter()
        exchange = environ[KEY] = Exchange(environ.get("HTTP_X_REQUEST_ID"))
        # What is predicted and what is reported comes by POST; probes and scrapes make no traces.
        trace = None
        if self._tracing is not None and environ["REQUEST_METHOD"] == "POST":
            trace = exchange.trace = self._tracing.begin(environ)

        def respond(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
            exchange.status = int(status[:3])
            for name, value in headers:
                if name == "Content-Length":
                    exchange.bytes_out = int(value)
            headers.append(("X-Request-Id", exchange.request_id))
            return start_response(status, headers, exc_info)

        try:
            return self._app(environ, respond)
        finally:
            seconds = time.perf_counter() - started
            model = exchange.model
            if exchange.protocol:
                counted = self._unknown if model is None else model.metrics
                counted.record(exchange.protocol, exchange.status, seconds, exchange.stages, exchange.rows)
            if self._access_log is not None:
                self._access_log.write(
                    exchange.request_id,
                    environ["REQUEST_METHOD"],
                    environ["PATH_INFO"],
                    exchange.status,
                    seconds,
                    model=None if model is None else model.name,
                    version=None if model is None else model.version,
                    bytes_in=exchange.bytes_in,
                    bytes_out=exchange.bytes_out,
                    rows=exchange.rows,
                    caller=exchange.caller,
                    trace=trace,
                )
            if self._tracing is not None and trace is not None:
                self._tracing.end(environ, exchange, trace, started, seconds)
