"""Reading a request's body: bounded, whole or not at all, and without the copies that cost the most."""

from __future__ import annotations

import re
import socket
import zlib
from typing import TYPE_CHECKING, Any, Final

from gunicorn.http.body import Body, LengthReader

from muelle.errors import InputError, MuelleError
from service.exchange import exchange_of

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_JSON_TYPE: Final = re.compile(r"application/(?:[\w.+-]+\+)?json", re.IGNORECASE)
#: gunicorn's own way copies a body about five times; from this size on that costs more than reading the socket here.
_LARGE_BYTES: Final = 32 * 1024


class BodyTooLargeError(MuelleError):
    """The body is over the limit."""


class ContentTypeError(MuelleError):
    """The body is not of a type or encoding that we read."""


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
    """Read the whole body.

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
    body = _read(environ["wsgi.input"], length, limit)
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


def _read(stream: Any, length: int | None, limit: int) -> bytes:
    try:
        if length is None:
            chunked: bytes = stream.read(limit + 1)
            return chunked
        if length >= _LARGE_BYTES and type(stream) is Body and type(stream.reader) is LengthReader:
            return _read_socket(stream.reader, length)
        whole: bytes = stream.read(length)
        return whole
    except OSError as error:
        raise InputError("the body could not be read to its end", code="truncated_body") from error
    except Exception as error:
        # gunicorn's own classes for damaged chunks derive from Exception alone.
        if type(error).__module__.partition(".")[0] != "gunicorn":
            raise
        raise InputError("the body's chunks are damaged or end early", code="truncated_body") from error


def _read_socket(reader: Any, length: int) -> bytes:
    """Read a body of known length past gunicorn's buffers; nothing of it has been taken from `reader` before."""
    unreader = reader.unreader
    ahead = unreader.take_buffered()
    # What came behind this body is the beginning of the next request.
    unreader.unread(ahead[length:])
    parts = [ahead[:length]]
    missing = length - len(parts[0])
    while missing:
        part = unreader.sock.recv(missing, socket.MSG_WAITALL)
        if not part:
            break
        parts.append(part)
        missing -= len(part)
    # So that gunicorn knows how much is left to drain before the next request.
    reader.length = missing
    return b"".join(parts)


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
    if decompressor.unused_data:
        raise InputError("the body goes on behind its gzip data", code="invalid_gzip")
    return plain
