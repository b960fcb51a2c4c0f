"""What observing costs: our server with all of it, with parts of it and with nothing, under the same single rows."""

from __future__ import annotations

import contextlib
import random
import statistics
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from benchmarks.check import check_answer
from benchmarks.compare import Plan
from benchmarks.servers import Server, free_port, ours, running
from benchmarks.slices import Slices, processor_seconds
from benchmarks.works import Case, json_call

#: Processor time of a request with everything on, as a multiple of that with nothing.
COST_LIMIT: Final = 1.05
#: And its requests a second.
RATE_LIMIT: Final = 0.95
_MODEL: Final = "breast-cancer"
#: Requests in a slice: about a fifth of a second.
_SLICE: Final = 500
#: How long the servers may go on after their load: what is shipped and sent in the background costs, too.
_SETTLE_SECONDS: Final = 13.0
_OFF: Final = "nothing"
_TRACED: Final = {"MUELLE_TRACING": "true", "OTEL_BSP_SCHEDULE_DELAY": "1000"}


@dataclass(frozen=True)
class Cost:
    """What a part of observing costs.

    Attributes
    ----------
    name : str
        What is on.
    processor : float
        Processor time of a request with it, divided by that without.
    rate : float
        Requests a second with it, divided by those without: the median of the slices' own ratios. What is done in the
        background is partly in the others' slices.
    limited : bool
        Whether the two limits are meant for it.
    """

    name: str
    processor: float
    rate: float
    limited: bool


def measure_observing(plan: Plan) -> list[Cost]:
    """Load a server for each way of observing, slice by slice in turn, and compare each with the one that has none.

    Processor time, because on a busy machine a rate shows what was left of the core. It is that of all processes from
    the first slice to some seconds after the last, so that what is done in the background is in it.

    Raises
    ------
    BenchmarkError
        At a wrong answer, or any failed request.
    """
    case = Case.read(plan.folder, _MODEL)
    call = json_call(f"/models/{_MODEL}/predict", case.rows[:1])
    base = ours(plan.folder / "repository", 1)
    with contextlib.ExitStack() as stack:
        receiver = stack.enter_context(_receiver())
        servers: dict[str, Server] = {}
        for name, settings in _ways(plan, receiver).items():
            program = replace(base, name=f"ours-{len(servers)}", environ={**base.environ, **settings})
            log = plan.folder / f"{program.name}.log"
            servers[name] = stack.enter_context(running(program, [plan.server_core], log))
        for server in servers.values():
            check_answer(server, call, case.labels[:1])
        slices = {name: stack.enter_context(Slices(server, call)) for name, server in servers.items()}
        for way in slices.values():
            way.ask(_SLICE)
        # So that what the first shipment costs, which loads Parquet's library, is not spread over a minute's requests.
        time.sleep(_SETTLE_SECONDS)
        spent = {name: -processor_seconds(server) for name, server in servers.items()}
        seconds = _load(plan, slices)
        time.sleep(_SETTLE_SECONDS)
        for name, server in servers.items():
            spent[name] += processor_seconds(server)
    return [
        Cost(
            name,
            spent[name] / spent[_OFF],
            statistics.median(off / on for on, off in zip(seconds[name], seconds[_OFF], strict=True)),
            limited=not name.startswith("traces"),
        )
        for name in servers
        if name != _OFF
    ]


def _load(plan: Plan, slices: Mapping[str, Slices]) -> dict[str, list[float]]:
    """Ask each server equally often; return how many seconds each slice took."""
    seconds: dict[str, list[float]] = {name: [] for name in slices}
    order = random.Random(1)
    for number in range(1, plan.rounds + 1):
        until = time.monotonic() + plan.seconds * len(slices)
        while time.monotonic() < until:
            # Drawn anew, so that nobody always follows the same one, or itself, with its own data in the caches.
            for name in order.sample(list(slices), len(slices)):
                seconds[name].append(slices[name].ask(_SLICE))
        plan.tell(f"observing: round {number} of {plan.rounds}")
    return seconds


def _ways(plan: Plan, receiver: str) -> dict[str, Mapping[str, str]]:
    """Return the settings of each way of observing."""
    drift = {"MUELLE_DRIFT": "true"}
    feedback = {"MUELLE_FEEDBACK_ROWS": "100000"}
    # Shipped every ten seconds instead of every minute: dearer than by default, but then all of it is in the time.
    log = {"MUELLE_PREDICTION_LOG": str(plan.folder / "log-{port}"), "MUELLE_PREDICTION_LOG_SECONDS": "10"}
    port = {"MUELLE_METRICS_PORT": str(free_port())}
    traced = {**_TRACED, "OTEL_EXPORTER_OTLP_ENDPOINT": receiver}
    some = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}
    nothing = {"MUELLE_DRIFT": "false", "MUELLE_FEEDBACK_ROWS": "0"}
    # Connections have to wait for their next slice.
    nothing |= {"MUELLE_KEEPALIVE_SECONDS": "600"}
    ways: dict[str, Mapping[str, str]] = {
        "everything but traces": {**drift, **feedback, **log, **port},
        "drift": drift,
        "feedback": feedback,
        "prediction log": log,
        "traces of 1 %": {**traced, **some},
        "traces of all": traced,
    }
    return {_OFF: nothing, **{name: {**nothing, **settings} for name, settings in ways.items()}}


class _Swallow(BaseHTTPRequestHandler):
    """Takes what is sent, and looks at none of it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def _receiver() -> Iterator[str]:
    """Receive traces in this process, which is not on the servers' core; yields the URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Swallow) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
