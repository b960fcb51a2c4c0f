"""The prediction log's companion process: from the spool to a folder or object store, as Parquet.

A segment becomes the same files under the same names each time it is shipped, and is deleted after that. So whatever
dies in between, each row is there once in the end. While the place can't be reached, segments wait.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import os
import random
import threading
import time
from collections import Counter as Tally
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge

from muelle.errors import MuelleError, SettingsError
from muelle.store.remote import Access, local_path
from muelle.store.source import Source
from muelle.store.tree import Tree, open_tree
from service.companions import Companion
from service.metrics import UNKNOWN
from service.prediction_log import dropped_counter, spool_folder
from service.settings import Settings
from service.spool import held_bytes, segment_name, taken, waiting

if TYPE_CHECKING:
    from service.prediction_tables import Lost

_log = logging.getLogger(__name__)

#: How often it looks for complete segments.
_LOOK_SECONDS: Final = 0.5
_FIRST_WAIT_SECONDS: Final = 1.0
_LONGEST_WAIT_SECONDS: Final = 60.0
#: What is left of the spool is shipped for so long after all workers have gone; a second later it would be killed.
_LAST_SECONDS: Final = 3.0
#: How long a store's answer, or the next piece of it, may take.
_TIMEOUT_SECONDS: Final = 30.0
#: Package → the extra of Muelle that brings it.
_NEEDED: Final = {"pyarrow": "train", "obstore": "store"}


def check_prediction_log(settings: Settings) -> None:
    """Find out, before the server starts, whether its prediction log can work at all.

    Raises
    ------
    SettingsError
        When a package is missing, or the spool, or a folder to ship to, can't be made.
    """
    if settings.prediction_log is None:
        return
    folder = _folder(settings.prediction_log)
    for package in ("pyarrow",) if folder is not None else ("pyarrow", "obstore"):
        # Found, not imported: what it starts would not survive the forks.
        if importlib.util.find_spec(package) is None:
            raise SettingsError(
                f"MUELLE_PREDICTION_LOG: this needs {package}, which is not installed (the slim image is without it): "
                f"pip install 'muelle[{_NEEDED[package]}]'"
            )
    if folder is not None:
        _check_folder("MUELLE_PREDICTION_LOG", folder, 0o777)
    if settings.prediction_log_spool is not None:
        # What is in it is for nobody else.
        _check_folder("MUELLE_PREDICTION_LOG_SPOOL", settings.prediction_log_spool, 0o700)


def shipper_companion(settings: Settings, directory: Path) -> Companion:
    """Return what ships beside the workers; `directory` is the metrics folder."""
    return Companion("log", partial(run, settings, directory))


def run(settings: Settings, directory: Path, stop: threading.Event) -> None:
    """Ship until told to stop, and then what is left; a companion's work.

    Parameters
    ----------
    settings : Settings
        Of the server; there is a prediction log.
    directory : Path
        The metrics folder.
    stop : Event
        Set when all workers have gone.
    """
    if settings.prediction_log is None:
        raise SettingsError("MUELLE_PREDICTION_LOG is not set")
    shipper = Shipper(spool_folder(settings, directory), _OpenedLate(settings.prediction_log))
    while not stop.wait(shipper.pause_seconds):
        shipper.ship()
    shipper.ship_the_rest(min(_LAST_SECONDS, float(settings.graceful_timeout_seconds)))


class Place(Protocol):
    """Where files are put, by their paths."""

    def put(self, path: str, data: bytes) -> None:
        """Store a file; raises as `muelle.store.tree.Tree` says."""


class Shipper:
    """Ships the segments of one spool.

    Parameters
    ----------
    spool : Path
        The spool's folder.
    place : Place
        Where to.
    clock : callable
        Seconds that only grow.

    Attributes
    ----------
    pause_seconds : float
        How long to wait before the next time; longer after failures.
    """

    def __init__(self, spool: Path, place: Place, clock: Callable[[], float] = time.monotonic) -> None:
        self._spool = spool
        self._place = place
        self._clock = clock
        self._longest = _FIRST_WAIT_SECONDS
        self._failed = 0
        #: Segment → how often it has failed. One that always does comes last, and holds up no other.
        self._tries: Tally[str] = Tally()
        self.pause_seconds = _LOOK_SECONDS
        registry = CollectorRegistry()
        self._shipped = Counter(
            "muelle_prediction_log_shipped_rows_total",
            "Rows of the prediction log that are in their place.",
            ("model", "version"),
            registry=registry,
        )
        self._failures = Counter(
            "muelle_prediction_log_failures_total", "Failed attempts to ship a segment.", registry=registry
        )
        self._held = Gauge(
            "muelle_prediction_log_spool_bytes",
            "Size of what waits in the prediction log's spool.",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self._dropped = dropped_counter(registry)

    def ship(self) -> None:
        """Ship what is complete."""
        failure: Exception | None = None
        for path in sorted(waiting(self._spool), key=lambda path: self._tries[segment_name(path)]):
            try:
                self._ship_one(path)
                self._tries.pop(segment_name(path), None)
            except (MuelleError, OSError) as error:
                # The next one would most likely fare no better; it has its turn the next time.
                self._tries[segment_name(path)] += 1
                failure = error
                break
            except Exception as error:  # noqa: BLE001  # one that can never be shipped must not hold up the others
                _log.exception("prediction log: %s could not be shipped", path.name)
                failure = error
        self._held.set(held_bytes(self._spool))
        if failure is not None:
            self._wait_longer(failure)
            return
        if self._failed:
            _log.info("prediction log: shipped again, after %d failed attempts", self._failed)
        self._failed = 0
        self._longest = _FIRST_WAIT_SECONDS
        self.pause_seconds = _LOOK_SECONDS

    def ship_the_rest(self, seconds: float) -> None:
        """Ship what the workers have left, for so long at most."""
        deadline = self._clock() + seconds
        while True:
            self.ship()
            left = held_bytes(self._spool)
            if not left or self._clock() >= deadline:
                break
            time.sleep(_LOOK_SECONDS)
        if left:
            _log.warning("prediction log: %d bytes are not shipped, and wait in %s", left, self._spool)

    def _ship_one(self, path: Path) -> None:
        # Imported in this process only: pyarrow has threads, which don't survive a fork, and takes memory.
        from service.prediction_tables import convert

        with taken(path) as segment:
            if segment is None:
                return
            files, lost = convert(segment)
            for file in files:
                self._place.put(f"{file.folder}/{segment_name(path)}.parquet", file.data)
            # From here on it won't come again, so now it is counted.
            path.unlink(missing_ok=True)
        for file in files:
            if file.layout is not None:
                self._shipped.labels(file.layout.model, file.layout.version).inc(file.rows)
        for (model, version), rows in _by_model(lost).items():
            self._dropped.labels(model, version, "error").inc(rows)
            _log.warning("prediction log: %d rows of %s lost, in lines that were cut off or damaged", rows, path.name)

    def _wait_longer(self, error: Exception) -> None:
        """Count a failure, and wait twice as long as the last time, but never quite as long as others do."""
        self._failures.inc()
        self._failed += 1
        # The first of them, and then seldom: they come up to once a minute.
        if self._failed == 1 or self._failed % 15 == 0:
            _log.error("prediction log: not shipped: %s; %d failed attempts", error, self._failed)
        self.pause_seconds = self._longest * random.uniform(0.5, 1)  # noqa: S311  # no secret
        self._longest = min(2 * self._longest, _LONGEST_WAIT_SECONDS)


class _OpenedLate:
    """Where to, opened for its first file: settings that can't be right are failed attempts, which are counted."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._tree: Tree | None = None

    def put(self, path: str, data: bytes) -> None:
        if self._tree is None:
            self._tree = _open(self._place)
        self._tree.put(path, data)


def _by_model(lost: list[Lost]) -> Tally[tuple[str, str]]:
    found: Tally[tuple[str, str]] = Tally()
    for layout, rows in lost:
        found[(layout.model, layout.version) if layout else (UNKNOWN, UNKNOWN)] += rows
    return found


def _open(place: str) -> Tree:
    # It has a patience of its own.
    access = Access.from_environ(os.environ, insecure=False, retry_seconds=0, push=True)
    return open_tree(place, dataclasses.replace(access, timeout_seconds=_TIMEOUT_SECONDS))


def _folder(place: str) -> Path | None:
    """Return the folder of this machine that is meant; None for an object store."""
    if "://" not in place:
        return Path(place)
    source = Source.parse(place)
    return local_path(source) if source.scheme == "file" else None


def _check_folder(key: str, folder: Path, mode: int) -> None:
    try:
        folder.mkdir(mode, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"{key}: {folder}: can't be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SettingsError(f"{key}: {folder}: can't be written to")
