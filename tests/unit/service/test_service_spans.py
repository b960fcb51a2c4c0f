"""A worker's traces, with a real receiver: whose place a request takes in them, and what is lost without harm."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from prometheus_client import CollectorRegistry
from trace_receiver import Receiver

from service.exchange import Exchange
from service.metrics import Metrics
from service.models import ServedModel
from service.spans import LAST_SECONDS, Tracing

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


class Bench:
    """A worker's traces, with its metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.tracing = Tracing(self.metrics)

    def ask(self, path: str = "/predict", protocol: str = "simple", status: int = 200, **headers: str) -> Exchange:
        """Let a request begin and end that took 10 ms, the stages 1, 2, 3 and 4 of them 0 ms from its beginning."""
        environ: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": "POST", "wsgi.url_scheme": "http"}
        environ |= {f"HTTP_{name.upper()}": value for name, value in headers.items()}
        exchange = Exchange("r1")
        trace = exchange.trace = self.tracing.begin(environ)
        exchange.protocol, exchange.status = protocol, status
        if status == 200:
            exchange.stages, exchange.rows, exchange.decode_started = (0.001, 0.002, 0.003, 0.004), 7, 100.0
            exchange.model = ServedModel("iris", "2", self.metrics.for_model("iris", "2"))
        self.tracing.end(environ, exchange, trace, 100.0, 0.010)
        return exchange

    def count(self, result: str) -> float | None:
        self.metrics.flush()
        return self.registry.get_sample_value("muelle_traces_total", {"result": result})

    def wait(self, result: str, count: int) -> None:
        deadline = time.monotonic() + 20
        while self.count(result) != count:
            assert time.monotonic() < deadline, f"{self.count(result)} {result}"
            time.sleep(0.01)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with Receiver() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
        yield running


@pytest.fixture
def bench(receiver: Receiver) -> Iterator[Callable[[], Bench]]:
    made: list[Bench] = []

    def make() -> Bench:
        made.append(Bench())
        return made[-1]

    yield make
    receiver.status = 200
    receiver.go_on()
    for each in made:
        each.tracing.close()


def test_the_stages_lie_in_the_request_one_after_the_other(bench: Callable[[], Bench], receiver: Receiver) -> None:
    bench().ask()
    span, *stages = receiver.wait(lambda spans: len(spans) == 5)
    assert span.end - span.start == 10_000_000
    assert abs(time.time_ns() - span.end) < 60_000_000_000
    offsets = [(stage.name, stage.start - span.start, stage.end - span.start) for stage in stages]
    expected = [("decode", 0, 1), ("validate", 1, 3), ("predict", 3, 6), ("encode", 6, 10)]
    for (name, start, end), (expected_name, *milliseconds) in zip(offsets, expected, strict=True):
        assert name == expected_name
        assert [start / 1e6, end / 1e6] == pytest.approx(milliseconds, abs=1e-5)
    assert offsets[0][1] >= 0
    assert stages[-1].end <= span.end
    assert (span.attributes["muelle.model"], span.attributes["muelle.rows"]) == ("iris", 7)


@pytest.mark.parametrize(
    ("path", "protocol", "route"),
    [
        ("/predict", "simple", "/predict"),
        ("/models/m/predict", "simple", "/models/{model}/predict"),
        ("/models/m/versions/v/predict", "simple", "/models/{model}/versions/{version}/predict"),
        ("/v2/models/m/infer", "oip", "/v2/models/{model}/infer"),
        ("/v2/models/m/versions/v/infer", "oip", "/v2/models/{model}/versions/{version}/infer"),
        ("/feedback", "", "/feedback"),
    ],
)
def test_names_are_routes_and_not_what_the_caller_wrote(
    path: str, protocol: str, route: str, bench: Callable[[], Bench], receiver: Receiver
) -> None:
    bench().ask(path, protocol, status=404)
    (span,) = receiver.wait(lambda spans: len(spans) == 1)
    assert (span.name, span.attributes["http.route"], span.attributes["url.path"]) == (f"POST {route}", route, path)


def test_other_paths_make_no_spans(bench: Callable[[], Bench], receiver: Receiver) -> None:
    worker = bench()
    for path in ("/", "/nowhere", "/feedback/", "/metrics", "/models/m/predict"):
        worker.ask(path, "", status=404)
    worker.tracing.close()
    assert receiver.bodies == []


