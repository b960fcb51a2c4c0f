"""Real servers for tests: `Server` is `muelle serve` as a user starts it."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

START_SECONDS = 60.0
#: How many ports a worker of pytest-xdist has for itself; nine times as many lie below the NodePorts of a cluster.
PORTS = 2000


def make_repository(folder: Path) -> Path:
    """Train and bundle the three examples."""
    from training.pipelines import recipes
    from training.publish import publish

    for recipe in recipes().values():
        publish(recipe, repository=folder, version="1")
    return folder


def free_port() -> int:
    """Return a port that nobody has, nor gets from the kernel before a server has started on it.

    That would be so with one of the kernel's own choice: it may give the same to the next who asks, or take it for the
    near end of a connection.
    """
    for port in itertools.islice(_ports, PORTS):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port
    raise AssertionError(f"none of {PORTS} ports is free")


def _own_ports() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw8").removeprefix("gw"))
    first = 12_000 + worker % 9 * PORTS
    # From elsewhere each time: another run on this machine may be under way.
    return (first + (os.getpid() + count) % PORTS for count in itertools.count())


_ports = _own_ports()


@dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class Server:
    """A `muelle serve` process on a free port, its output in a file.

    Parameters
    ----------
    models : Path
        The repository.
    folder : Path
        Where the output goes.
    settings : mapping, optional
        More environment variables.
    prefix : sequence of str, optional
        A command that is given the server's, and becomes it.
    """

    def __init__(
        self, models: Path, folder: Path, settings: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
    ) -> None:
        given = settings or {}
        self.host = given.get("MUELLE_HOST", "127.0.0.1")
        number = given.get("MUELLE_PORT", "")
        self.port = int(number) if number.isdecimal() else free_port()
        self.url = f"http://{self.host}:{self.port}"
        self.repository = models
        self.log_path = folder / "server.log"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("MUELLE_")}
        self._environ = inherited | {
            "MUELLE_MODELS": str(models),
            "MUELLE_HOST": self.host,
            "MUELLE_PORT": str(self.port),
            **given,
        }
        self._prefix = tuple(prefix)
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._prefix, sys.executable, "-m", "muelle.cli", "serve"], env=self._environ, stdout=log, stderr=log
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The arbiter's process id."""
        assert self.process is not None
        return self.process.pid

    def stop(self) -> int:
        """End it and return its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def workers(self) -> list[int]:
        """The workers' process ids."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def log(self) -> list[dict[str, Any]]:
        """The log lines so far; each must be JSON."""
        whole, _, _ = self.log_path.read_bytes().rpartition(b"\n")  # the last line may be half written
        return [json.loads(line) for line in whole.splitlines()]

    def request(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float = 20.0,
        port: int | None = None,
    ) -> Answer:
        """Send one request on a connection of its own; to another port of the server where one is given."""
        connection = http.client.HTTPConnection(self.host, port or self.port, timeout=timeout)
        with contextlib.closing(connection):
            data = body.encode() if isinstance(body, str) else body
            connection.request(method, path, data, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """GET."""
        return self.request("GET", path, headers=headers)

    def post(self, path: str, document: Any, headers: Mapping[str, str] | None = None) -> Answer:
        """POST a document as JSON."""
        return self.request("POST", path, json.dumps(document), {"Content-Type": "application/json", **(headers or {})})

    def wait_ready(self) -> None:
        """Wait until /readyz answers 200."""
        self.wait_for(lambda: self.get("/readyz").status == 200, "ready")

    def wait_answering(self) -> None:
        """Wait until /livez answers."""
        self.wait_for(lambda: self.get("/livez").status == 200, "answering")

    def wait_for(self, condition: Any, what: str, seconds: float = START_SECONDS) -> None:
        """Wait until a condition holds; a refused connection counts as not yet."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process is None or self.process.poll() is not None:
                break
            with contextlib.suppress(OSError, http.client.HTTPException):
                if condition():
                    return
            time.sleep(0.05)
        raise AssertionError(f"the server did not get {what}; its log:\n{self.log_path.read_text()[-4000:]}")
