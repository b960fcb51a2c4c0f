"""A service of one's own for a while: ``muelle serve`` beside this process, as `muelle demo` needs it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from muelle.cli.http import Server, UnreachableError
from muelle.cli.output import working
from muelle.errors import MuelleError

_START_SECONDS: Final = 60.0
#: More than the service gives its requests to finish.
_STOP_SECONDS: Final = 40.0
_USUAL_PORT: Final = 8080


class Service(NamedTuple):
    """One that is ready.

    Attributes
    ----------
    url : str
        Where it is.
    server : Server
        To ask it.
    check : callable
        Raises `MuelleError` when it has ended.
    """

    url: str
    server: Server
    check: Callable[[], None]


@contextlib.contextmanager
def serving(repository: Path, port: int, settings: Mapping[str, str] | None = None) -> Iterator[Service]:
    """Serve a repository on 127.0.0.1 until the block ends; its log is shown only when it fails to start.

    Parameters
    ----------
    repository : Path
        Folder of all models.
    port : int
        Where to listen.
    settings : mapping, optional
        ``MUELLE_*`` variables; those of this process's environment don't count.

    Raises
    ------
    MuelleError
        When it doesn't get ready.
    """
    environ = {key: value for key, value in os.environ.items() if not key.startswith("MUELLE_")} | dict(settings or {})
    flags = ["--models", str(repository), "--host", "127.0.0.1", "--port", str(port)]
    with running("the service", [sys.executable, "-m", "muelle.cli", "serve", *flags], environ) as process:
        url = f"http://127.0.0.1:{port}"
        server = Server(url, None, 10.0)
        with working("starting the service"):
            process.wait_for(lambda: server.request("GET", "/readyz").status == 200)
        yield Service(url, server, process.check)


class Process:
    """A program that was started; made by `running`."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log: Path) -> None:
        self._name = name
        self._popen = popen
        self._log = log

    def check(self) -> None:
        """Raise `MuelleError`, with the end of its log, when it has ended."""
        if self._popen.poll() is not None:
            raise MuelleError(f"{self._name} ended with exit code {self._popen.returncode}:\n{self.log()}")

    def wait_for(self, ready: Callable[[], bool]) -> None:
        """Wait until it is ready, an unreachable server counting as not yet; raises `MuelleError` when it never is."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            self.check()
            with contextlib.suppress(UnreachableError):
                if ready():
                    return
            time.sleep(0.1)
        raise MuelleError(f"{self._name} was not ready after {_START_SECONDS:.0f} s:\n{self.log()}")

    def log(self) -> str:
        """Return the end of what it has written."""
        return self._log.read_bytes()[-3000:].decode("utf-8", "replace")


@contextlib.contextmanager
def running(name: str, command: list[str], environ: Mapping[str, str] | None = None) -> Iterator[Process]:
    """Run a program until the block ends; then it is told to, and killed if it doesn't.

    Parameters
    ----------
    name : str
        For messages.
    command : list of str
        What to run.
    environ : mapping, optional
        Its environment; without it, this process's.
    """
    with tempfile.NamedTemporaryFile(prefix="muelle-", suffix=".log") as log:
        popen = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: S603  # no shell: the command is ours
        try:
            yield Process(name, popen, Path(log.name))
        finally:
            popen.terminate()
            try:
                popen.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                popen.kill()
                popen.wait()


def free_port(usual: int = _USUAL_PORT) -> int:
    """Return the usual port when nobody listens there, else any free one."""
    for port in (usual, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise MuelleError("no free port on 127.0.0.1")
