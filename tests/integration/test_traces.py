"""OpenTelemetry traces of a real server, taken by a real OTLP receiver."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lifecycle import FOUR, LINEAR, kill, scrape, total, wait_loads, wait_workers
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Kinds
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from support import Server, free_port
from trace_receiver import Received, Receiver

from service.metrics import STAGES
from service.spans import LAST_SECONDS

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
INFER = {"inputs": [{"name": "features", "shape": [2, 1], "datatype": "FP64", "data": [1.0, 2.0]}]}
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50"}
TRACES = "muelle_traces_total"


def settings(receiver: Receiver, **more: str) -> dict[str, str]:
    return {"MUELLE_TRACING": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, **SOON, **more}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture(scope="module")
def server(repository: Path, receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    given = {"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test,k8s.pod.name=pod-7"}
    with Server(repository, tmp_path_factory.mktemp("traces"), settings(receiver, **given)) as running:
        running.wait_ready()
        wait_loads(running, 6)
        yield running


def ask(server: Server, path: str, document: object, **headers: str) -> tuple[int, str]:
    """Send a request with an id of its own, and return its status and that id."""
    request_id = f"trace-test-{time.perf_counter_ns()}"
    answer = server.post(path, document, {"X-Request-Id": request_id, **headers})
    assert answer.headers["x-request-id"] == request_id
    return answer.status, request_id


def of(receiver: Receiver, request_id: str, count: int) -> tuple[Received, list[Received]]:
    """Wait for a request's spans; return the server span and its children in order of time."""

    def mine(spans: list[Received]) -> list[Received]:
        own = [span for span in spans if span.attributes.get("muelle.request_id") == request_id]
        ids = {span.span_id for span in own}
        return own + sorted((span for span in spans if span.parent_id in ids), key=lambda span: span.start)

    found = mine(receiver.wait(lambda spans: len(mine(spans)) == count))
    return found[0], found[1:]


def line_of(server: Server, request_id: str) -> dict[str, object]:
    """Wait for a request's line in the access log, and return it."""
    lines: list[dict[str, object]] = []

    def written() -> bool:
        lines[:] = [line for line in server.log() if line.get("request_id") == request_id]
        return bool(lines)

    server.wait_for(written, "to write its access log")
    return lines[0]


@pytest.mark.parametrize(
    ("path", "document", "route", "rows"),
    [
        ("/models/linear/predict", FOUR, "/models/{model}/predict", 1),
        ("/models/linear/versions/1/predict", FOUR, "/models/{model}/versions/{version}/predict", 1),
        ("/v2/models/linear/infer", INFER, "/v2/models/{model}/infer", 2),
        ("/v2/models/linear/versions/1/infer", INFER, "/v2/models/{model}/versions/{version}/infer", 2),
    ],
)
def test_a_request_is_a_server_span_with_its_four_stages(
    path: str, document: object, route: str, rows: int, server: Server, receiver: Receiver
) -> None:
    before = time.time_ns()
    status, request_id = ask(server, path, document)
    after = time.time_ns()
    assert status == 200
    span, stages = of(receiver, request_id, 5)
    assert (span.name, span.kind) == (f"POST {route}", Kinds.SPAN_KIND_SERVER)
    assert span.attributes == {
        "http.request.method": "POST",
        "http.route": route,
        "http.response.status_code": 200,
        "url.path": path,
        "url.scheme": "http",
        "muelle.request_id": request_id,
        "muelle.model": "linear",
        "muelle.version": "1",
        "muelle.rows": rows,
    }
    assert span.status == Status.STATUS_CODE_UNSET
    assert [stage.name for stage in stages] == list(STAGES)
    assert {stage.trace_id for stage in stages} == {span.trace_id}
    assert {stage.kind for stage in stages} == {Kinds.SPAN_KIND_INTERNAL}
    assert len({span.span_id, *(stage.span_id for stage in stages)}) == 5
    # One after the other, in the request, while we waited for it.
    instants = [before, span.start, *(instant for stage in stages for instant in (stage.start, stage.end)), span.end]
    assert instants == sorted(instants)
    assert span.end <= after
    assert [stage.end for stage in stages[:-1]] == [stage.start for stage in stages[1:]]


