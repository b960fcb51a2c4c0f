"""A request's spans as OpenTelemetry has them, made where nobody waits for them: in the thread that sends them."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode
from prometheus_client import Counter

from muelle import __version__
from service.metrics import STAGES
from service.seldom import LibraryLog

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from service.exchange import Exchange

Result = Literal["sent", "failed", "dropped"]

#: The SDK's logs, and which of them may quote values.
SDK_LOG: Final = ("opentelemetry", ("opentelemetry.exporter.", "opentelemetry.sdk."))
_PATH_LENGTH: Final = 200
#: Protocol and number of slashes say which route it was, and so do without a look at what the caller wrote in it.
_ROUTES: Final = {
    ("simple", 1): "/predict",
    ("simple", 3): "/models/{model}/predict",
    ("simple", 5): "/models/{model}/versions/{version}/predict",
    ("oip", 4): "/v2/models/{model}/infer",
    ("oip", 6): "/v2/models/{model}/versions/{version}/infer",
}
_FEEDBACK: Final = "/feedback"
_GOOD: Final = Status()
_FAILED: Final = Status(StatusCode.ERROR)
_SCOPE: Final = InstrumentationScope("muelle", __version__)


class Answered(ReadableSpan):
    """A request's server span, and what is needed to make those of its stages from it."""

    def __init__(
        self,
        context: SpanContext,
        parent: SpanContext | None,
        resource: Resource,
        times: tuple[int, int],
        stages: tuple[float, ...] | None,
        attributes: Mapping[str, str | int],
    ) -> None:
        super().__init__(
            f"POST {attributes['http.route']}",
            context,
            parent,
            resource,
            attributes,
            kind=SpanKind.SERVER,
            status=_FAILED if "error.type" in attributes else _GOOD,
            start_time=times[0],
            end_time=times[1],
            instrumentation_scope=_SCOPE,
        )
        # Seconds: from its beginning to that of the first stage, and then of each stage.
        self._stages = stages
        self._began = times[0]

    def with_stages(self) -> Iterator[ReadableSpan]:
        """Yield this span and those of the stages, when it got through all of them."""
        yield self
        if self._stages is None or self.context is None:
            return
        marks = [0.0]
        for seconds in self._stages:
            marks.append(marks[-1] + seconds)
        instants = [self._began + int(mark * 1e9) for mark in marks[1:]]
        for name, (start, end) in zip(STAGES, pairwise(instants), strict=True):
            of = self.context
            own = SpanContext(of.trace_id, random.getrandbits(64) or 1, False, of.trace_flags, of.trace_state)
            yield ReadableSpan(
                name, own, of, self.resource, start_time=start, end_time=end, instrumentation_scope=_SCOPE
            )


class Sender(SpanExporter):
    """Sends requests with the spans of their stages, in the processor's thread.

    Attributes
    ----------
    taken : int
        Requests that it took out of the processor's queue.
    settled : int
        Those of them that were sent, or have failed.
    """

    def __init__(self, exporter: SpanExporter, results: Mapping[Result, Counter]) -> None:
        self._exporter = exporter
        self._results = results
        self.taken = 0
        self.settled = 0
        self._ended = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send; returns when it is done, or has failed for good."""
        self.taken += len(spans)
        whole = [one for span in spans if isinstance(span, Answered) for one in span.with_stages()]
        result = self._exporter.export(whole)
        self._results["sent" if result is SpanExportResult.SUCCESS else "failed"].inc(len(spans))
        self.settled += len(spans)
        return result

    def shutdown(self) -> None:
        """Send nothing any more; may be called again."""
        if not self._ended:
            self._ended = True
            self._exporter.shutdown()


class _SharedResource(Resource):
    """A resource that hashes fast: the encoder asks for each span, and a plain one writes JSON each time."""

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


def try_settings() -> list[str]:
    """Make what reads the SDK's settings, let it go again, and return what the SDK had to say against them.

    Raises
    ------
    ValueError, ImportError, RuntimeError
        As the SDK does.
    """
    log = LibraryLog(*SDK_LOG)
    try:
        TracerProvider(shutdown_on_exit=False)
        exporter: SpanExporter = OTLPSpanExporter()
        exporter.shutdown()
    finally:
        log.close()
    return log.messages


def own_resource() -> Resource:
    """Return what is said of this process with all its spans; what OTEL_RESOURCE_ATTRIBUTES says comes first."""
    found = dict(Resource.create().attributes)
    if str(found.get(SERVICE_NAME, "unknown_service")).startswith("unknown_service"):
        found[SERVICE_NAME] = "muelle"
    return _SharedResource({SERVICE_VERSION: __version__, "process.pid": os.getpid(), **found})


def route_of(protocol: str, path: str) -> str | None:
    """Return a prediction request's route, or that of feedback; None for others, which make no spans."""
    return _ROUTES.get((protocol, path.count("/")), path if path == _FEEDBACK else None)


def attributes_of(environ: WSGIEnvironment, exchange: Exchange, route: str, path: str) -> dict[str, str | int]:
    """Return a server span's attributes: HTTP's by OpenTelemetry's conventions, ours with a prefix."""
    found: dict[str, str | int] = {
        "http.request.method": "POST",
        "http.route": route,
        "http.response.status_code": exchange.status,
        "url.path": path[:_PATH_LENGTH],
        "url.scheme": environ["wsgi.url_scheme"],
        "muelle.request_id": exchange.request_id,
    }
    if exchange.status >= 500:
        found["error.type"] = str(exchange.status)
    if exchange.model is not None:
        found["muelle.model"] = exchange.model.name
        found["muelle.version"] = exchange.model.version
    if exchange.rows is not None:
        found["muelle.rows"] = exchange.rows
    return found
