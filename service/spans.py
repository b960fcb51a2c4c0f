"""OpenTelemetry traces of the requests: a server span each, in it one span for each stage. The extra ``tracing``.

In the request's path only ids are drawn and the sampler is asked, and at the end of a sampled request one object goes
into a queue. A thread of the SDK makes spans of it, encodes them (60 µs), and sends them by OTLP over HTTP.
A full queue, or a receiver that doesn't answer, costs traces and nothing else; what is lost is counted.

Everything else is as OpenTelemetry's own ``OTEL_*`` variables say. A span never holds a body, a header or a query.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, get_args

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagators.textmap import Getter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    format_span_id,
    format_trace_id,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import Counter

from service.metrics import Metrics
from service.seldom import Seldom
from service.span_export import SDK_LOG, Answered, Result, Sender, attributes_of, own_resource, route_of

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from service.exchange import Exchange

#: How long a worker that ends waits until its last traces are out: no model, and nobody's answer, depends on them.
LAST_SECONDS: Final = 2.0
#: Requests that wait to be sent, when OTEL_BSP_MAX_QUEUE_SIZE says nothing; about 1 KiB each.
_MOST_WAITING: Final = 2048
#: The trace id is random, says this flag of W3C's Trace Context, Level 2.
_RANDOM: Final = 0x02

_propagator: Final = TraceContextTextMapPropagator()
_log = logging.getLogger(__name__)


class Trace(NamedTuple):
    """What is known of a request's trace before it is answered.

    Attributes
    ----------
    context : SpanContext
        Of the server span.
    parent : SpanContext, optional
        The caller's, when it sent a valid one.
    """

    context: SpanContext
    parent: SpanContext | None

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        return format_trace_id(self.context.trace_id)

    @property
    def span_id(self) -> str:
        """16 hexadecimal digits: the server span's."""
        return format_span_id(self.context.span_id)

    def headers(self) -> dict[str, str]:
        """Return the headers for a request that is made because of this one."""
        carrier: dict[str, str] = {}
        _propagator.inject(carrier, set_span_in_context(NonRecordingSpan(self.context), Context()))
        return carrier


class Tracing:
    """A worker's traces; made after the fork, since it has a thread.

    Parameters
    ----------
    metrics : Metrics
        Where it is counted what became of them.
    """

    def __init__(self, metrics: Metrics) -> None:
        provider = TracerProvider(shutdown_on_exit=False)
        self._sampler = provider.sampler
        self._resource = own_resource()
        counter = Counter(
            "muelle_traces_total",
            "Sampled requests whose spans were sent, refused by the receiver, or dropped before.",
            ("result",),
            registry=metrics.registry,
        )
        self._results: dict[Result, Counter] = {result: counter.labels(result) for result in get_args(Result)}
        self._lock = threading.Lock()
        self._handed = 0
        self._dropped = 0
        metrics.before_flush(self._count_dropped)
        self._room = _room()
        self._sdk_log = Seldom(*SDK_LOG)
        self._sender = Sender(OTLPSpanExporter(), self._results)
        self._processor = BatchSpanProcessor(self._sender, max_queue_size=self._room)

    def begin(self, environ: WSGIEnvironment) -> Trace:
        """Return a request's place in a trace: the caller's, when it sent a valid one, else a new one.

        Parameters
        ----------
        environ : WSGI environment
            Of the request; only ``traceparent`` and ``tracestate`` are looked at.
        """
        parent, around = None, _NOWHERE
        if "HTTP_TRACEPARENT" in environ:
            around = _propagator.extract(environ, _NOWHERE, _HEADERS)
            given = get_current_span(around).get_span_context()
            parent = given if given.is_valid else None
        trace_id = (random.getrandbits(128) or 1) if parent is None else parent.trace_id
        decision = self._sampler.should_sample(around, trace_id, "POST", SpanKind.SERVER)
        flags = _RANDOM if parent is None else parent.trace_flags & _RANDOM
        if decision.decision is Decision.RECORD_AND_SAMPLE:
            flags |= TraceFlags.SAMPLED
        # An id need not be secret; gunicorn seeds each worker's generator anew.
        span_id = random.getrandbits(64) or 1
        return Trace(SpanContext(trace_id, span_id, False, TraceFlags(flags), decision.trace_state), parent)

    def end(self, environ: WSGIEnvironment, exchange: Exchange, trace: Trace, started: float, seconds: float) -> None:
        """Hand in a request that was answered just now; only the sampled ones of the prediction and feedback routes.

        Parameters
        ----------
        environ : WSGI environment
            Of the request.
        exchange : Exchange
            What is known of it now.
        trace : Trace
            What `begin` returned.
        started : float
            When it began, on the clock of `time.perf_counter`.
        seconds : float
            How long it took.
        """
        if not trace.context.trace_flags.sampled:
            return
        path = environ["PATH_INFO"]
        route = route_of(exchange.protocol, path)
        if route is None:
            return
        with self._lock:
            # The processor drops the oldest when it is full, and logs each time; here it is counted, and never is.
            if self._handed - self._sender.taken >= self._room:
                self._dropped += 1
                return
            self._handed += 1
        ended = time.time_ns()
        began = ended - int(seconds * 1e9)
        attributes = attributes_of(environ, exchange, route, path)
        stages = None if exchange.stages is None else (exchange.decode_started - started, *exchange.stages)
        self._processor.on_end(
            Answered(trace.context, trace.parent, self._resource, (began, ended), stages, attributes)
        )

    def close(self) -> None:
        """Send what waits, but only as long as `LAST_SECONDS` last; nothing is taken any more."""
        ending = threading.Thread(target=self._processor.shutdown, name="traces-end", daemon=True)
        ending.start()
        ending.join(LAST_SECONDS)
        if ending.is_alive():
            _log.warning("the last traces could not be sent within %g s", LAST_SECONDS)
            self._results["dropped"].inc(self._handed - self._sender.settled)
            # Ends the wait between two attempts, so that the threads end where the process goes on.
            self._sender.shutdown()
        self._sdk_log.close()

    def _count_dropped(self) -> None:
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        if dropped:
            self._results["dropped"].inc(dropped)


class _Headers(Getter[Mapping[str, str]]):
    """Finds a request's headers in its WSGI environment."""

    def get(self, carrier: Mapping[str, str], key: str) -> list[str] | None:
        value = carrier.get(f"HTTP_{key.upper()}")
        return None if value is None else [value]

    def keys(self, carrier: Mapping[str, str]) -> list[str]:
        return list(carrier)


_NOWHERE: Final = Context()
_HEADERS: Final = _Headers()


def _room() -> int:
    return int(os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE") or _MOST_WAITING)
