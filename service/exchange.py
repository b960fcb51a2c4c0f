"""One request and its answer, seen from outside Flask: id, body, timing, and what the log and the metrics say of it."""

from __future__ import annotations

import re
import secrets
import time
import zlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from muelle.errors import InputError, MuelleError
from service.logs import AccessLog
from service.metrics import Metrics

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from service.models import ServedModel

KEY: Final = "muelle.exchange"
#: An id from outside goes into logs and headers, so only these characters, and not too many of them.
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_JSON_TYPE: Final = re.compile(r"application/(?:[\w.+-]+\+)?json", re.IGNORECASE)


class BodyTooLargeError(MuelleError):
    """The body is over the limit."""


class ContentTypeError(MuelleError):
    """The body is not of a type or encoding that we read."""


class OverloadedError(MuelleError):
    """Too many requests are in hand."""


class Exchange:
    """What is known of the request in hand.

    Attributes
    ----------
    request_id : str
        The caller's X-Request-Id when it is a plain one, else a new one.
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
    """

    __slots__ = ("bytes_in", "bytes_out", "caller", "model", "protocol", "request_id", "rows", "stages", "status")

    def __init__(self, given_id: str | None) -> None:
        if given_id is None or _REQUEST_ID.fullmatch(given_id) is None:
            given_id = secrets.token_hex(8)
        self.request_id = given_id
        self.protocol = ""
        self.model: ServedModel | None = None
        self.stages: tuple[float, float, float, float] | None = None
        self.rows: int | None = None
        self.status = 500
        self.bytes_in = 0
        self.bytes_out = 0
        self.caller: str | None = None


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
    """

    def __init__(self, app: WSGIApplication, metrics: Metrics, access_log: AccessLog | None) -> None:
        self._app = app
        self._unknown = metrics.for_model()
        self._access_log = access_log

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        started = time.perf_counter()
        exchange = environ[KEY] = Exchange(environ.get("HTTP_X_REQUEST_ID"))

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
                )


def check_json_type(environ: WSGIEnvironment) -> None:
    """Refuse a body that says it is something else than JSON; one that says nothing is taken at its bytes.

    Raises
    ------
    ContentTypeError
        With what was expected.
    """
    given = environ.get("CONTENT_TYPE", "")
    if given and given != "application/json" and _JSON_TYPE.fullmatch(given.partition(";")[0].strip()) is None:
        raise ContentTypeError(f"expected Content-Type: application/json, got {given[:60]}")


def read_body(environ: WSGIEnvironment, limit: int) -> bytes:
    """Read the whole body, straight from the server: Flask's own way costs more for large ones.

    Parameters
    ----------
    environ : WSGI environment
        Of the request.
    limit : int
        Largest size in bytes, also after decompression.

    Raises
    ------
    BodyTooLargeError
        Before reading, when Content-Length says so already.
    ContentTypeError
        For a Content-Encoding other than gzip.
    InputError
        When the body ends early or its compression is damaged.
    """
    declared = environ.get("CONTENT_LENGTH")
    length = int(declared) if declared else None
    if length is not None and length > limit:
        raise BodyTooLargeError(f"expected a body of at most {limit} bytes, got {length}")
    try:
        body: bytes = environ["wsgi.input"].read(limit + 1 if length is None else length)
    except OSError as error:
        raise InputError("the body could not be read to its end", code="truncated_body") from error
    except Exception as error:
        # gunicorn's own classes for damaged chunks; they derive from Exception alone.
        if type(error).__module__.partition(".")[0] != "gunicorn":
            raise
        raise InputError("the body's chunks are damaged or end early", code="truncated_body") from error
    if length is not None and len(body) < length:
        raise InputError(f"expected a body of {length} bytes, it ended after {len(body)}", code="truncated_body")
    if len(body) > limit:
        raise BodyTooLargeError(f"expected a body of at most {limit} bytes, got more")
    exchange_of(environ).bytes_in = len(body)
    encoding = environ.get("HTTP_CONTENT_ENCODING")
    if encoding is None or encoding.strip().lower() in ("", "identity"):
        return body
    if encoding.strip().lower() != "gzip":
        raise ContentTypeError(f"expected no Content-Encoding, or gzip, got {encoding[:60]}")
    return _gunzip(body, limit)


def _gunzip(body: bytes, limit: int) -> bytes:
    decompressor = zlib.decompressobj(wbits=31)
    try:
        plain = decompressor.decompress(body, limit + 1)
    except zlib.error as error:
        raise InputError(f"the body is not gzip: {error}", code="invalid_gzip") from error
    if len(plain) > limit:
        raise BodyTooLargeError(f"expected a body of at most {limit} bytes after decompression, got more")
    if not decompressor.eof:
        raise InputError("the gzip body ends early", code="truncated_body")
    return plain