def test_the_resource_says_who_it_was(server: Server, receiver: Receiver) -> None:
    span, _ = of(receiver, ask(server, LINEAR, FOUR)[1], 5)
    assert span.resource["service.name"] == "muelle"
    assert span.resource["telemetry.sdk.name"] == "opentelemetry"
    assert span.resource["deployment.environment.name"] == "test"
    assert span.resource["k8s.pod.name"] == "pod-7"
    assert span.resource["process.pid"] in server.workers()


def test_a_callers_trace_goes_on_and_its_state_is_kept(server: Server, receiver: Receiver) -> None:
    _, request_id = ask(server, LINEAR, FOUR, **SAMPLED, tracestate="vendor=a:b,other=1")
    span, stages = of(receiver, request_id, 5)
    assert (span.trace_id, span.parent_id) == (TRACE, PARENT)
    assert {stage.parent_id for stage in stages} == {span.span_id}
    assert {one.trace_state for one in (span, *stages)} == {"vendor=a:b,other=1"}


def test_the_access_log_has_the_spans_ids(server: Server, receiver: Receiver) -> None:
    _, request_id = ask(server, LINEAR, FOUR, **SAMPLED)
    span, _ = of(receiver, request_id, 5)
    line = line_of(server, request_id)
    assert (line["trace_id"], line["span_id"]) == (TRACE, span.span_id)


def test_a_caller_that_does_not_sample_gets_ids_and_no_spans(server: Server, receiver: Receiver) -> None:
    _, request_id = ask(server, LINEAR, FOUR, traceparent=f"00-{TRACE}-{PARENT}-00")
    assert line_of(server, request_id)["trace_id"] == TRACE
    of(receiver, ask(server, LINEAR, FOUR)[1], 5)
    time.sleep(0.5)  # the other worker's queue
    assert request_id.encode() not in b"".join(receiver.bodies)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "nonsense",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-01" + "0" * 5000,
        "é" * 55,
    ],
)
def test_a_malformed_traceparent_begins_a_new_trace(given: str, server: Server, receiver: Receiver) -> None:
    _, request_id = ask(server, LINEAR, FOUR, traceparent=given, tracestate="a=1")
    span, _ = of(receiver, request_id, 5)
    assert span.parent_id == span.trace_state == ""
    assert span.trace_id not in (TRACE, "0" * 32)


def test_two_traceparents_begin_a_new_trace(server: Server, receiver: Receiver) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    body = json.dumps(FOUR)
    connection.putrequest("POST", LINEAR)
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), "X-Request-Id": "twice-traced"}
    for name, value in [*headers.items(), *SAMPLED.items(), *SAMPLED.items()]:
        connection.putheader(name, value)
    connection.endheaders(body.encode())
    assert connection.getresponse().status == 200
    connection.close()
    span, _ = of(receiver, "twice-traced", 5)
    assert (span.parent_id, span.trace_id == TRACE) == ("", False)


def test_a_malformed_tracestate_is_left_out_and_the_trace_kept(server: Server, receiver: Receiver) -> None:
    _, request_id = ask(server, LINEAR, FOUR, **SAMPLED, tracestate="no state, at=all, =,,")
    span, _ = of(receiver, request_id, 5)
    assert (span.trace_id, span.parent_id, span.trace_state) == (TRACE, PARENT, "")


