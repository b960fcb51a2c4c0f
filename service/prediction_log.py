"""The prediction log in a worker: what was asked and answered, and the labels that came later, into the spool.

The request path does nothing for it but what drift needs anyway; a thread of its own encodes and writes. Whatever goes
wrong here is counted and logged, and never reaches an answer. From the spool, `service.shipper` takes it to its place.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Literal, NamedTuple, get_args

from prometheus_client import Counter
from prometheus_client.registry import CollectorRegistry

from muelle.bundle.profile import Profile
from muelle.bundle.signature import Signature
from service.metrics import UNKNOWN, Metrics
from service.observations import Observation
from service.prediction_lines import (
    ALL_FEATURES,
    CONFIDENCE,
    PREDICT,
    PROBABILITIES,
    Layout,
    Piece,
    gather,
    label_line,
    row_line,
)
from service.protocols.feedback import Label
from service.settings import Settings
from service.spool import Spool, SpoolFullError

_log = logging.getLogger(__name__)

#: So many bytes may wait for the thread: when the disk stands still, memory must not grow.
MOST_BYTES: Final = 32 * 1024 * 1024
_LABEL_BYTES: Final = 256
#: What goes wrong is logged so often at most, for each reason.
_SAY_SECONDS: Final = 60.0
#: How long the end of a worker waits for the disk.
_LAST_SECONDS: Final = 5.0

DropReason = Literal["full", "error"]


def spool_folder(settings: Settings, directory: Path) -> Path:
    """Return the spool's folder; `directory` is the metrics folder."""
    return settings.prediction_log_spool or directory / "prediction-log"


def dropped_counter(registry: CollectorRegistry) -> Counter:
    """Make the counter of what does not get into the log; the shipper has one too."""
    return Counter(
        "muelle_prediction_log_dropped_total",
        "Rows answered, and labels, that are not in the prediction log.",
        ("model", "version", "reason"),
        registry=registry,
    )


def sampled(request_id: str, share: float) -> bool:
    """Whether a request is in a sample: the same for all its rows, its labels, and in every process."""
    if share >= 1:
        return True
    digest = hashlib.blake2b(request_id.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest) < share * 2**64


class _Work(NamedTuple):
    """What waits for the thread."""

    do: Callable[[], None]
    size: int


