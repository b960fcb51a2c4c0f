"""Flask's error handlers; `service.failures` holds the table that they use."""

from __future__ import annotations

from typing import Final

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from service.failures import error_reply, reply_to
from service.responses import to_response

_CODES: Final = {404: "not_found", 405: "method_not_allowed"}


def register_error_handlers(app: Flask) -> None:
    """Make every failure of a request an answer of the contract's form."""
    app.register_error_handler(HTTPException, _on_http_exception)
    app.register_error_handler(Exception, _on_exception)


def _on_exception(error: Exception) -> Response:
    return to_response(reply_to(error, request.environ))


def _on_http_exception(error: HTTPException) -> Response:
    status = error.code or 500
    messages = {
        404: f"no such path: {request.path[:200]}; see / for the paths there are",
        405: f"{request.method[:20]} is not allowed here",
    }
    message = messages.get(status, error.description or error.name)
    code = _CODES.get(status, error.name.lower().replace(" ", "_"))
    response = to_response(error_reply(status, message, code, request.path))
    for name, value in error.get_headers():
        if name == "Allow":
            response.headers[name] = value
    return response