def test_feedback_that_goes_on_to_another_replica_stays_in_its_trace(
    repository: Path, receiver: Receiver, tmp_path: Path
) -> None:
    port = str(free_port())
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    more = settings(receiver, MUELLE_PORT=port)
    peers = {"MUELLE_HOST": "127.0.0.1", "MUELLE_FEEDBACK_PEERS": f"127.0.0.2:{port}"}
    with (
        Server(repository, tmp_path / "first", more | peers) as first,
        Server(repository, tmp_path / "second", more | {"MUELLE_HOST": "127.0.0.2"}) as second,
    ):
        first.wait_ready()
        second.wait_ready()
        wait_loads(first, 6)
        wait_loads(second, 6)
        predicted = second.post("/models/iris/predict", {"features": [5.1, 3.5, 1.4, 0.2]}).headers["x-request-id"]
        label = {"request_id": predicted, "label": 0}
        answer = first.post("/feedback", label, {"X-Request-Id": "labels-on-tour", **SAMPLED, "tracestate": "a=1"})
        assert (answer.status, answer.json["matched"]) == (200, 1)

        def in_trace(spans: list[Received]) -> list[Received]:
            return [span for span in spans if span.attributes.get("muelle.request_id") == "labels-on-tour"]

        found = {span.parent_id: span for span in in_trace(receiver.wait(lambda spans: len(in_trace(spans)) == 2))}
    asked = found.pop(PARENT)
    ((parent, passed_on),) = found.items()
    assert parent == asked.span_id
    assert {span.name for span in (asked, passed_on)} == {"POST /feedback"}
    assert {span.trace_id for span in (asked, passed_on)} == {TRACE}
    assert {span.trace_state for span in (asked, passed_on)} == {"a=1"}
    assert asked.resource["process.pid"] != passed_on.resource["process.pid"]


def test_refused_requests_are_spans_without_stages(server: Server, receiver: Receiver) -> None:
    status, request_id = ask(server, LINEAR, {"features": ["x"]})
    span, stages = of(receiver, request_id, 1)
    assert (status, span.attributes["http.response.status_code"], stages) == (400, 400, [])
    assert span.attributes["muelle.model"] == "linear"
    # By the conventions it is the caller's error, not the server's.
    assert span.status == Status.STATUS_CODE_UNSET
    status, request_id = ask(server, "/models/rose/predict", FOUR)
    span, _ = of(receiver, request_id, 1)
    assert (status, span.name) == (404, "POST /models/{model}/predict")
    assert not {"muelle.model", "muelle.version", "muelle.rows"} & set(span.attributes)


def test_what_is_no_prediction_makes_no_span(server: Server, receiver: Receiver) -> None:
    for method, path in [("GET", "/livez"), ("GET", "/metrics"), ("GET", "/"), ("POST", "/nowhere"), ("PUT", LINEAR)]:
        server.request(method, path, headers={"X-Request-Id": "no-span", **SAMPLED})
    of(receiver, ask(server, LINEAR, FOUR)[1], 5)
    time.sleep(0.5)
    assert b"no-span" not in b"".join(receiver.bodies)


def test_neither_rows_nor_keys_nor_queries_are_in_a_span(server: Server, receiver: Receiver) -> None:
    headers = {
        "Authorization": "Bearer secret-key",
        "X-Api-Key": "secret-key",
        "User-Agent": "secret-agent",
        "Cookie": "secret-cookie",
    }
    _, good = ask(server, f"{LINEAR}?secret-query=1", {"features": [123454321.0]}, **headers)
    _, bad = ask(server, f"{LINEAR}?secret-query=1", {"features": ["secret-value"]}, **headers)
    of(receiver, good, 5)
    of(receiver, bad, 1)
    sent = b"".join(receiver.bodies)
    assert b"secret" not in sent
    assert b"123454321" not in sent
    # OTLP has numbers in binary form, too; the one of them that we send as such is no row.
    values = {value for span in receiver.spans() for value in span.attributes.values()}
    assert 123454321.0 not in values


def test_traces_are_counted(server: Server, receiver: Receiver) -> None:
    workers = set(server.workers())
    # Other tests have waited for all of theirs to come; a worker counts them when it has the receiver's answer.
    sent = sum(
        span.kind == Kinds.SPAN_KIND_SERVER and span.resource["process.pid"] in workers for span in receiver.spans()
    )
    server.wait_for(lambda: total(scrape(server), TRACES, result="sent") == sent, "to have counted the last ones")
    for _ in range(10):
        ask(server, LINEAR, FOUR)
    server.wait_for(lambda: total(scrape(server), TRACES, result="sent") == sent + 10, "to have sent them")
    assert total(scrape(server), TRACES) == total(scrape(server), TRACES, result="sent")


