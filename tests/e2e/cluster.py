"""kubectl and helm as the tests use them: on the current context, whatever cluster that is."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from support import free_port

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, seconds: float = 90.0, every: float = 0.5) -> T:
    """Return the first value of a condition that counts as true; it may raise AssertionError for "not yet"."""
    deadline = time.monotonic() + seconds
    while True:
        complaint = ""
        try:
            value = condition()
            if value:
                return value
        except AssertionError as error:
            complaint = f": {error}"
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what}: not within {seconds:.0f} s{complaint}")
        time.sleep(every)


class Kube:
    """The cluster of the current context."""

    def __init__(self) -> None:
        for program in ("kubectl", "helm"):
            assert shutil.which(program), f"the e2e tests need {program} on the PATH"
        self.context = self.run("config", "current-context").strip()

    def run(self, *args: str, stdin: str | None = None, check: bool = True, timeout: float = 120.0) -> str:
        """Run kubectl and return what it printed."""
        return _run(["kubectl", *args], stdin, check, timeout)

    def helm(self, *args: str, stdin: str | None = None, check: bool = True, timeout: float = 240.0) -> str:
        """Run helm and return what it printed."""
        return _run(["helm", *args], stdin, check, timeout)

    def get(self, kind: str, name: str = "", namespace: str | None = None, selector: str | None = None) -> Any:
        """Return an object, or the list of them."""
        where = ["-n", namespace] if namespace else []
        which = ["-l", selector] if selector else []
        return json.loads(self.run("get", kind, *([name] if name else []), *where, *which, "-o", "json"))

    def exists(self, kind: str, name: str, namespace: str | None = None) -> bool:
        """Whether there is such an object; fails when the cluster doesn't know the kind, or can't say."""
        where = ["-n", namespace] if namespace else []
        return bool(self.run("get", kind, name, *where, "--ignore-not-found", "-o", "name").strip())

    def apply(self, document: dict[str, Any] | Sequence[dict[str, Any]] | str, namespace: str | None = None) -> None:
        """Apply objects, or a text of them."""
        if isinstance(document, str):
            text = document
        else:
            items = [document] if isinstance(document, dict) else list(document)
            text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        self.run("apply", *(["-n", namespace] if namespace else []), "-f", "-", stdin=text)

    def exec(self, namespace: str, pod: str, *command: str, container: str | None = None, check: bool = True) -> str:
        """Run a command in a pod and return what it printed."""
        where = ["-c", container] if container else []
        return self.run("exec", "-n", namespace, pod, *where, "--", *command, check=check)

    def wait(self, condition: str, what: str, namespace: str, seconds: float = 120.0) -> None:
        """Wait for a condition of an object, as `kubectl wait` does."""
        limit = f"--timeout={seconds:.0f}s"
        self.run("wait", f"--for={condition}", what, "-n", namespace, limit, timeout=seconds + 20)

    @contextlib.contextmanager
    def port_forward(self, namespace: str, target: str, port: int) -> Iterator[str]:
        """Forward a free local port to a pod or Service; the value is its URL."""
        local = free_port()
        # Not to localhost, which is ::1 as well: kubectl is content when it gets one of the two.
        command = ["kubectl", "port-forward", "--address=127.0.0.1", "-n", namespace, target, f"{local}:{port}"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            try:
                until(lambda: _listening(local, process), f"port-forward to {target}", 30, 0.05)
                yield f"http://127.0.0.1:{local}"
            finally:
                process.terminate()

    def events(self, namespace: str) -> str:
        """Return the last events of a namespace: what a failure's message should end with."""
        text = self.run("get", "events", "-n", namespace, "--sort-by=.lastTimestamp", check=False)
        return "\n".join(text.splitlines()[-25:])


def _run(command: list[str], stdin: str | None, check: bool, timeout: float) -> str:
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"{' '.join(command)}: no end after {timeout:.0f} s") from error
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def _listening(port: int, process: subprocess.Popen[str]) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"kubectl port-forward ended: {process.stderr.read() if process.stderr else ''}")
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
