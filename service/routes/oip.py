"""The Open Inference Protocol v2 over HTTP: health, metadata, infer."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

import orjson
from flask import Blueprint, Response, request

from service.exchange import check_json_type
from service.protocols import oip
from service.routes.admission import admit, authorise
from service.routes.health import readiness

if TYPE_CHECKING:
    from service.app import Service

#: The binary extension's header, in both directions.
_HEADER_LENGTH = "Inference-Header-Content-Length"
_OCTETS = "application/octet-stream"


def blueprint(service: Service) -> Blueprint:
    """Return the routes under ``/v2``."""
    routes = Blueprint("oip", __name__, url_prefix="/v2")
    max_rows = service.settings.max_rows

    @routes.get("")
    @routes.get("/")
    def server() -> Response:
        authorise(service)
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
        authorise(service)
        predictor = service.models.get(model, version).ready_predictor()
        return _json(oip.model_metadata(predictor.manifest, service.models.versions(model), predictor.engine))

    @routes.get("/models/<model>/ready")
    @routes.get("/models/<model>/versions/<version>/ready")
    def model_ready(model: str, version: str | None = None) -> Response:
        served = service.models.get(model, version)
        return readiness([] if served.state == "ready" else [f"{served.name} {served.version}: {served.reason}"])

    @routes.post("/models/<model>/infer")
    @routes.post("/models/<model>/versions/<version>/infer")
    def infer(model: str, version: str | None = None) -> Response:
        exchange, served, body = admit(service, "oip", model, version)
        header_length = request.environ.get("HTTP_INFERENCE_HEADER_CONTENT_LENGTH")
        if header_length is None:
            check_json_type(request.environ)
        predictor = served.ready_predictor()
        served.metrics.enter()
        try:
            started = perf_counter()
            decoded = oip.decode(body, header_length, predictor.signature, max_rows)
            exchange.rows = decoded.rows
            validated = perf_counter()
            answers = predictor.run(decoded.data, decoded.outputs)
            predicted = perf_counter()
            payload, json_length = oip.encode(decoded, predictor.signature, served.name, served.version, answers)
            encoded = perf_counter()
        finally:
            served.metrics.leave()
        exchange.stages = (
            decoded.parsed_at - started,
            validated - decoded.parsed_at,
            predicted - validated,
            encoded - predicted,
        )
        if json_length is None:
            return Response(payload, 200, content_type="application/json")
        return Response(payload, 200, {_HEADER_LENGTH: str(json_length)}, content_type=_OCTETS)

    return routes


def _json(document: Any) -> Response:
    return Response(orjson.dumps(document), 200, content_type="application/json")
