"""The one table from Muelle's errors to HTTP."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import orjson

from muelle.errors import EngineError, InputError, MuelleError, NotFoundError, NotReadyError
from service.answering import Reply
from service.auth import MissingKeyError, WrongKeyError
from service.body import BodyTooLargeError, ContentTypeError
from service.exchange import OverloadedError, exchange_of

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_log = logging.getLogger(__name__)

#: How long a caller should wait who was turned away: the queue of a worker drains within about this.
RETRY_AFTER_SECONDS: Final = 1

#: Error class → status and code; the first match from the top counts. InputError brings its own code.
STATUSES: Final[tuple[tuple[type[MuelleError], int, str], ...]] = (
    (InputError, 400, ""),
    (MissingKeyError, 401, "missing_key"),
    (WrongKeyError, 403, "wrong_key"),
    (NotFoundError, 404, "not_found"),
    (BodyTooLargeError, 413, "body_too_large"),
    (ContentTypeError, 415, "unsupported_media_type"),
    (OverloadedError, 503, "overloaded"),
    (NotReadyError, 503, "not_ready"),
    (EngineError, 500, "model_failed"),
)
#: Rows over the limit are too large a request, though the body was well-formed.
_CODES_TOO_LARGE: Final = frozenset({"too_many_rows"})


def status_of(error: Exception) -> tuple[int, str]:
    """Return the status and the code for an error; 500 for one that should never get this far."""
    if isinstance(error, InputError):
        return (413 if error.code in _CODES_TOO_LARGE else 400), error.code
    for kind, status, code in STATUSES:
        if isinstance(error, kind):
            return status, code
    return 500, "internal"


def reply_to(error: Exception, environ: WSGIEnvironment) -> Reply:
    """Return the answer for an error; what is our own fault is logged, and its details stay out of the answer."""
    status, code = status_of(error)
    message = str(error)
    if status == 500:
        _log.error("%s: %s", code, error, exc_info=error, extra={"request_id": exchange_of(environ).request_id})
        message = "the model failed on these rows" if code == "model_failed" else "internal error"
    return error_reply(status, message, code, environ["PATH_INFO"])


def error_reply(status: int, message: str, code: str, path: str) -> Reply:
    """Return an error's answer in the form that the path's protocol knows."""
    headers: tuple[tuple[str, str], ...] = ()
    if status in (429, 503):
        headers = (("Retry-After", str(RETRY_AFTER_SECONDS)),)
    elif status == 401:
        headers = (("WWW-Authenticate", 'Bearer realm="muelle"'),)
    return Reply(status, error_body(message, code, v2=path.startswith("/v2")), headers=headers)


def error_body(message: str, code: str, *, v2: bool) -> bytes:
    """Return an error's body: the Open Inference Protocol knows only ``error``, the simple API has a code too."""
    # JSON can escape half a surrogate pair, UTF-8 can't hold it; a message may quote one.
    message = message.encode("utf-8", "replace").decode()
    return orjson.dumps({"error": message} if v2 else {"error": message, "code": code})
