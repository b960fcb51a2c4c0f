"""Liveness without dependencies; readiness that means loaded, verified, golden reproduced and warm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from flask import Blueprint, Response

from service.failures import RETRY_AFTER_SECONDS

if TYPE_CHECKING:
    from service.app import Service


def readiness(problems: list[str]) -> Response:
    """Return 200 when there are no problems, else 503 with them."""
    if not problems:
        return Response(b'{"status":"ready"}', 200, content_type="application/json")
    document = {"status": "not ready", "error": "; ".join(problems), "code": "not_ready", "reasons": problems}
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return Response(orjson.dumps(document), 503, headers, content_type="application/json")


def blueprint(service: Service) -> Blueprint:
    """Return the probes' routes; they need no key."""
    routes = Blueprint("health", __name__)

    @routes.get("/livez")
    def livez() -> Response:
        return Response(b'{"status":"live"}', 200, content_type="application/json")

    @routes.get("/readyz")
    def readyz() -> Response:
        return readiness(service.models.problems())

    return routes
