"""``POST /predict`` and its forms that name a model."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from flask import Blueprint, Response, request

from service.exchange import check_json_type
from service.protocols import simple
from service.routes.admission import admit

if TYPE_CHECKING:
    from service.app import Service


def blueprint(service: Service) -> Blueprint:
    """Return the routes of the simple API."""
    routes = Blueprint("simple", __name__)
    max_rows = service.settings.max_rows

    @routes.post("/predict")
    @routes.post("/models/<model>/predict")
    @routes.post("/models/<model>/versions/<version>/predict")
    def predict(model: str | None = None, version: str | None = None) -> Response:
        exchange, served, body = admit(service, "simple", model, version)
        check_json_type(request.environ)
        predictor = served.ready_predictor()
        served.metrics.enter()
        try:
            started = perf_counter()
            decoded = simple.decode(body, predictor.signature, max_rows)
            exchange.rows = decoded.rows
            validated = perf_counter()
            answers = predictor.run(decoded.data, decoded.outputs)
            predicted = perf_counter()
            payload = simple.encode(decoded, predictor.signature, answers)
            encoded = perf_counter()
        finally:
            served.metrics.leave()
        exchange.stages = (
            decoded.parsed_at - started,
            validated - decoded.parsed_at,
            predicted - validated,
            encoded - predicted,
        )
        return Response(payload, 200, content_type="application/json")

    return routes
