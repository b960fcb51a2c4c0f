"""The one table from Muelle's errors to HTTP, and the handlers that use it."""

from __future__ import annotations

import logging
from typing import Final

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from muelle.errors import EngineError, InputError, MuelleError, NotFoundError, NotReadyError
from service.auth import MissingKeyError, WrongKeyError
from service.exchange import (
    BodyTooLargeError,
    ContentTypeError,
    OverloadedError,
    exchange_of,
)
from service.replies import error_body

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


def status_of(error: MuelleError) -> tuple[int, str]:
    """Return the status and the code for an error; 500 for one that should never get this far."""
    for kind, status, code in STATUSES:
        if isinstance(error, kind):
            if isinstance(error, InputError):
                return (413 if error.code in _CODES_TOO_LARGE else 400), error.code
            return status, code
    return 500, "internal"


def register_error_handlers(app: Flask) -> None:
    """Make every failure of a request an answer of the contract's form."""
    app.register_error_handler(MuelleError, _on_muelle_error)
    app.register_error_handler(HTTPException, _on_http_exception)
    app.register_error_handler(Exception, _on_bug)


def _reply(status: int, message: str, code: str) -> Response:
    response = Response(
        error_body(message, code, v2=request.path.startswith("/v2")), status, content_type="application/json"
    )
    if status in (429, 503):
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="muelle"'
    return response


def _on_muelle_error(error: MuelleError) -> Response:
    status, code = status_of(error)
    if status == 500:
        # The details are for us: the log has them under the request's id.
        _log.error("%s", error, exc_info=error, extra={"request_id": exchange_of(request.environ).request_id})
        return _reply(status, "the model failed on these rows" if code == "model_failed" else "internal error", code)
    return _reply(status, str(error), code)


def _on_http_exception(error: HTTPException) -> Response:
    status = error.code or 500
    codes = {404: "not_found", 405: "method_not_allowed"}
    messages = {
        404: f"no such path: {request.path[:200]}; see / for the paths there are",
        405: f"{request.method[:20]} is not allowed here",
    }
    message = messages.get(status, error.description or error.name)
    response = _reply(status, message, codes.get(status, error.name.lower().replace(" ", "_")))
    for name, value in error.get_headers():
        if name == "Allow":
            response.headers[name] = value
    return response


def _on_bug(error: Exception) -> Response:
    _log.error("unexpected error", exc_info=error, extra={"request_id": exchange_of(request.environ).request_id})
    return _reply(500, "internal error", "internal")
