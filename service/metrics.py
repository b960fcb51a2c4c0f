"""Prometheus metrics of the service, counted by a worker and carried over into its slot's files (`service.slots`).

Written straight to the files, one request's 13 increments cost 18 µs; counted in plain Python under one lock, 2 to 3
µs. So `ModelMetrics.record` counts locally; a thread carries that over every half second, a scrape of this worker at
once. What a kill -9 loses is at most what was counted since.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, exposition
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service import procfs
from service.slots import SlotValues

_log = logging.getLogger(__name__)

#: Upper bounds in seconds: from half a millisecond, since most answers take less than the usual first bound of 5 ms, to
#: 10 s. A threshold of a service-level objective has to be one of them.
SECONDS_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: Upper bounds in rows: half decades from the single row to the default of the limit.
ROWS_BUCKETS: Final = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
STAGES: Final = ("decode", "validate", "predict", "encode")
PROTOCOLS: Final = ("simple", "oip")
#: The codes that exist at 0 from the start, so that a first failure is an increase, not a new series.
CODES: Final = (200, 400, 500, 503)
UNKNOWN: Final = "unknown"
FLUSH_SECONDS: Final = 0.5
_OPENMETRICS: Final = "application/openmetrics-text"

ShedReason = Literal["concurrency"]


class _Bins:
    """The not yet carried over part of one histogram."""

    __slots__ = ("_bounds", "_counts", "_histogram", "_total")

    def __init__(self, histogram: Callable[[], Histogram], bounds: tuple[float, ...]) -> None:
        self._histogram = histogram
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        # The first bound that is not below the value: bounds are inclusive, as Prometheus defines them.
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def flush(self) -> None:
        # prometheus_client has no public way to add many observations at once; its own observe() does these two.
        histogram = self._histogram()
        for index, count in enumerate(self._counts):
            if count:
                histogram._buckets[index].inc(count)
                self._counts[index] = 0
        if self._total:
            histogram._sum.inc(self._total)
            self._total = 0.0


class ModelMetrics:
    """The metrics of one version of one model; thread-safe. Made by `Metrics.for_model`.

    Without room for its series the model is served all the same: they are made when there is room, and counts wait.
    """

    def __init__(self, metrics: Metrics, name: str, version: str) -> None:
        self._metrics = metrics
        self._labels = labels = (name, version)
        self._lock = threading.Lock()
        self._requests = {(protocol, code): 0 for protocol in PROTOCOLS for code in CODES}
        self._duration = _Bins(partial(metrics.duration.labels, *labels), SECONDS_BUCKETS)
        self._stages = [_Bins(partial(metrics.stages.labels, *labels, stage), SECONDS_BUCKETS) for stage in STAGES]
        self._rows = _Bins(partial(metrics.rows.labels, *labels), ROWS_BUCKETS)
        self._in_progress = 0
        self._failures = 0
        self._loaded: tuple[str, str, float] | None = None
        self._has_series = False
        try:
            self._make_series()
        except OSError as error:
            _log.error("%s %s: no room for its metrics yet: %s", name, version, error)

    def enter(self) -> None:
        """Count a request as in progress; `leave` must follow."""
        with self._lock:
            self._in_progress += 1

    def leave(self) -> None:
        """Count a request as no longer in progress."""
        with self._lock:
            self._in_progress -= 1

    def record(
        self,
        protocol: str,
        code: int,
        seconds: float,
        stages: tuple[float, float, float, float] | None = None,
        rows: int | None = None,
    ) -> None:
        """Count one answered request.

        Parameters
        ----------
        protocol : str
            One of `PROTOCOLS`, or another fixed name; never anything that a caller chose.
        code : int
            The HTTP status of the answer.
        seconds : float
            From the first byte read to the answer handed over.
        stages : tuple of float, optional
            Seconds of decode, validate, predict, encode; None when the request didn't get through all of them.
        rows : int, optional
            Rows predicted.
        """
        key = (protocol, code)
        with self._lock:
            self._requests[key] = self._requests.get(key, 0) + 1
            self._duration.add(seconds)
            if stages is not None:
                for bins, stage_seconds in zip(self._stages, stages, strict=True):
                    bins.add(stage_seconds)
            if rows is not None:
                self._rows.add(rows)

    def loaded(self, engine: str, digest: str, seconds: float) -> None:
        """Say that this worker has loaded the model: with which engine, from which manifest, in how many seconds."""
        with self._lock:
            self._loaded = (engine, digest, seconds)
            try:
                self._carry_loaded()
            except OSError as error:
                _log.error("%s %s: no room yet to say that it is loaded: %s", *self._labels, error)

    def load_failed(self) -> None:
        """Count a failed attempt to load the model, which this worker does without from now on."""
        with self._lock:
            self._failures += 1
            if self._has_series:
                self._carry_failures()

    def flush(self) -> None:
        """Carry over what was counted since the last time."""
        with self._lock:
            if not self._has_series:
                self._make_series()
            self._carry_failures()
            for (protocol, code), count in self._requests.items():
                if count:
                    self._metrics.requests.labels(*self._labels, protocol, code).inc(count)
                    self._requests[protocol, code] = 0
            for bins in (self._duration, *self._stages, self._rows):
                bins.flush()
            self._metrics.in_progress.labels(*self._labels).set(self._in_progress)
            self._carry_loaded()

    def _make_series(self) -> None:
        """Let all series exist, at 0; an OSError where there is no room for one."""
        metrics, labels = self._metrics, self._labels
        for protocol, code in self._requests:
            if code in CODES:
                metrics.requests.labels(*labels, protocol, code)
        metrics.duration.labels(*labels)
        for stage in STAGES:
            metrics.stages.labels(*labels, stage)
        metrics.rows.labels(*labels)
        metrics.load_failures.labels(*labels)
        # The slot's file still holds the last worker's numbers when gunicorn lost it without calling child_exit.
        metrics.in_progress.labels(*labels).set(0)
        metrics.not_loaded.labels(*labels).set(0)
        self._has_series = True

    def _carry_loaded(self) -> None:
        if self._loaded is not None:
            engine, digest, seconds = self._loaded
            self._metrics.info.labels(*self._labels, engine, digest).set(1)
            self._metrics.load_seconds.labels(*self._labels).set(seconds)
            self._loaded = None

    def _carry_failures(self) -> None:
        if self._failures:
            self._metrics.load_failures.labels(*self._labels).inc(self._failures)
            self._metrics.not_loaded.labels(*self._labels).set(1)
            self._failures = 0


class Metrics:
    """All metrics of one worker process.

    Parameters
    ----------
    registry : CollectorRegistry
        Where the metrics are registered; a fresh one for each worker and each test.
    directory : Path, optional
        The folder given to `install_slot_values`; None when there are no workers (a Flask test client).
    processes : Collector, optional
        Metrics that are not kept but looked up, such as `service.procfs.ProcessGroup`.
    """

    def __init__(
        self, registry: CollectorRegistry, directory: Path | None = None, processes: Collector | None = None
    ) -> None:
        self.registry = registry
        model = ("model", "version")
        self.requests = Counter(
            "muelle_requests_total", "Requests answered.", (*model, "protocol", "code"), registry=registry
        )
        self.duration = Histogram(
            "muelle_request_duration_seconds",
            "Time from reading a request to handing over its answer.",
            model,
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self.stages = Histogram(
            "muelle_stage_duration_seconds",
            "Time that requests spent in one stage.",
            (*model, "stage"),
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self.rows = Histogram("muelle_batch_rows", "Rows in a request.", model, buckets=ROWS_BUCKETS, registry=registry)
        self.in_progress = Gauge(
            "muelle_requests_in_progress", "Requests in hand.", model, multiprocess_mode="livesum", registry=registry
        )
        shed = Counter("muelle_shed_total", "Requests turned away with 503.", ("reason",), registry=registry)
        self._shed = {reason: shed.labels(reason) for reason in get_args(ShedReason)}
        # Every worker reports the same about a model, so one of them stands for all (max). Only a living one: what no
        # worker has loaded any more, such as a version that a reload took away, must not be reported.
        self.info = Gauge(
            "muelle_model_info",
            "Models that are loaded.",
            (*model, "engine", "digest"),
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.load_seconds = Gauge(
            "muelle_model_load_seconds",
            "Time from opening a bundle to a warm model, in the slowest worker.",
            model,
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.load_failures = Counter(
            "muelle_model_load_failures_total", "Failed attempts to load a model.", model, registry=registry
        )
        self.not_loaded = Gauge(
            "muelle_model_not_loaded",
            "1 where a living worker could not load the model, 0 otherwise.",
            model,
            multiprocess_mode="livemax",
            registry=registry,
        )
        own: Collector = _Registered(registry) if directory is None else SlotValues(directory)
        self._collectors = (own,) if processes is None else (own, processes)
        #: Unix seconds from which on the counters count.
        self.started_at = time.time() if directory is None else procfs.opened_at(directory)
        self._models: dict[tuple[str, str], ModelMetrics] = {}
        #: Whether the log has it that there is no room: once, not twice a second.
        self._said = False
        self._before_flush: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def for_model(self, name: str = UNKNOWN, version: str = UNKNOWN) -> ModelMetrics:
        """Return the metrics of one version; call it for models that exist only, without arguments for all others."""
        with self._lock:
            found = self._models.get((name, version))
            if found is None:
                found = self._models[name, version] = ModelMetrics(self, name, version)
            return found

    def shed(self, reason: ShedReason) -> None:
        """Count a request that was turned away."""
        self._shed[reason].inc()

    def before_flush(self, count: Callable[[], None]) -> None:
        """Call this whenever counts are about to be carried over."""
        self._before_flush.append(count)

    def flush(self) -> None:
        """Carry over all counts, so that other workers see them."""
        for count in self._before_flush:
            count()
        with self._lock:
            models = list(self._models.values())
        failed: OSError | None = None
        for model in models:
            try:
                model.flush()
            except OSError as error:
                failed = error
        if failed is not None:
            raise failed

    def start(self) -> None:
        """Start to carry over by itself; after the fork, since threads don't survive one."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._flush_until_closed, name="metrics", daemon=True)
            self._thread.start()
            atexit.register(self.close)

    def close(self) -> None:
        """Carry over a last time and stop; may be called again."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._carry_over()

    def render(self, accept: str | None) -> tuple[bytes, str]:
        """Return all workers' metrics and their content type; OpenMetrics when the Accept header names it."""
        self._carry_over()
        return exposed(self._collectors, accept)

    def families(self) -> Iterator[Metric]:
        """Yield what `render` writes: all workers' metrics, added up."""
        self._carry_over()
        for collector in self._collectors:
            yield from collector.collect()

    def _flush_until_closed(self) -> None:
        while not self._stop.wait(FLUSH_SECONDS):
            self._carry_over()

    def _carry_over(self) -> None:
        try:
            self.flush()
        except OSError as error:
            # No room for a new series, such as a status code's; what was counted stays for the next time.
            if not self._said:
                _log.error("metrics could not be carried over, it is tried again and again: %s", error)
            self._said = True
        else:
            self._said = False


def exposed(collectors: Iterable[Collector], accept: str | None) -> tuple[bytes, str]:
    """Return what these collectors yield as a page, and its content type."""
    page = CollectorRegistry()
    for collector in collectors:
        page.register(collector)
    asked = {part.partition(";")[0].strip().lower() for part in (accept or "").split(",")}
    # Not the header itself: choose_encoder fails on a version that is no number, and repeats any other to the caller.
    encode, content_type = exposition.choose_encoder(_OPENMETRICS if _OPENMETRICS in asked else "")
    return encode(page), content_type


class _Registered(Collector):
    """The metrics of this process alone."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        return self._registry.collect()
