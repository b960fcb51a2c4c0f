"""What the log and the metrics say of a request, whatever the application does with it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from uuid import RFC_4122, UUID

import pytest
from prometheus_client import CollectorRegistry

from service.exchange import Exchange, Observed, exchange_of, new_request_id
from service.logs import AccessLog
from service.metrics import Metrics
from service.models import ServedModel

Environ = dict[str, Any]


class Bench:
    """An `Observed` around an application, with what it logs and counts."""

    def __init__(self, app: Callable[[Environ, Any], Iterable[bytes]]) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.reading, self.writing = os.pipe()
        self._observed = Observed(app, self.metrics, AccessLog(self.writing))
        self.head: tuple[str, list[tuple[str, str]]] = ("", [])

    def ask(self, **environ: str) -> bytes:
        def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> Callable[[bytes], object]:
            self.head = status, headers
            return lambda data: None

        return b"".join(self._observed({"REQUEST_METHOD": "POST", "PATH_INFO": "/predict", **environ}, start_response))

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in os.read(self.reading, 65536).splitlines()]

    def count(self, **labels: str) -> float | None:
        self.metrics.flush()
        return self.registry.get_sample_value("muelle_requests_total", labels)


@pytest.fixture
def bench() -> Iterator[Callable[[Any], Bench]]:
    made: list[Bench] = []

    def make(app: Any) -> Bench:
        made.append(Bench(app))
        return made[-1]

    yield make
    for each in made:
        os.close(each.reading)
        os.close(each.writing)


def answering(status: str, **attributes: Any) -> Any:
    """Return an application that answers with a status, after it has noted these things about the request."""

    def app(environ: Environ, start_response: Any) -> list[bytes]:
        for name, value in attributes.items():
            setattr(exchange_of(environ), name, value)
        start_response(status, [("Content-Length", "2")])
        return [b"ok"]

    return app


@pytest.mark.parametrize("given", ["abc", "A-1_b.c:d/e+f=g@h", "x" * 128])
def test_a_plain_request_id_is_kept(given: str) -> None:
    assert Exchange(given).request_id == given


@pytest.mark.parametrize("given", [None, "", "x" * 129, "a b", "a\nb", "ä", '{"a":1}', "a;b", "%0a"])
def test_any_other_request_id_is_replaced_by_a_fresh_one(given: str | None) -> None:
    first, second = Exchange(given).request_id, Exchange(given).request_id
    assert first != second
    for made in (first, second):
        assert str(UUID(made)) == made
        assert (UUID(made).version, UUID(made).variant) == (7, RFC_4122)


def test_fresh_request_ids_sort_by_time() -> None:
    before = time.time_ns() // 1_000_000
    made = new_request_id()
    assert before <= UUID(made).int >> 80 <= time.time_ns() // 1_000_000


def test_an_answer_carries_the_id_and_is_logged(bench: Any) -> None:
    model = ServedModel("iris", "3", metrics=None)  # type: ignore[arg-type]
    made = bench(answering("200 OK", model=model, rows=7, bytes_in=9, caller="alice"))
    assert made.ask(HTTP_X_REQUEST_ID="mine", PATH_INFO="/models/iris/predict") == b"ok"
    assert made.head == ("200 OK", [("Content-Length", "2"), ("X-Request-Id", "mine")])
    (line,) = made.lines()
    assert line.pop("duration_seconds") >= 0
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "service.access",
        "message": "request",
        "request_id": "mine",
        "method": "POST",
        "path": "/models/iris/predict",
        "status": 200,
        "bytes_in": 9,
        "bytes_out": 2,
        "model": "iris",
        "version": "3",
        "rows": 7,
        "caller": "alice",
    }


def test_a_prediction_counts_for_its_model_or_as_unknown(bench: Any) -> None:
    made = bench(answering("404 NOT FOUND", protocol="simple"))
    made.ask()
    assert made.count(model="unknown", version="unknown", protocol="simple", code="404") == 1
    iris = ServedModel("iris", "1", made.metrics.for_model("iris", "1"))
    made._observed._app = answering("200 OK", protocol="oip", model=iris, rows=3, stages=(0.1, 0.2, 0.3, 0.4))
    made.ask()
    assert made.count(model="iris", version="1", protocol="oip", code="200") == 1
    labels = {"model": "iris", "version": "1"}
    assert made.registry.get_sample_value("muelle_batch_rows_sum", labels) == 3
    stage = made.registry.get_sample_value("muelle_stage_duration_seconds_sum", labels | {"stage": "predict"})
    assert stage == pytest.approx(0.3)


def test_what_is_no_prediction_counts_nowhere(bench: Any) -> None:
    made = bench(answering("200 OK"))
    made.ask(PATH_INFO="/livez", REQUEST_METHOD="GET")
    made.metrics.flush()
    samples = [s for m in made.registry.collect() for s in m.samples if s.name == "muelle_requests_total"]
    assert sum(sample.value for sample in samples) == 0
    assert [line["path"] for line in made.lines()] == ["/livez"]


def test_an_application_that_fails_is_counted_as_500(bench: Any) -> None:
    def failing(environ: Environ, start_response: Any) -> list[bytes]:
        exchange_of(environ).protocol = "simple"
        raise RuntimeError("no")

    made = bench(failing)
    with pytest.raises(RuntimeError, match="no"):
        made.ask()
    assert made.count(model="unknown", version="unknown", protocol="simple", code="500") == 1
    assert [line["status"] for line in made.lines()] == [500]
