"""A Prometheus of one's own on this machine: scrapes what it is given, with all of Muelle's rules, in quick steps."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import requests

from tools.panel_queries import Prometheus

RULES: Final = Path(__file__).resolve().parents[1] / "monitoring" / "rules"
_START_SECONDS: Final = 30.0


class PrometheusError(Exception):
    """Why there is none, in a sentence."""


@dataclass(frozen=True)
class Scraped:
    """A server, and the labels that its series get, as the charts' monitors give them."""

    address: str
    labels: Mapping[str, str]


class LocalPrometheus:
    """The process; a context manager.

    Parameters
    ----------
    folder : Path
        For its configuration, its data and its log.
    targets : sequence of Scraped
    step_seconds : float
        Between scrapes, and between evaluations of the rules.
    """

    def __init__(self, folder: Path, targets: Sequence[Scraped], step_seconds: float = 1.0) -> None:
        self._folder = folder
        self._targets = targets
        self._step = f"{round(step_seconds * 1000)}ms"
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._listens = f"127.0.0.1:{probe.getsockname()[1]}"
        self.api = Prometheus(f"http://{self._listens}")

    def __enter__(self) -> Self:
        program = shutil.which("prometheus")
        if program is None:
            raise PrometheusError("prometheus is not on the PATH (Debian's package prometheus, or its archive)")
        configuration = self._write()
        arguments = [
            program,
            f"--config.file={configuration}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address={self._listens}",
        ]
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(arguments, stdout=log, stderr=log)  # noqa: S603
        try:
            self._wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _write(self) -> Path:
        """Write configuration and rules; the rules' own intervals are for production."""
        rules = self._folder / "rules"
        rules.mkdir(parents=True)
        for path in RULES.glob("*.yml"):
            text = re.sub(r"(?m)^( +interval:) \S+$", rf"\1 {self._step}", path.read_text("utf-8"))
            (rules / path.name).write_text(text, "utf-8")
        static = [{"targets": [target.address], "labels": dict(target.labels)} for target in self._targets]
        configuration = {
            "global": {"scrape_interval": self._step, "scrape_timeout": self._step, "evaluation_interval": self._step},
            "rule_files": [f"{rules}/*.yml"],
            "scrape_configs": [{"job_name": "muelle", "static_configs": static}],
        }
        path = self._folder / "prometheus.yml"
        # JSON is YAML.
        path.write_text(json.dumps(configuration, indent=1), "utf-8")
        return path

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process is not None and self._process.poll() is None:
            try:
                if requests.get(f"{self.api.url}/-/ready", timeout=2).status_code == requests.codes.ok:
                    return
            except (requests.ConnectionError, requests.Timeout):
                pass
            time.sleep(0.1)
        log = (self._folder / "prometheus.log").read_text("utf-8", "replace")
        raise PrometheusError(f"Prometheus did not get ready:\n{log[-2000:]}")
