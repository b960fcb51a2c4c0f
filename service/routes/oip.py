"""The Open Inference Protocol v2: health and metadata; `service.routes.predictions` has infer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from flask import Blueprint, Response, request

from service.answering import authorise
from service.protocols import oip
from service.routes.health import readiness

if TYPE_CHECKING:
    from service.app import Service


def blueprint(service: Service) -> Blueprint:
    """Return the routes under ``/v2``."""
    routes = Blueprint("oip", __name__, url_prefix="/v2")

    @routes.get("")
    @routes.get("/")
    def server() -> Response:
        authorise(service, request.environ)
        return _json(oip.server_metadata())

    @routes.get("/health/live")
    def live() -> Response:
        return _json({"live": True})

    @routes.get("/health/ready")
    def ready() -> Response:
        return readiness(service.models.problems())

    @routes.get("/models/<model>")
    @routes.get("/models/<model>/versions/<version>")
    def metadata(model: str, version: str | None = None) -> Response:
        authorise(service, request.environ)
        predictor = service.models.get(model, version).ready_predictor()
        return _json(oip.model_metadata(predictor.manifest, service.models.versions(model), predictor.engine))

    @routes.get("/models/<model>/ready")
    @routes.get("/models/<model>/versions/<version>/ready")
    def model_ready(model: str, version: str | None = None) -> Response:
        served = service.models.get(model, version)
        return readiness([] if served.state == "ready" else [f"{served.name} {served.version}: {served.reason}"])

    return routes


def _json(document: Any) -> Response:
    return Response(orjson.dumps(document), 200, content_type="application/json")
