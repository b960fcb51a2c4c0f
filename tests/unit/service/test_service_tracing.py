"""What stops the start when traces are asked for, and the context that goes out."""

from __future__ import annotations

import pytest
from opentelemetry.trace import SpanContext, TraceFlags, TraceState

from muelle.errors import SettingsError
from service.exchange import Exchange
from service.settings import Settings
from service.spans import Trace
from service.tracing import check_tracing, is_wanted, outgoing

SPAN = SpanContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, False, TraceFlags(1))


def test_either_switch_turns_traces_off() -> None:
    on, off = Settings.from_environ({"MUELLE_TRACING": "true"}), Settings.from_environ({})
    assert is_wanted(on, {})
    assert is_wanted(on, {"OTEL_SDK_DISABLED": "false"})
    assert not is_wanted(on, {"OTEL_SDK_DISABLED": " True "})
    assert not is_wanted(off, {})


@pytest.mark.parametrize(
    "good",
    [
        {},
        {"OTEL_TRACES_SAMPLER": "", "OTEL_EXPORTER_OTLP_PROTOCOL": ""},
        {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"},
        {"OTEL_TRACES_SAMPLER": "always_off"},
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://collector.example:4318/v1/traces"},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_TRACES_EXPORTER": "otlp"},
        {"OTEL_BSP_MAX_QUEUE_SIZE": "4096", "OTEL_BSP_SCHEDULE_DELAY": "1"},
    ],
)
def test_settings_that_make_sense_are_taken(good: dict[str, str]) -> None:
    check_tracing(good)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("OTEL_TRACES_EXPORTER", "jaeger", "otlp"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "http/protobuf"),
        ("OTEL_TRACES_SAMPLER", "sometimes", "parentbased_"),
        ("OTEL_TRACES_SAMPLER_ARG", "1%", "a share from 0 to 1"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5", "a share from 0 to 1"),
        ("OTEL_TRACES_SAMPLER_ARG", "nan", "a share from 0 to 1"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "1 or more"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "-5", "1 or more"),
        ("OTEL_BSP_SCHEDULE_DELAY", "5s", "1 or more"),
    ],
)
def test_settings_that_make_none_stop_the_start(key: str, value: str, expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_tracing({key: value})
    assert str(caught.value).startswith(f"{key}: expected ")
    assert expected in str(caught.value)
    assert repr(value) in str(caught.value)


def test_a_batch_larger_than_the_queue_stops_the_start() -> None:
    # The SDK would stop each worker with it.
    with pytest.raises(SettingsError, match=r"OTEL_BSP_MAX_EXPORT_BATCH_SIZE: .* at most OTEL_BSP_MAX_QUEUE_SIZE, 100"):
        check_tracing({"OTEL_BSP_MAX_QUEUE_SIZE": "100"})
    check_tracing({"OTEL_BSP_MAX_QUEUE_SIZE": "100", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "100"})


@pytest.mark.parametrize("key", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
@pytest.mark.parametrize(
    "value", ["user:secret@collector:4318", "http://user:secret@:4318", "http://user:se/cret@collector", "http://[::1"]
)
def test_an_endpoint_is_a_url_and_is_not_repeated(key: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_tracing({key: value})
    assert str(caught.value) == f"{key}: expected a URL with http:// or https://"


def test_what_the_sdk_refuses_or_warns_of_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many")
    with pytest.raises(SettingsError, match="OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT must be a non-negative integer"):
        check_tracing({})
    monkeypatch.delenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization: secret")
    with pytest.raises(SettingsError, match="Header format invalid") as caught:
        check_tracing({})
    assert "secret" not in str(caught.value)


def test_nothing_goes_out_without_a_trace() -> None:
    assert outgoing(Exchange(None)) == {}


@pytest.mark.parametrize("flags", [0, 1, 3])
def test_the_context_that_goes_out_is_the_server_spans(flags: int) -> None:
    exchange = Exchange(None)
    exchange.trace = Trace(SpanContext(SPAN.trace_id, SPAN.span_id, False, TraceFlags(flags)), None)
    assert outgoing(exchange) == {"traceparent": f"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0{flags}"}


def test_the_callers_state_goes_out_as_it_came() -> None:
    exchange = Exchange(None)
    state = TraceState([("vendor", "a:b"), ("other", "1")])
    exchange.trace = Trace(SpanContext(SPAN.trace_id, SPAN.span_id, False, TraceFlags(1), state), None)
    assert outgoing(exchange)["tracestate"] == "vendor=a:b,other=1"
