"""The fast lane: predictions by known models are answered in front of Flask, whose dispatch costs more than they do.

Everything else (unknown models, other methods, odd paths) goes to Flask, which has routes for the same paths that end
in the same functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from service.answering import Answer, answer_oip, answer_simple
from service.failures import reply_to

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from service.app import Service

_STATUS_LINES: Final = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


class FastLane:
    """WSGI middleware around Flask.

    Parameters
    ----------
    app : WSGI application
        Flask, for all that is not a prediction by a known model.
    service : Service
        What answers.
    """

    def __init__(self, app: WSGIApplication, service: Service) -> None:
        self._app = app
        self._service = service
        self._paths: dict[str, tuple[Answer, str | None, str | None]] = {}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        known = self._paths or self._learn()
        found = known.get(environ["PATH_INFO"]) if environ["REQUEST_METHOD"] == "POST" else None
        if found is None:
            return self._app(environ, start_response)
        answer, name, version = found
        try:
            reply = answer(self._service, environ, name, version)
        except Exception as error:  # noqa: BLE001  # the table of errors decides, as in Flask's handlers
            reply = reply_to(error, environ)
        headers = [("Content-Type", reply.content_type), ("Content-Length", str(len(reply.body))), *reply.headers]
        start_response(_STATUS_LINES[reply.status], headers)
        return [reply.body]

    def _learn(self) -> dict[str, tuple[Answer, str | None, str | None]]:
        """Make the table of paths, once it is known which models there are."""
        paths: dict[str, tuple[Answer, str | None, str | None]] = {}
        for name, version in self._service.models.references():
            model = f"/models/{name}" if version is None else f"/models/{name}/versions/{version}"
            if name is None:
                paths["/predict"] = (answer_simple, None, None)
            else:
                paths[f"{model}/predict"] = (answer_simple, name, version)
                paths[f"/v2{model}/infer"] = (answer_oip, name, version)
        self._paths = paths
        return paths
