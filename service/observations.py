"""What the models are asked and what they answer, on its way from the requests to whoever counts or keeps it.

The request path only appends the validated rows and the answer to a buffer. When the metrics are carried over, twice a
second and at each scrape, all that has gathered is handed on at once: to the counters behind drift
(`service.distributions`), and to the prediction log when there is one.

A full buffer lets go what comes next, and counts it as dropped: drift needs a large sample, not every row. Nothing here
can fail an answer. Confidence is counted where the caller asked for probabilities: computing them for every row would
cost a linear model's request 18 µs, a tenth of all that it takes.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple, Protocol, get_args

from prometheus_client import Counter

from muelle.bundle.data import Array, Data
from muelle.bundle.profile import Profile
from muelle.bundle.signature import Signature
from service.metrics import Metrics

_log = logging.getLogger(__name__)

#: A model's buffer takes nothing more once it holds so many rows: 100,000 rows a second and worker.
MOST_ROWS: Final = 50_000
#: All buffers of a worker take nothing more once they hold so many bytes; what goes over is one request.
MOST_BYTES: Final = 16 * 1024 * 1024
#: Requests are handed on together until they have so many rows: numpy's calls cost little then, and little is copied.
_TOGETHER: Final = 4096
#: About what a text's cell, and a request's arrays and tuples, take beside the body's bytes.
_TEXT_BYTES: Final = 64
_REQUEST_BYTES: Final = 1024

DropReason = Literal["full", "error"]


class Observation(NamedTuple):
    """One request that was answered.

    Attributes
    ----------
    request_id : str
        As in the answer's X-Request-Id.
    answered_at : float
        Unix time, seconds.
    data : Data
        The validated rows.
    answers : mapping
        Output name to what the model answered, each of shape (rows, …).
    rows : int
        n_samples.
    size : int
        About how many bytes it holds.
    """

    request_id: str
    answered_at: float
    data: Data
    answers: Mapping[str, Array]
    rows: int
    size: int


class Consumer(Protocol):
    """What takes the observations of one version of one model."""

    def take(self, group: Sequence[Observation]) -> None:
        """Take requests in the order of their answers; must not block, since a scrape may be waiting."""


class Observer(Protocol):
    """What makes consumers."""

    def of(self, name: str, version: str, signature: Signature, profile: Profile) -> Consumer:
        """Return the consumer of a model that was loaded."""


class Observations:
    """What all models of a worker observe.

    Parameters
    ----------
    metrics : Metrics
        Of the worker; carrying them over hands on what has gathered here.
    observers : sequence of Observer
        What it is handed to.

    Attributes
    ----------
    lock : Lock
        Of all the worker's buffers: it is held for a microsecond.
    held_bytes : int
        About how much all of them hold.
    """

    def __init__(self, metrics: Metrics, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)
        self._dropped = Counter(
            "muelle_observations_dropped_total",
            "Rows answered and not observed.",
            ("model", "version", "reason"),
            registry=metrics.registry,
        )
        self.lock = threading.Lock()
        self.held_bytes = 0
        self._models: list[ModelObservations] = []
        metrics.before_flush(self.flush)

    def of(self, name: str, version: str, signature: Signature, profile: Profile) -> ModelObservations:
        """Return the buffer of a model that was loaded; its series exist from now on."""
        dropped = {reason: self._dropped.labels(name, version, reason) for reason in get_args(DropReason)}
        consumers = [observer.of(name, version, signature, profile) for observer in self._observers]
        made = ModelObservations(self, consumers, dropped, signature)
        self._models.append(made)
        return made

    def flush(self) -> None:
        """Hand on what has gathered."""
        for model in tuple(self._models):
            model.flush()


class ModelObservations:
    """One version's buffer; thread-safe. Made by `Observations.of`."""

    def __init__(
        self,
        observations: Observations,
        consumers: Sequence[Consumer],
        dropped: Mapping[DropReason, Counter],
        signature: Signature,
    ) -> None:
        self._all = observations
        self._consumers = tuple(consumers)
        self._buffer: list[Observation] = []
        self._rows = 0
        self._dropped = dropped
        self._dropped_rows = 0
        # Handing on takes a while, and a scrape must wait for one that has begun.
        self._handing_on = threading.Lock()
        self._input_bytes = sum(_cell_bytes(feature.dtype) for feature in signature.inputs)
        self._output_bytes = {
            output.name: _cell_bytes(output.dtype) * math.prod(output.shape[1:]) for output in signature.outputs
        }

    def add(self, request_id: str, data: Data, answers: Mapping[str, Array], rows: int, body_bytes: int) -> None:
        """Keep a request that was answered until the next flush; only this is done while its caller waits.

        Parameters
        ----------
        request_id : str
            As in the answer.
        data : Data
            The validated rows, which nobody changes any more.
        answers : mapping
            Output name to what the model answered.
        rows : int
            n_samples.
        body_bytes : int
            Size of the request, for the bound.
        """
        row_bytes = self._input_bytes
        for name in answers:
            row_bytes += self._output_bytes[name]
        size = body_bytes + rows * row_bytes + _REQUEST_BYTES
        with self._all.lock:
            if self._rows >= MOST_ROWS or self._all.held_bytes >= MOST_BYTES:
                self._dropped_rows += rows
                return
            self._rows += rows
            self._all.held_bytes += size
            self._buffer.append(Observation(request_id, time.time(), data, answers, rows, size))

    def flush(self) -> None:
        """Hand on what has gathered."""
        with self._handing_on:
            with self._all.lock:
                taken, self._buffer, self._rows = self._buffer, [], 0
                dropped, self._dropped_rows = self._dropped_rows, 0
            if dropped:
                self._dropped["full"].inc(dropped)
            for group in _groups(taken):
                self._hand_on(group)
            if taken:
                with self._all.lock:
                    self._all.held_bytes -= sum(item.size for item in taken)

    def _hand_on(self, group: Sequence[Observation]) -> None:
        rows = sum(item.rows for item in group)
        for consumer in self._consumers:
            try:
                consumer.take(group)
            except Exception:  # noqa: BLE001  # what can't be counted or kept must end neither the flushes nor a scrape
                _log.exception("%d rows could not be observed by %s", rows, type(consumer).__name__)
                self._dropped["error"].inc(rows)


def _cell_bytes(dtype: str) -> int:
    return _TEXT_BYTES if dtype == "string" else 8


def _groups(taken: Sequence[Observation]) -> Iterator[list[Observation]]:
    """Yield requests by the few thousand rows."""
    group: list[Observation] = []
    rows = 0
    for item in taken:
        group.append(item)
        rows += item.rows
        if rows >= _TOGETHER:
            yield group
            group, rows = [], 0
    if group:
        yield group
