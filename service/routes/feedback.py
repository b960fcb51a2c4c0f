"""``POST /feedback``: what turned out to be true of rows that were predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, Response, request

from service.feedback import answer_feedback
from service.responses import to_response

if TYPE_CHECKING:
    from service.app import Service


def blueprint(service: Service) -> Blueprint:
    """Return the route."""
    routes = Blueprint("feedback", __name__)

    @routes.post("/feedback")
    def feedback() -> Response:
        return to_response(answer_feedback(service, request.environ))

    return routes
