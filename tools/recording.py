"""The scene behind the pictures: a candidate gets more and more of the traffic, and in the middle the data drift."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import requests

from tools.local_prometheus import LocalPrometheus, Scraped
from tools.panel_queries import Prometheus
from tools.scene import Traffic

SCRAPE_SECONDS: Final = 5.0
#: Requests per second, about.
RATE: Final = 18.0
#: When the candidate's pod comes and the drift begins, as parts of the scene; the drift in standard deviations.
CANDIDATE_FROM: Final = 0.12
DRIFT_FROM: Final = 0.5
SHIFT: Final = 1.5
#: (until which part of the scene, the candidate's share).
SHARES: Final = ((0.25, 0.0), (0.4, 0.1), (0.55, 0.25), (0.75, 0.5), (2.0, 1.0))
_START_SECONDS: Final = 60.0


@contextmanager
def serving(models: Path, port: int, log: Path) -> Iterator[str]:
    """Run `muelle serve` on a port of 127.0.0.1; its URL, when it is ready."""
    settings = {"MODELS": str(models), "HOST": "127.0.0.1", "PORT": str(port), "WORKERS": "1", "MAX_CONCURRENCY": "4"}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MUELLE_")}
    environ = inherited | {f"MUELLE_{name}": value for name, value in settings.items()}
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "muelle.cli", "serve"], env=environ, stdout=out, stderr=out)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_ready(url, process)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def _wait_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if requests.get(f"{url}/readyz", timeout=5).ok:
                return
        except requests.RequestException:
            pass
        time.sleep(0.2)
    sys.exit(f"{url} did not get ready")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def record(folder: Path, seconds: float, stack: ExitStack) -> tuple[Prometheus, float, float]:
    """Play the scene.

    Returns
    -------
    tuple
        The Prometheus that saw it, which lives as long as the stack, and from when to when; Unix seconds.
    """
    models = {slot: folder / slot for slot in "ab"}
    _train(models)
    ports = {slot: _free_port() for slot in models}
    targets = [
        Scraped(
            f"127.0.0.1:{port}",
            {"namespace": "shop", "pod": f"muelle-{slot}-0", "release": "muelle", "release_slot": slot},
        )
        for slot, port in ports.items()
    ]
    prometheus = stack.enter_context(LocalPrometheus(folder, targets, SCRAPE_SECONDS))
    slots = {"a": stack.enter_context(serving(models["a"], ports["a"], folder / "a.log"))}
    start = time.time()
    traffic = Traffic(slots)
    while (passed := (time.time() - start) / seconds) < 1:
        if "b" not in slots and passed > CANDIDATE_FROM:
            slots["b"] = stack.enter_context(serving(models["b"], ports["b"], folder / "b.log"))
            traffic = Traffic(slots)
        share = next(share for until, share in SHARES if passed < until)
        traffic.ask({"a": 1 - share, "b": share} if share else {"a": 1.0}, shift=SHIFT if passed > DRIFT_FROM else 0.0)
        # More in the middle.
        time.sleep(1 / (RATE * (0.6 + passed * (1 - passed) * 2)))
    end = time.time()
    # Two more scrapes, so that the last of it has been seen.
    time.sleep(2 * SCRAPE_SECONDS)
    return prometheus.api, start, end


def _train(models: Mapping[str, Path]) -> None:
    from training.pipelines import recipes
    from training.publish import publish

    for version, folder in enumerate(models.values(), start=1):
        publish(recipes()["breast-cancer"], repository=folder, version=str(version))
        publish(recipes()["linear"], repository=folder, version="1")
