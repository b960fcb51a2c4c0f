"""``GET /``: what is served, for a person with curl."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from flask import Blueprint, Response, request

from muelle import __version__
from service.answering import authorise

if TYPE_CHECKING:
    from service.app import Service
    from service.models import ServedModel


def blueprint(service: Service) -> Blueprint:
    """Return the route."""
    routes = Blueprint("status", __name__)

    @routes.get("/")
    def status() -> Response:
        authorise(service, request.environ)
        default = service.models.default
        problems = service.models.problems()
        document = {
            "name": "muelle",
            "version": __version__,
            "status": "not ready" if problems else "ready",
            "model": None if default is None else {"name": default.name, "version": default.version},
            "models": [_model(model) for model in service.models.all()],
            "links": {
                "predict": "/predict",
                "openapi": "/openapi.json",
                "live": "/livez",
                "ready": "/readyz",
                "metrics": "/metrics",
                "open_inference_protocol": "/v2",
                **({"feedback": "/feedback"} if service.settings.feedback_rows else {}),
                **({"ui": "/ui"} if service.settings.ui else {}),
            },
        }
        return Response(orjson.dumps(document, option=orjson.OPT_INDENT_2), 200, content_type="application/json")

    return routes


def _model(model: ServedModel) -> dict[str, Any]:
    found: dict[str, Any] = {"name": model.name, "version": model.version, "state": model.state}
    if model.predictor is None:
        return found | {"reason": model.reason}
    predictor = model.predictor
    return found | {
        "engine": predictor.engine,
        "estimator": predictor.manifest.estimator,
        "digest": predictor.digest,
        "features": list(predictor.signature.names),
        "predict": f"/models/{model.name}/versions/{model.version}/predict",
    }
