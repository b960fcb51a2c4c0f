"""Load by wrk, and what it measured."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import BenchmarkError
from benchmarks.servers import Server
from benchmarks.works import Call

CONNECTIONS: Final = 8
INSTALL_HINT: Final = "wrk is not installed; on Debian and Ubuntu: sudo apt-get install wrk"
_SCRIPT: Final = Path(__file__).with_name("post.lua")
#: A request that takes longer than this counts as an error.
_REQUEST_LIMIT_SECONDS: Final = 10
_ERRORS: Final = ("connect", "read", "write", "status", "timeout")


@dataclass(frozen=True)
class Measurement:
    """One round, or the medians of several.

    Attributes
    ----------
    requests_per_second : float
        Answered with a status below 400.
    p50_ms, p99_ms : float
        Latency in milliseconds as the client sees it, with 8 requests under way all the time.
    cpu_ms : float
        Milliseconds of processor that the server's processes spent on a request, which depends less than the rate on
        what else the machine does.
    """

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float


def is_installed() -> bool:
    """Whether wrk can be found."""
    return shutil.which("wrk") is not None


def run_load(server: Server, call: Call, body: Path, seconds: int) -> Measurement:
    """Post a call over and over on all connections; one thread, on this process's own cores.

    Parameters
    ----------
    server : Server
        Who is asked.
    call : Call
        What is asked.
    body : Path
        A file to hand the call's body to wrk in.
    seconds : int
        How long.

    Raises
    ------
    BenchmarkError
        When wrk fails, or when any request did.
    """
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", f"--timeout={_REQUEST_LIMIT_SECONDS}s"]
    url = f"{server.url}{call.path}"
    body.write_bytes(call.body)
    for name, value in call.headers.items():
        command += ["-H", f"{name}: {value}"]
    command += ["-s", str(_SCRIPT), url, "--", str(body)]
    try:
        limit = seconds + 2 * _REQUEST_LIMIT_SECONDS
        cpu_before = server.cpu_seconds()
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=limit)
        cpu_seconds = server.cpu_seconds() - cpu_before
        result = json.loads(done.stdout.splitlines()[-1])
    except subprocess.CalledProcessError as error:
        raise BenchmarkError(f"wrk against {url} failed: {error.stderr.strip() or error.stdout.strip()}") from error
    except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
        raise BenchmarkError(f"wrk against {url}: {error}") from error
    if failed := {name: result[name] for name in _ERRORS if result[name]}:
        raise BenchmarkError(f"{url}: {failed} of {result['requests']} requests failed under load")
    if not result["requests"]:
        raise BenchmarkError(f"{url}: not one answer in {seconds} s")
    return Measurement(
        requests_per_second=result["requests"] / (result["microseconds"] / 1e6),
        p50_ms=result["p50_microseconds"] / 1e3,
        p99_ms=result["p99_microseconds"] / 1e3,
        cpu_ms=cpu_seconds / result["requests"] * 1e3,
    )


def medians(rounds: Sequence[Measurement]) -> Measurement:
    """Return the median of each number on its own."""
    return Measurement(
        requests_per_second=statistics.median(item.requests_per_second for item in rounds),
        p50_ms=statistics.median(item.p50_ms for item in rounds),
        p99_ms=statistics.median(item.p99_ms for item in rounds),
        cpu_ms=statistics.median(item.cpu_ms for item in rounds),
    )
