"""``GET /openapi.json``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from flask import Blueprint, Response, request

from service.answering import authorise
from service.openapi import openapi_document

if TYPE_CHECKING:
    from service.app import Service


def blueprint(service: Service) -> Blueprint:
    """Return the route."""
    routes = Blueprint("openapi", __name__)

    @routes.get("/openapi.json")
    def document() -> Response:
        authorise(service, request.environ)
        return Response(orjson.dumps(openapi_document(service)), 200, content_type="application/json")

    return routes
