"""``/ui``: a page that shows what is going on in this server, from files beside this package and two JSON documents."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import orjson
from flask import Blueprint, Response, request

from muelle import __version__
from muelle.errors import NotFoundError
from service.answering import authorise
from service.ui_models import models_document
from service.ui_state import Server, state_document

if TYPE_CHECKING:
    from service.app import Service

_PAGE: Final = "index.html"
_TYPES: Final = {
    "index.html": "text/html; charset=utf-8",
    "ui.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "ui.js": "text/javascript; charset=utf-8",
    "charts.js": "text/javascript; charset=utf-8",
    "form.js": "text/javascript; charset=utf-8",
    "numbers.js": "text/javascript; charset=utf-8",
    "tables.js": "text/javascript; charset=utf-8",
    "views.js": "text/javascript; charset=utf-8",
}
#: Nothing from other hosts, nothing inline, in nobody's frame. Strict-Transport-Security is whoever ends TLS's.
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
#: In the page, for its script to know whether to ask for a key before the first request.
_KEYS_MARK: Final = b'data-keys="no"'


def blueprint(service: Service) -> Blueprint:
    """Return the routes; the page itself needs no key, what it shows does."""
    routes = Blueprint("ui", __name__)
    files = {name: (resources.files("service") / "ui" / name).read_bytes() for name in _TYPES}
    if service.keys is not None:
        files[_PAGE] = files[_PAGE].replace(_KEYS_MARK, b'data-keys="yes"')
    # The arbiter's number tells two servers of one host apart, and stays when workers are replaced.
    instance = f"{socket.gethostname()}/{os.getppid()}"

    @routes.after_request
    def harden(response: Response) -> Response:
        response.headers.extend(_HEADERS)
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    @routes.get("/ui")
    def page() -> Response:
        return _file(_PAGE, files[_PAGE])

    @routes.get("/ui/<name>")
    def file(name: str) -> Response:
        if name not in files or name == _PAGE:
            raise NotFoundError(f"no such path: /ui/{name[:63]}; see /ui")
        return _file(name, files[name])

    @routes.get("/ui/state")
    def state() -> Response:
        authorise(service, request.environ)
        server = Server(
            __version__, instance, service.metrics.started_at, time.time(), tuple(service.models.problems())
        )
        models = service.models
        return _json(state_document(server, service.metrics.families(), models.all(), models.default))

    @routes.get("/ui/models")
    def models() -> Response:
        authorise(service, request.environ)
        return _json(models_document(service.metrics.families(), service.models.all()))

    return routes


def _file(name: str, content: bytes) -> Response:
    response = Response(content, 200, content_type=_TYPES[name])
    # Asked for again each time, and mostly answered with 304.
    response.headers["Cache-Control"] = "no-cache"
    response.set_etag(hashlib.sha256(content).hexdigest()[:32])
    return response.make_conditional(request.environ)  # type: ignore[return-value]  # werkzeug's, which is ours


def _json(document: Any) -> Response:
    return Response(orjson.dumps(document), 200, content_type="application/json")
