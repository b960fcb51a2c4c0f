"""``GET /metrics`` for Prometheus; needs no key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, Response, request

if TYPE_CHECKING:
    from service.app import Service


def blueprint(service: Service) -> Blueprint:
    """Return the route."""
    routes = Blueprint("metrics", __name__)

    @routes.get("/metrics")
    def metrics() -> Response:
        page, content_type = service.metrics.render(request.headers.get("Accept"))
        return Response(page, 200, content_type=content_type)

    return routes
