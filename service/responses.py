"""From our framework-free `Reply` to Flask's response."""

from __future__ import annotations

from flask import Response

from service.answering import Reply


def to_response(reply: Reply) -> Response:
    """Return a reply as Flask's response."""
    return Response(reply.body, reply.status, dict(reply.headers), content_type=reply.content_type)
