"""What the lifecycle tests share: bundles of `operator_models`, and looks at /metrics that forgive no fall."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from operator_models import Factor
from prometheus_client.parser import text_string_to_metric_families
from support import Server

from muelle.bundle import save

Series = tuple[str, tuple[tuple[str, str], ...]]

#: What lets a server load `operator_models`.
OPERATOR = {
    "MUELLE_ALLOWED_MODULES": "operator_models",
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", ".")]),
}
#: A row that a `Factor` of 2 answers with 8.
FOUR = {"features": [4.0]}
EIGHT = {"prediction": 8.0}
#: A model that loads in no time, for tests that start many workers.
LINEAR = "/models/linear/predict"


def factor_bundle(repository: Path, *, name: str = "double", version: str = "1", **parameters: Any) -> Path:
    """Bundle a `Factor`; its gates have to be open."""
    rows = np.arange(20.0).reshape(-1, 1)
    estimator = Factor(**parameters).fit(rows)
    return save(
        estimator,
        rows,
        name=name,
        version=version,
        repository=repository,
        onnx=False,
        allowed_modules=("operator_models",),
    )


def gated_bundle(repository: Path, gate: Path, **parameters: Any) -> Path:
    """Save a bundle as `factor_bundle` does, which is loaded from the moment on in which the gate is a file."""
    # Whoever saves a bundle loads it.
    gate.touch()
    saved = factor_bundle(repository, load_gate=str(gate), **parameters)
    gate.unlink()
    return saved


def samples(page: str) -> dict[Series, float]:
    """Return the samples of a page in the classic text format."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def scrape(server: Server, port: int | None = None) -> dict[Series, float]:
    """Return what /metrics says now; what another worker counted in the last half second is not in it yet."""
    return samples(server.request("GET", "/metrics", port=port).body.decode())


def total(found: Mapping[Series, float], name: str, **labels: str) -> float:
    """Add up the samples of that name that have these labels among theirs."""
    return sum(value for (key, has), value in found.items() if key == name and labels.items() <= dict(has).items())


def holders(directory: Path) -> dict[str, int]:
    """Return the process ids of workers and companions by slot, from the metrics folder; those that live."""
    found = {}
    for path in directory.glob("slot_*.txt"):
        with contextlib.suppress(OSError):
            pid = int(path.read_text().split()[0])
            if pid:
                found[path.stem.removeprefix("slot_")] = pid
    return found


def wait_workers(server: Server, count: int, *, without: set[int] | None = None) -> list[int]:
    """Wait until there are that many workers, none of them one of the old ones."""
    found: list[int] = []

    def replaced() -> bool:
        nonlocal found
        found = server.workers()
        return len(found) == count and not set(found) & (without or set())

    server.wait_for(replaced, f"{count} workers")
    return found


def wait_loads(server: Server, count: int) -> None:
    """Wait until models were loaded that often: one model in two workers counts twice."""
    server.wait_for(lambda: sum("loaded with" in line["message"] for line in server.log()) >= count, f"{count} loads")


def wait_gone(pids: Iterable[int]) -> None:
    """Wait until none of these processes is left."""
    waited = list(pids)
    deadline = time.monotonic() + 30
    while left := [pid for pid in waited if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, f"{left} are still there"
        time.sleep(0.005)


def kill(pid: int) -> None:
    """Kill a worker and wait until it is gone, that is, reaped: a zombie's threads may still hold its connections."""
    os.kill(pid, signal.SIGKILL)
    wait_gone([pid])


class Watch:
    """Scrapes again and again, and remembers every counter that fell or vanished; a context manager.

    Parameters
    ----------
    server : Server
        Whom to ask.
    directory : Path
        Its metrics folder.
    port : int, optional
        The metrics' own port, to be asked instead of the server's.

    Attributes
    ----------
    falls : list of str
        Counters that fell, histograms' buckets and sums among them.
    failures : list of str
        Scrapes that were not answered with 200.
    files : int
        The most files that the metrics folder held.
    """

    def __init__(self, server: Server, directory: Path, port: int | None = None) -> None:
        self.falls: list[str] = []
        self.failures: list[str] = []
        self.files = 0
        self.scrapes = 0
        self._server = server
        self._directory = directory
        self._port = port
        self._last: dict[Series, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            try:
                answer = self._server.request("GET", "/metrics", port=self._port)
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                continue
            if answer.status != 200:
                self.failures.append(f"status {answer.status}")
                continue
            self.scrapes += 1
            self.files = max(self.files, len(list(self._directory.iterdir())))
            self._compare(samples(answer.body.decode()))

    def _compare(self, now: dict[Series, float]) -> None:
        counters = {key: value for key, value in now.items() if _counts(key[0])}
        for key, before in self._last.items():
            if counters.get(key, 0.0) < before and not _may_be_missing(key):
                self.falls.append(f"{key}: {before} → {counters.get(key)}")
            counters.setdefault(key, before)
        self._last = counters


def _counts(name: str) -> bool:
    return name.endswith(("_total", "_bucket", "_count", "_sum"))


def _may_be_missing(key: Series) -> bool:
    # A worker's CPU time is left out of a scrape that falls between its death and its booking.
    return key[0] == "muelle_worker_cpu_seconds_total"