def test_server_errors_are_marked(repository: Path, tmp_path: Path) -> None:
    with Receiver() as receiver, Server(tmp_path / "none", tmp_path, settings(receiver)) as server:
        server.wait_answering()
        assert server.post("/predict", FOUR, {"X-Request-Id": "early"}).status == 503
        span, _ = of(receiver, "early", 1)
    assert span.name == "POST /predict"
    assert span.status == Status.STATUS_CODE_ERROR
    assert span.attributes["error.type"] == "503"


def test_the_sampler_is_the_one_of_the_environment(repository: Path, tmp_path: Path) -> None:
    sampler = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}
    more = {"OTEL_SERVICE_NAME": "wine", "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}
    with Receiver() as receiver, Server(repository, tmp_path, settings(receiver, **sampler, **more)) as server:
        server.wait_ready()
        wait_loads(server, 6)
        for _ in range(50):
            assert server.post(LINEAR, FOUR).status == 200
        # Whoever is asked by someone that samples does as well.
        span, _ = of(receiver, ask(server, LINEAR, FOUR, **SAMPLED)[1], 5)
        server.stop()
        assert {one.trace_id for one in receiver.spans()} == {TRACE}
    assert span.resource["service.name"] == "wine"
    assert receiver.headers[0]["content-encoding"] == "gzip"


def test_what_waits_is_sent_when_the_server_ends(repository: Path, tmp_path: Path) -> None:
    later = {"OTEL_BSP_SCHEDULE_DELAY": "600000"}
    with Receiver() as receiver, Server(repository, tmp_path, settings(receiver, **later)) as server:
        server.wait_ready()
        wait_loads(server, 6)
        asked = {ask(server, LINEAR, FOUR)[1] for _ in range(40)}
        assert receiver.bodies == []
        assert server.stop() == 0
        ids = {span.attributes.get("muelle.request_id") for span in receiver.spans()}
    assert asked <= ids


def test_workers_that_are_recycled_or_killed_leave_the_others_traces_alone(repository: Path, tmp_path: Path) -> None:
    with Receiver() as receiver, Server(repository, tmp_path, settings(receiver, MUELLE_MAX_REQUESTS="30")) as server:
        server.wait_ready()
        wait_loads(server, 6)
        first = set(server.workers())
        asked = {ask(server, LINEAR, FOUR)[1] for _ in range(150)}
        wait_workers(server, 2, without=first)
        receiver.wait(lambda spans: asked <= {span.attributes.get("muelle.request_id") for span in spans})
        kill(server.workers()[0])
        wait_workers(server, 2)
        assert len({of(receiver, ask(server, LINEAR, FOUR)[1], 5)[0].span_id for _ in range(10)}) == 10


@pytest.mark.parametrize("way", ["refused", "silent", "unavailable", "forbidden"])
def test_a_broken_receiver_costs_traces_and_nothing_else(way: str, repository: Path, tmp_path: Path) -> None:
    with Receiver() as receiver:
        environ = settings(receiver, OTEL_BSP_MAX_QUEUE_SIZE="20", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="10")
        if way == "refused":
            environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{free_port()}"
        elif way == "silent":
            receiver.hang()
            environ["OTEL_EXPORTER_OTLP_TIMEOUT"] = "1"
        else:
            receiver.status = {"unavailable": 503, "forbidden": 403}[way]
        environ["OTEL_EXPORTER_OTLP_HEADERS"] = "authorization=Bearer receivers-secret"
        with Server(repository, tmp_path, environ) as server:
            server.wait_ready()
            wait_loads(server, 6)
            for _ in range(400):
                answer = server.post(LINEAR, {"features": [123454321.0]})
                assert answer.status == 200
            lost = {"result": "failed" if way == "forbidden" else "dropped"}

            def enough_is_lost() -> bool:
                # On a slow machine a receiver's silence costs less than it should: then more are needed.
                assert all(server.post(LINEAR, {"features": [123454321.0]}).status == 200 for _ in range(20))
                return total(scrape(server), TRACES, **lost) >= 100

            server.wait_for(enough_is_lost, "to have counted what it lost")
            assert total(scrape(server), TRACES, result="sent") == 0
            started = time.monotonic()
            assert server.stop() == 0
            # What the worker takes to end without traces, too, is under a second.
            assert time.monotonic() - started < LAST_SECONDS + 5
        log = server.log_path.read_text()
    said = [line for line in server.log() if line["logger"].startswith("opentelemetry")]
    assert 1 <= len(said) <= 12, said
    assert "receivers-secret" not in log
    assert "123454321" not in log


def test_many_malformed_headers_do_not_fill_the_log(server: Server) -> None:
    for number in range(100):
        state = f"hostile-{number}=1,hostile-{number}=2,=,no state"
        headers = {"traceparent": SAMPLED["traceparent"] + "0" * 600 * (number % 2), "tracestate": state}
        assert server.post(LINEAR, FOUR, headers).status == 200
    said = [line for line in server.log() if line["logger"].startswith("opentelemetry")]
    assert len(said) < 20
    assert "hostile-" not in json.dumps(said)


def test_traces_can_be_switched_off_by_either_setting(repository: Path, tmp_path: Path) -> None:
    with Receiver() as receiver:
        for number, off in enumerate([{"MUELLE_TRACING": "false"}, {"OTEL_SDK_DISABLED": "true"}]):
            folder = tmp_path / str(number)
            folder.mkdir()
            with Server(repository, folder, settings(receiver) | off) as server:
                server.wait_ready()
                wait_loads(server, 6)
                _, request_id = ask(server, LINEAR, FOUR, **SAMPLED)
                assert "trace_id" not in line_of(server, request_id)
                assert TRACES not in {name for name, _ in scrape(server)}
        assert receiver.bodies == []


def test_settings_that_make_no_sense_stop_the_start(repository: Path, tmp_path: Path) -> None:
    wrong = {
        "MUELLE_TRACING": "true",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "user:password@collector:4318",
    }
    with Server(repository, tmp_path, wrong) as server:
        assert server.process is not None
        assert server.process.wait(60) != 0
    log = server.log_path.read_text()
    assert "OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf" in log
    assert "OTEL_EXPORTER_OTLP_ENDPOINT: expected a URL" in log
    assert "password" not in log
    assert "Traceback" not in log


def test_what_the_sdk_would_only_warn_of_stops_the_start_and_tells_no_secret(repository: Path, tmp_path: Path) -> None:
    wrong = {"MUELLE_TRACING": "true", "OTEL_EXPORTER_OTLP_HEADERS": "authorization: Bearer receivers-secret"}
    with Server(repository, tmp_path, wrong) as server:
        assert server.process is not None
        assert server.process.wait(60) != 0
    log = server.log_path.read_text()
    assert "MUELLE_TRACING: OpenTelemetry says of its settings: Header format invalid!" in log
    assert "receivers-secret" not in log


def test_without_the_extra_it_says_so_at_the_start(repository: Path, tmp_path: Path) -> None:
    # A folder in front of all others, in which OpenTelemetry is what it is where nobody has installed it.
    (tmp_path / "opentelemetry").mkdir()
    missing = "raise ModuleNotFoundError(\"No module named 'opentelemetry'\", name='opentelemetry')"
    (tmp_path / "opentelemetry" / "__init__.py").write_text(missing)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", ".")])
    with Server(repository, tmp_path, {"MUELLE_TRACING": "true", "PYTHONPATH": path}) as server:
        assert server.process is not None
        assert server.process.wait(60) != 0
    log = server.log_path.read_text()
    assert "pip install 'muelle[tracing]'" in log
    assert "Traceback" not in log
    # Without traces nobody misses it.
    with Server(repository, tmp_path, {"PYTHONPATH": path}) as server:
        server.wait_ready()
        assert server.post(LINEAR, FOUR).status == 200
