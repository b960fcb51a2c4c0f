"""Starts `load.py`, in a pod or here, watches its progress, and brings its result home."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from cluster import Kube, until
from load import Order

PROGRAM = Path(__file__).with_name("load.py")
POD = "loader"


@dataclass(frozen=True)
class Result:
    """What a load came to; see `load.Tally`."""

    sent: int = 0
    failed: int = 0
    by_version: Mapping[str, int] = field(default_factory=dict)
    by_kind: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    errors: Sequence[str] = ()
    longest_seconds: float = 0.0
    failed_from: float | None = None
    failed_until: float | None = None

    @property
    def answered(self) -> int:
        """Right answers."""
        return self.sent - self.failed

    def __str__(self) -> str:
        versions = ", ".join(f"{version}: {count}" for version, count in self.by_version.items())
        kinds = ", ".join(f"{kind} {counts['sent']}" for kind, counts in self.by_kind.items())
        text = f"sent {self.sent} ({kinds}), failed {self.failed}, by version {{{versions}}}"
        text += f", longest {self.longest_seconds:.2f} s"
        return text + "".join(f"\n    {error}" for error in self.errors)


class Load:
    """A running load; a context manager that stops it and keeps its `result`.

    Parameters
    ----------
    command : sequence of str
        What runs `load.py`, with its standard input and output connected.
    order : Order
        What it is to do.
    """

    def __init__(self, command: Sequence[str], order: Order) -> None:
        self.result = Result()
        self._command = command
        self._order = order
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._done = False
        self._rest: list[str] = []

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._process.stdin
        self._process.stdin.write(json.dumps(asdict(self._order)) + "\n")
        self._process.stdin.flush()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.wait(sent=10)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait(self, *, sent: int, seconds: float = 90.0) -> None:
        """Wait until so many more requests were sent."""
        target = self.result.sent + sent
        self._until(lambda: self.result.sent >= target, f"{sent} more requests sent", seconds)

    def wait_version(self, version: str, count: int = 1, seconds: float = 90.0) -> None:
        """Wait until that version has given so many more answers."""
        target = self.result.by_version.get(version, 0) + count
        what = f"{count} answers of version {version}"
        self._until(lambda: self.result.by_version.get(version, 0) >= target, what, seconds)

    def finish(self, seconds: float | None = None) -> Result:
        """Wait until it has ended by itself, its number or time used up."""
        limit = self._order.seconds + 30 if seconds is None else seconds
        until(lambda: self._done, "the load's own end", limit, 0.2)
        return self.result

    def stop(self) -> Result:
        """Let every client finish its request, and return the result."""
        process = self._process
        assert process
        assert process.stdin
        assert process.stdout
        try:
            if process.poll() is None:
                process.stdin.write("stop\n")
            # Closing alone would do, but not through every version of kubectl's exec.
            process.stdin.close()
        except OSError:
            pass
        try:
            process.wait(self._order.timeout * 2 + 10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        if self._reader:
            self._reader.join(10)
        process.stdout.close()
        assert self._done, f"the load ended without a result:\n{''.join(self._rest[-20:])}"
        return self.result

    def _read(self) -> None:
        assert self._process
        assert self._process.stdout
        for line in self._process.stdout:
            try:
                document = json.loads(line)
            except ValueError:
                self._rest.append(line)
                continue
            kind, content = next(iter(document.items()))
            self.result = Result(**content)
            self._done = kind == "result"

    def _until(self, condition: Any, what: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self._process
            if self._process.poll() is not None and self._reader:
                self._reader.join(10)  # what it said last may not have been read yet
                if condition():
                    return
            said = f"{self.result}\n{''.join(self._rest[-20:])}"
            assert self._process.poll() is None, f"{what}: the load ended before; {said}"
            assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s; {said}"
            time.sleep(0.1)


def local_command() -> list[str]:
    """Return what runs the load here."""
    return [sys.executable, str(PROGRAM)]


def pod_command(namespace: str) -> list[str]:
    """Return what runs the load in the namespace's loader pod."""
    return ["kubectl", "exec", "-i", "-n", namespace, POD, "--", "python", "/load/load.py"]


def start_pod(kube: Kube, namespace: str, image: str) -> None:
    """Start the pod that loads come from: it sleeps until one is started in it."""
    security = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    container = {
        "name": "loader",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", "import time; time.sleep(7200)"],
        "securityContext": security,
        "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [{"name": "load", "mountPath": "/load"}],
    }
    spec = {
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "load", "configMap": {"name": POD}}],
    }
    kube.apply(
        [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": POD},
                "data": {PROGRAM.name: PROGRAM.read_text()},
            },
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD, "labels": {"app": POD}}, "spec": spec},
        ],
        namespace,
    )
    kube.wait("condition=Ready", f"pod/{POD}", namespace, 90)
