"""A WSGI application that reads the body and answers a constant: what gunicorn itself costs, and no more.

Run as ``gunicorn "benchmarks.raw:create_app()"`` with the path of the answer's bytes in ``RAW_ANSWER``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


def create_app() -> WSGIApplication:
    """Read the answer and return the application."""
    answer = Path(os.environ["RAW_ANSWER"]).read_bytes()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))]

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.input"].read()
        start_response("200 OK", headers)
        return [answer]

    return app
