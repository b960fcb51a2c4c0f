"""The servers as processes: started on a free port, pinned to cores, in a session of their own, surely ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import BenchmarkError
from service.settings import PORT_KEYS, PREFIX, Settings

ROOT: Final = Path(__file__).resolve().parent.parent
#: The console script, also where only the source is there and nothing was installed.
MUELLE: Final = (sys.executable, "-m", "muelle.cli")
#: Ours is started as a user would, so the others get what our settings have by default.
THREADS: Final = Settings().threads
KEEPALIVE_SECONDS: Final = Settings().keepalive_seconds
START_LIMIT_SECONDS: Final = 60.0
STOP_LIMIT_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.01


@dataclass(frozen=True)
class Program:
    """How one of the servers is started.

    Attributes
    ----------
    name : str
        ``ours``, ``naive`` or ``raw``.
    command : tuple of str
        With ``{port}`` where the port goes.
    environ : mapping
        Added to a clean environment; ``{port}`` works here too.
    ready_path : str
        A GET of it answers 200 when the server can be asked.
    """

    name: str
    command: tuple[str, ...]
    environ: Mapping[str, str]
    ready_path: str


def ours(repository: Path, workers: int | None = None) -> Program:
    """Return our server with all defaults, on its loopback address; access log, metrics and request ids are on."""
    environ = {"MUELLE_MODELS": str(repository), "MUELLE_HOST": "127.0.0.1", "MUELLE_PORT": "{port}"}
    if workers is not None:
        environ["MUELLE_WORKERS"] = str(workers)
    return Program("ours", (*MUELLE, "serve"), environ, "/readyz")


def naive(model: Path, workers: int) -> Program:
    """Return the tutorial's server for a joblib file."""
    return Program("naive", _gunicorn("benchmarks.naive:create_app()", workers), {"NAIVE_MODEL": str(model)}, "/")


def raw(answer: Path, workers: int) -> Program:
    """Return the server that answers a file's bytes to anything."""
    return Program("raw", _gunicorn("benchmarks.raw:create_app()", workers), {"RAW_ANSWER": str(answer)}, "/")


def _gunicorn(application: str, workers: int) -> tuple[str, ...]:
    return (
        *(sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:{port}", "--worker-class", "gthread"),
        *("--workers", str(workers), "--threads", str(THREADS), "--keep-alive", str(KEEPALIVE_SECONDS)),
        # Several run at once, and their control sockets would all have the same path.
        *("--no-control-socket", application),
    )


@dataclass(frozen=True)
class Server:
    """A server that answered 200 on its ready path.

    Attributes
    ----------
    name : str
        The program's.
    port : int
        On 127.0.0.1.
    pid : int
        Of the first process, and so of the session that all its processes are in.
    start_seconds : float
        From the spawn to the first 200.
    """

    name: str
    port: int
    pid: int
    start_seconds: float

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def pss_bytes(self) -> int:
        """Return the proportional set size of all its processes together."""
        total = 0
        for pid in session(self.pid):
            # A process may end in between.
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) * 1024
        return total

    def cpu_seconds(self) -> float:
        """Return the processor time, user's and system's, of all its processes that are alive."""
        ticks = 0
        for pid in session(self.pid):
            with contextlib.suppress(OSError):
                fields = _stat(pid)
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def process_count(self) -> int:
        """Return how many processes it consists of."""
        return len(session(self.pid))


@contextlib.contextmanager
def running(program: Program, cores: Iterable[int], log: Path) -> Iterator[Server]:
    """Start a server, wait until it is ready, and end all its processes on the way out.

    Parameters
    ----------
    program : Program
        What to start.
    cores : iterable of int
        Where its processes may run.
    log : Path
        Gets its standard output and error, as a container's log would.

    Raises
    ------
    BenchmarkError
        When it ends or is not ready in time; with the end of its log.
    """
    port = free_port()
    command = [part.replace("{port}", str(port)) for part in program.command]
    environ = clean_environment() | {key: value.replace("{port}", str(port)) for key, value in program.environ.items()}
    started = time.perf_counter()
    with log.open("wb") as output:
        process = _spawn_on(cores, command, environ, output.fileno())
    try:
        _wait_until_ready(process, program, port, log)
        yield Server(program.name, port, process.pid, time.perf_counter() - started)
    finally:
        end_group(process)


def clean_environment() -> dict[str, str]:
    """Return our environment without what would change a server's settings."""
    ignored = {*PORT_KEYS, "GUNICORN_CMD_ARGS", "WEB_CONCURRENCY"}
    return {key: value for key, value in os.environ.items() if key not in ignored and not key.startswith(PREFIX)}


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that was started in its own session, and all it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_LIMIT_SECONDS)
    finally:
        # Workers that outlived their arbiter are still in its group; and a second Ctrl-C ends up here as well.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _spawn_on(
    cores: Iterable[int], command: Sequence[str], environ: Mapping[str, str], output: int
) -> subprocess.Popen[bytes]:
    # A child inherits its parent's affinity: no moment in which it runs elsewhere.
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    finally:
        os.sched_setaffinity(0, own)


def _wait_until_ready(process: subprocess.Popen[bytes], program: Program, port: int, log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_SECONDS
    while not _is_ready(f"http://127.0.0.1:{port}{program.ready_path}"):
        if (status := process.poll()) is not None:
            raise BenchmarkError(f"{program.name}: ended with status {status} instead of serving\n{_tail(log)}")
        if time.monotonic() > deadline:
            raise BenchmarkError(f"{program.name}: not ready after {START_LIMIT_SECONDS:g} s\n{_tail(log)}")
        time.sleep(_POLL_SECONDS)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.HTTPError):
        return False


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])


def session(leader: int) -> list[int]:
    """Return the ids of a session's processes."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if int(_stat(int(entry.name))[3]) == leader:
                    found.append(int(entry.name))
    return found


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third, the state, on."""
    # The second is the command's name in parentheses, which may hold blanks.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