class PredictionLog:
    """What a worker logs.

    Parameters
    ----------
    settings : Settings
        Those that start with ``prediction_log``.
    metrics : Metrics
        Of the worker.
    directory : Path
        The metrics folder.
    slot : int
        The worker's.
    """

    def __init__(self, settings: Settings, metrics: Metrics, directory: Path, slot: int) -> None:
        self._share = settings.prediction_log_sample
        self._redacted = frozenset(settings.prediction_log_redact)
        self._unmatched = set(self._redacted) - {ALL_FEATURES, PREDICT, PROBABILITIES, CONFIDENCE}
        self.spool = Spool(
            spool_folder(settings, directory),
            settings.prediction_log_spool_bytes,
            settings.prediction_log_seconds,
            f"w{slot}",
        )
        self._rows = Counter(
            "muelle_prediction_log_rows_total",
            "Rows written to the prediction log's spool.",
            ("model", "version"),
            registry=metrics.registry,
        )
        self._dropped = dropped_counter(metrics.registry)
        self._labels = _Drops(self._dropped, UNKNOWN, UNKNOWN)
        self._models = 0
        self._waiting: deque[_Work] = deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    def of(self, name: str, version: str, signature: Signature, profile: Profile) -> ModelLog:
        """Return what takes the rows of a model that was loaded."""
        with self._changed:
            number, self._models = self._models, self._models + 1
            self._unmatched -= set(signature.names)
        layout = Layout.of(number, name, version, signature, self._redacted)
        return ModelLog(self, layout, self._rows.labels(name, version), _Drops(self._dropped, name, version))

    def feedback(self, labels: Sequence[Label]) -> None:
        """Keep labels, those of requests that are in the sample; returns at once and never fails."""
        kept = [label for label in labels if sampled(label.request_id, self._share)]
        received_at = time.time()
        if kept and not self.enqueue(lambda: self._write_labels(kept, received_at), len(kept) * _LABEL_BYTES):
            self._labels.count("full", len(kept), "they come faster than they can be written")

    def sample(self, group: Sequence[Observation]) -> list[Observation]:
        """Return the requests that are logged."""
        return [item for item in group if sampled(item.request_id, self._share)]

    def enqueue(self, do: Callable[[], None], size: int) -> bool:
        """Let the thread do something; False when too much waits for it already."""
        with self._changed:
            if self._waiting_bytes >= MOST_BYTES:
                return False
            self._waiting_bytes += size
            self._waiting.append(_Work(do, size))
            self._changed.notify()
        return True

    def start(self) -> None:
        """Start to write; after the fork, since threads don't survive one."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Write what waits, and hand the last segment over; may be called again."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(_LAST_SECONDS)

    def _run(self) -> None:
        ended = False
        while not ended:
            with self._changed:
                if not (self._waiting or self._closing):
                    self._changed.wait(self.spool.due_seconds())
                taken = list(self._waiting)
                self._waiting.clear()
                taken_bytes = self._waiting_bytes
                ended = self._closing and not taken
            # Not with the lock held: who adds to what waits must not wait for the disk.
            for item in taken:
                item.do()
            with self._changed:
                # Only now: what is being written is held, too.
                self._waiting_bytes -= taken_bytes
            if self.spool.due_seconds() == 0:
                self.spool.complete()
                self._warn_of_unmatched()
        self.spool.complete()

    def _warn_of_unmatched(self) -> None:
        """Say which columns are to be left out that no model has: what was meant may be in the log."""
        with self._changed:
            unmatched, self._unmatched = self._unmatched, set()
        if unmatched:
            _log.warning("prediction log: no model has the column %s, to be left out", ", ".join(sorted(unmatched)))

    def _write_labels(self, labels: Sequence[Label], received_at: float) -> None:
        self._labels.unless(lambda: self.spool.append(label_line(labels, received_at)), len(labels))


class ModelLog:
    """One version's part of the log; made by `PredictionLog.of`."""

    def __init__(self, log: PredictionLog, layout: Layout, rows: Counter, drops: _Drops) -> None:
        self._log = log
        self._layout = layout
        self._heading = layout.heading()
        self._rows = rows
        self._drops = drops

    def take(self, group: Sequence[Observation]) -> None:
        """Keep some requests; see `service.observations.Consumer`."""
        kept = self._log.sample(group)
        if kept and not self._log.enqueue(lambda: self._write(kept), sum(item.size for item in kept)):
            self._drops.count("full", sum(item.rows for item in kept), "they come faster than they can be written")

    def _write(self, group: Sequence[Observation]) -> None:
        for pieces in gather(group):
            self._write_line(pieces)

    def _write_line(self, pieces: Sequence[Piece]) -> None:
        try:
            line = row_line(self._layout, pieces)
        except Exception as error:  # noqa: BLE001  # one request that can't be encoded must not take others with it
            if len(pieces) > 1:
                for piece in pieces:
                    self._write_line([piece])
            else:
                self._drops.count("error", pieces[0].end - pieces[0].first, repr(error))
            return
        if self._drops.unless(partial(self._log.spool.append, line.text, self._heading), line.rows):
            self._rows.inc(line.rows)


class _Drops:
    """Counts what is dropped of one model, and says so now and then."""

    def __init__(self, counter: Counter, name: str, version: str) -> None:
        self._model = {"model": name, "version": version}
        self._counters = {reason: counter.labels(name, version, reason) for reason in get_args(DropReason)}
        self._said: dict[str, float] = {}

    def count(self, reason: DropReason, rows: int, why: str) -> None:
        """Count rows that are not kept."""
        self._counters[reason].inc(rows)
        now = time.monotonic()
        if now - self._said.get(reason, -_SAY_SECONDS) >= _SAY_SECONDS:
            self._said[reason] = now
            _log.warning("prediction log: %d rows dropped: %s", rows, why, extra=self._model)

    def unless(self, append: Callable[[], None], rows: int) -> bool:
        """Append, or count the rows as dropped; return whether they were appended."""
        try:
            append()
        except SpoolFullError as error:
            self.count("full", rows, str(error))
            return False
        except Exception as error:  # noqa: BLE001  # the thread has to go on
            self.count("error", rows, repr(error))
            return False
        return True