@pytest.mark.parametrize(("status", "marked"), [(200, False), (400, False), (404, False), (500, True), (503, True)])
def test_only_our_own_failures_are_errors(
    status: int, marked: bool, bench: Callable[[], Bench], receiver: Receiver
) -> None:
    bench().ask(status=status)
    span = receiver.wait(lambda spans: len(spans) > 0)[0]
    assert span.status == (Status.STATUS_CODE_ERROR if marked else Status.STATUS_CODE_UNSET)
    assert span.attributes.get("error.type") == (str(status) if marked else None)


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("03", True)])
def test_the_caller_decides_whether_its_trace_is_sampled(
    flags: str, sampled: bool, bench: Callable[[], Bench], receiver: Receiver
) -> None:
    worker = bench()
    trace = worker.ask(traceparent=f"00-{TRACE}-{PARENT}-{flags}", tracestate="a=1").trace
    assert trace is not None
    assert trace.trace_id == TRACE
    # The random flag goes on, too, as Level 2 of the standard wants it.
    assert trace.headers() == {"traceparent": f"00-{TRACE}-{trace.span_id}-{flags}", "tracestate": "a=1"}
    worker.tracing.close()
    assert {span.trace_id for span in receiver.spans()} == ({TRACE} if sampled else set())


def test_a_share_of_the_new_traces_is_sampled(
    bench: Callable[[], Bench], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    worker = bench()
    traces = [worker.ask().trace for _ in range(400)]
    sampled = {trace.trace_id for trace in traces if trace is not None and trace.context.trace_flags.sampled}
    # Six standard deviations.
    assert 140 < len(sampled) < 260
    worker.tracing.close()
    assert {span.trace_id for span in receiver.spans()} == sampled


@given(traceparent=st.text(max_size=80), tracestate=st.text(max_size=80))
def test_no_header_can_make_it_fail(traceparent: str, tracestate: str, session_bench: Bench) -> None:
    assert session_bench.ask(traceparent=traceparent, tracestate=tracestate, path="/nowhere").trace is not None


@given(
    version=st.sampled_from(["00", "01", "ff", "0"]),
    trace_id=st.text("0123456789abcdefF", min_size=31, max_size=33),
    span_id=st.text("0123456789abcdef", min_size=15, max_size=17),
    flags=st.text("0123456789abcdef", min_size=1, max_size=3),
    state=st.lists(st.text("ab=, \t@/1", max_size=12), max_size=5).map(",".join),
)
def test_no_header_that_is_nearly_right_can_make_it_fail(
    version: str, trace_id: str, span_id: str, flags: str, state: str, session_bench: Bench
) -> None:
    traceparent = f"{version}-{trace_id}-{span_id}-{flags}"
    trace = session_bench.ask(traceparent=traceparent, tracestate=state, path="/nowhere").trace
    assert trace is not None
    assert trace.context.is_valid
    assert trace.parent is None or trace.parent.trace_id == trace.context.trace_id


@pytest.fixture(scope="module")
def session_bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.tracing.close()


def test_what_the_queue_does_not_hold_is_dropped_and_counted(
    bench: Callable[[], Bench], receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "5")
    # A full batch is sent at once; a smaller one must not be, however slow the machine.
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    receiver.hang()
    worker = bench()
    for _ in range(5):
        worker.ask()
    receiver.wait(lambda spans: len(spans) == 25)
    for _ in range(30):
        worker.ask()
    assert (worker.count("sent"), worker.count("dropped")) == (0, 20)
    receiver.go_on()
    worker.wait("sent", 15)
    assert (worker.count("failed"), worker.count("dropped")) == (0, 20)
    assert caplog.messages == []


def test_what_the_receiver_refuses_is_counted(bench: Callable[[], Bench], receiver: Receiver) -> None:
    receiver.status = 400
    worker = bench()
    for _ in range(3):
        worker.ask()
    worker.wait("failed", 3)
    assert (worker.count("sent"), worker.count("dropped")) == (0, 0)


def test_the_end_waits_for_a_silent_receiver_no_longer_than_it_should(
    bench: Callable[[], Bench], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    receiver.hang()
    worker = bench()
    for _ in range(3):
        worker.ask()
    started = time.monotonic()
    worker.tracing.close()
    # Not the 30 seconds of the SDK, nor the 10 of a request.
    assert time.monotonic() - started < LAST_SECONDS + 3
    assert worker.count("dropped") == 3
