"""A real OTLP receiver for tests: takes spans by HTTP, decodes them, and can refuse them or not answer at all."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Received:
    """One span as it came."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    trace_state: str
    start: int
    end: int
    status: int
    attributes: dict[str, Any]
    resource: dict[str, Any]


class Receiver:
    """A receiver on a free port of 127.0.0.1; a context manager.

    Attributes
    ----------
    status : int
        What it answers.
    bodies : list of bytes
        What came, uncompressed, also what it refused.
    """

    def __init__(self) -> None:
        self.status = 200
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self._answering = threading.Event()
        self._answering.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                zipped = self.headers.get("Content-Encoding") == "gzip"
                receiver.headers.append({key.lower(): value for key, value in self.headers.items()})
                receiver.bodies.append(gzip.decompress(body) if zipped else body)
                receiver._answering.wait(60)
                self.send_response(receiver.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """What OTEL_EXPORTER_OTLP_ENDPOINT should be."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._answering.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def hang(self) -> None:
        """Take what comes, and answer nothing."""
        self._answering.clear()

    def go_on(self) -> None:
        """Answer again, also what has waited."""
        self._answering.set()

    def spans(self) -> list[Received]:
        """Return the spans that came."""
        found = []
        for body in tuple(self.bodies):
            for of in ExportTraceServiceRequest.FromString(body).resource_spans:
                resource = _plain(of.resource.attributes)
                for scope in of.scope_spans:
                    found += [_received(span, resource) for span in scope.spans]
        return found

    def wait(self, condition: Callable[[list[Received]], bool], seconds: float = 30.0) -> list[Received]:
        """Wait until a condition holds for the spans that came, and return them."""
        deadline = time.monotonic() + seconds
        while not condition(found := self.spans()):
            assert time.monotonic() < deadline, f"{len(found)} spans came: {found[:5]}"
            time.sleep(0.02)
        return found


def _received(span: Any, resource: dict[str, Any]) -> Received:
    return Received(
        span.name,
        span.kind,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.trace_state,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.status.code,
        _plain(span.attributes),
        resource,
    )


def _plain(attributes: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in attributes}
