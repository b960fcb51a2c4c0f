"""From a prediction request to its answer, below any web framework: key, queue, model, body, engine.

Flask's routes and the fast lane in front of them both end here, so there is one behaviour.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Final

from service.body import check_json_type, read_body
from service.exchange import Exchange, OverloadedError, exchange_of
from service.protocols import oip, simple

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from service.app import Service
    from service.models import ServedModel

JSON: Final = "application/json"
OCTETS: Final = "application/octet-stream"
#: The binary extension's header, in both directions.
HEADER_LENGTH: Final = "Inference-Header-Content-Length"


@dataclass(slots=True)
class Reply:
    """An answer, not yet of any framework: status, body, Content-Type, further headers."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


#: Answers a request for a model and version, None meaning the default; raises `MuelleError`.
Answer = Callable[["Service", "WSGIEnvironment", str | None, str | None], Reply]


def authorise(service: Service, environ: WSGIEnvironment) -> None:
    """Check the API key where keys are asked for; raises `service.auth`'s errors."""
    if service.keys is not None:
        caller = service.keys.check(environ.get("HTTP_AUTHORIZATION"), environ.get("HTTP_X_API_KEY"))
        exchange_of(environ).caller = caller


def turn_away_when_overloaded(service: Service) -> None:
    """Turn a request away, before its body is read, that came when too many were in hand or waiting."""
    if service.pressure.turned_away:
        service.metrics.shed("concurrency")
        raise OverloadedError(f"{service.settings.max_concurrency} requests are in hand or waiting; try again later")


def answer_simple(service: Service, environ: WSGIEnvironment, name: str | None, version: str | None) -> Reply:
    """Answer a request of the simple API."""
    exchange, served = _admit(service, environ, "simple", name, version)
    body = read_body(environ, service.settings.max_body_bytes)
    check_json_type(environ)
    predictor = served.ready_predictor()
    served.metrics.enter()
    try:
        exchange.decode_started = started = perf_counter()
        request = simple.decode(body, predictor.signature, service.settings.max_rows)
        exchange.rows = request.rows
        validated = perf_counter()
        answers = predictor.run(request.data, request.outputs)
        predicted = perf_counter()
        payload = simple.encode(request, predictor.signature, answers)
        encoded = perf_counter()
    finally:
        served.metrics.leave()
    if served.memory is not None:
        served.memory.remember(exchange.request_id, answers, request.rows)
    if served.observations is not None:
        served.observations.add(exchange.request_id, request.data, answers, request.rows, len(body))
    parsed = request.parsed_at
    exchange.stages = (parsed - started, validated - parsed, predicted - validated, encoded - predicted)
    return Reply(200, payload)


def answer_oip(service: Service, environ: WSGIEnvironment, name: str | None, version: str | None) -> Reply:
    """Answer an infer request of the Open Inference Protocol."""
    exchange, served = _admit(service, environ, "oip", name, version)
    body = read_body(environ, service.settings.max_body_bytes)
    header_length = environ.get("HTTP_INFERENCE_HEADER_CONTENT_LENGTH")
    if header_length is None:
        check_json_type(environ)
    predictor = served.ready_predictor()
    served.metrics.enter()
    try:
        exchange.decode_started = started = perf_counter()
        request = oip.decode(body, header_length, predictor.signature, service.settings.max_rows)
        exchange.rows = request.rows
        validated = perf_counter()
        answers = predictor.run(request.data, request.outputs)
        predicted = perf_counter()
        payload, json_length = oip.encode(request, predictor.signature, served.name, served.version, answers)
        encoded = perf_counter()
    finally:
        served.metrics.leave()
    if served.memory is not None:
        served.memory.remember(exchange.request_id, answers, request.rows)
    if served.observations is not None:
        served.observations.add(exchange.request_id, request.data, answers, request.rows, len(body))
    parsed = request.parsed_at
    exchange.stages = (parsed - started, validated - parsed, predicted - validated, encoded - predicted)
    if json_length is None:
        return Reply(200, payload)
    return Reply(200, payload, OCTETS, ((HEADER_LENGTH, str(json_length)),))


def _admit(
    service: Service, environ: WSGIEnvironment, protocol: str, name: str | None, version: str | None
) -> tuple[Exchange, ServedModel]:
    """Let a request in, or raise what turns it away, before its body is read."""
    exchange = exchange_of(environ)
    exchange.protocol = protocol
    authorise(service, environ)
    turn_away_when_overloaded(service)
    exchange.model = served = service.models.get(name, version)
    return exchange, served
