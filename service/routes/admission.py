"""What stands before every prediction: the key, the queue, the model, the body."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import request

from service.exchange import Exchange, OverloadedError, exchange_of, read_body

if TYPE_CHECKING:
    from service.app import Service
    from service.models import ServedModel


def authorise(service: Service) -> None:
    """Check the API key where keys are asked for; raises `service.auth`'s errors."""
    if service.keys is not None:
        environ = request.environ
        caller = service.keys.check(environ.get("HTTP_AUTHORIZATION"), environ.get("HTTP_X_API_KEY"))
        exchange_of(environ).caller = caller


def admit(
    service: Service, protocol: str, name: str | None, version: str | None
) -> tuple[Exchange, ServedModel, bytes]:
    """Let a prediction request in, or raise what turns it away; cheap checks come first.

    Returns
    -------
    exchange : Exchange
        Of this request, with protocol and model set.
    model : ServedModel
        The one that was named.
    body : bytes
        All of it.
    """
    exchange = exchange_of(request.environ)
    exchange.protocol = protocol
    authorise(service)
    # The oldest waiting request is turned away: those behind it have not waited as long, and will be in time.
    if service.pressure.requests > service.settings.max_concurrency:
        service.metrics.shed("concurrency")
        raise OverloadedError(f"more than {service.settings.max_concurrency} requests are waiting; try again later")
    exchange.model = model = service.models.get(name, version)
    return exchange, model, read_body(request.environ, service.settings.max_body_bytes)
