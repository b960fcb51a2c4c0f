"""``POST /predict``, its forms that name a model, and the Open Inference Protocol's infer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, Response, request

from service.answering import answer_oip, answer_simple
from service.responses import to_response

if TYPE_CHECKING:
    from service.app import Service


def blueprint(service: Service) -> Blueprint:
    """Return the prediction routes."""
    routes = Blueprint("predictions", __name__)

    @routes.post("/predict")
    @routes.post("/models/<model>/predict")
    @routes.post("/models/<model>/versions/<version>/predict")
    def predict(model: str | None = None, version: str | None = None) -> Response:
        return to_response(answer_simple(service, request.environ, model, version))

    @routes.post("/v2/models/<model>/infer")
    @routes.post("/v2/models/<model>/versions/<version>/infer")
    def infer(model: str, version: str | None = None) -> Response:
        return to_response(answer_oip(service, request.environ, model, version))

    return routes
