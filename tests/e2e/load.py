"""A bounded load on one URL that forgives nothing; of the standard library only, so that any pod with Python runs it.

Reads one line of JSON from standard input, the order (see `Order`), and goes on until its time or number is used up, or
standard input says ``stop`` or ends. Prints a line ``{"progress": …}`` twice a second and ``{"result": …}`` at the end.

Two kinds of clients run at the same time. A "new" client opens a connection for each request. A "kept" client keeps its
own: it connects anew only after the server has said ``Connection: close``, or when the connection turns out to be
closed before anything was sent on it, as every connection pool does. There are no retries: what isn't a complete 200
with the right answer is a failure.
"""

from __future__ import annotations

import http.client
import json
import math
import select
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

#: However the order reads: no load is longer, or heavier.
MAX_SECONDS = 600.0
MAX_RATE = 400.0
MAX_REQUESTS = 100_000
ERRORS_KEPT = 10
PROGRESS_SECONDS = 0.5
#: How exactly an answer must repeat what was computed elsewhere: float32 graphs round.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Order:
    """What to send, how often, how long.

    Attributes
    ----------
    url : str
        With host, port and path.
    document : object
        An Open Inference Protocol request, sent as JSON.
    expected : mapping
        Model version to what its first output's ``data`` must be; any other version is a failure.
    headers : mapping
        Sent with each request; ``Host`` among them where a gateway routes by it.
    new, kept : int
        Clients of each kind.
    rate : float
        Requests a second of all clients together; they never make up for lost time.
    seconds, limit : float, int
        When to end, at the latest: after that time, after that many requests.
    timeout : float
        Seconds that one request may take, connecting included.
    """

    url: str
    document: Any
    expected: Mapping[str, list[float]]
    headers: Mapping[str, str] = field(default_factory=dict)
    new: int = 2
    kept: int = 2
    rate: float = 60.0
    seconds: float = 60.0
    limit: int = MAX_REQUESTS
    timeout: float = 10.0

    @classmethod
    def parse(cls, line: str) -> Order:
        """Read an order and hold it to the bounds."""
        order = cls(**json.loads(line))
        bounds = {
            "seconds": (order.seconds, MAX_SECONDS),
            "rate": (order.rate, MAX_RATE),
            "limit": (order.limit, MAX_REQUESTS),
        }
        for name, (value, most) in bounds.items():
            if not 0 < value <= most:
                raise ValueError(f"{name}: expected above 0 and at most {most}, got {value}")
        return order


class Tally:
    """What became of the requests; all clients write into it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._versions: Counter[str] = Counter()
        self._errors: list[str] = []
        self._longest = 0.0
        self._failed_from: float | None = None
        self._failed_until: float | None = None

    def answered(self, kind: str, version: str, seconds: float) -> None:
        """Count a right answer."""
        with self._lock:
            self._sent[kind] += 1
            self._versions[version] += 1
            self._longest = max(self._longest, seconds)

    def failed(self, kind: str, text: str, seconds: float) -> None:
        """Count anything else."""
        now = time.time()
        stamp = time.strftime("%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}"
        with self._lock:
            self._sent[kind] += 1
            self._failed[kind] += 1
            self._longest = max(self._longest, seconds)
            self._failed_from = self._failed_from or now
            self._failed_until = now
            if len(self._errors) < ERRORS_KEPT:
                self._errors.append(f"{stamp} {kind}, after {seconds:.3f} s: {text}")

    def document(self) -> dict[str, Any]:
        """Return the sums so far."""
        with self._lock:
            return {
                "sent": self._sent.total(),
                "failed": self._failed.total(),
                "by_version": dict(sorted(self._versions.items())),
                "by_kind": {
                    kind: {"sent": self._sent[kind], "failed": self._failed[kind]} for kind in sorted(self._sent)
                },
                "errors": list(self._errors),
                "longest_seconds": round(self._longest, 3),
                "failed_from": self._failed_from,
                "failed_until": self._failed_until,
            }


class Client:
    """One client: its kind, its connection, its pace."""

    def __init__(self, order: Order, kind: str, tally: Tally) -> None:
        self._order = order
        self._kind = kind
        self._tally = tally
        parts = urlsplit(order.url)
        self._address = (parts.hostname or "", parts.port or 80)
        self._path = parts.path or "/"
        self._body = json.dumps(order.document).encode()
        self._headers = {"Content-Type": "application/json", **order.headers}
        self._connection: http.client.HTTPConnection | None = None

    def send(self) -> None:
        """Send one request and count what became of it."""
        started = time.monotonic()
        try:
            status, body = self._exchange()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            self._tally.failed(self._kind, repr(error), time.monotonic() - started)
            return
        seconds = time.monotonic() - started
        if status != 200:
            self._tally.failed(self._kind, f"status {status}: {_text(body)}", seconds)
            return
        version, complaint = check(body, self._order.expected)
        if complaint:
            self._tally.failed(self._kind, complaint, seconds)
        else:
            self._tally.answered(self._kind, version, seconds)

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _exchange(self) -> tuple[int, bytes]:
        connection = self._open()
        connection.request("POST", self._path, self._body, self._headers)
        response = connection.getresponse()
        body = response.read()
        # http.client has closed its end when the answer said "Connection: close".
        if self._kind == "new" or connection.sock is None:
            self.close()
        return response.status, body

    def _open(self) -> http.client.HTTPConnection:
        if self._connection is not None and _readable(self._connection.sock):
            self.close()
        if self._connection is None:
            connection = http.client.HTTPConnection(*self._address, timeout=self._order.timeout)
            connection.connect()
            self._connection = connection
        return self._connection


def check(body: bytes, expected: Mapping[str, list[float]]) -> tuple[str, str]:
    """Return the version that answered, and what is wrong with the answer if anything is."""
    try:
        answer = json.loads(body)
        version = str(answer["model_version"])
        data = answer["outputs"][0]["data"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        return "", f"not an answer ({error!r}): {_text(body)}"
    if version not in expected:
        return version, f"version {version} answered; expected one of {', '.join(expected)}"
    wanted = expected[version]
    right = len(data) == len(wanted) and all(
        math.isclose(a, b, rel_tol=0, abs_tol=TOLERANCE) for a, b in zip(data, wanted, strict=True)
    )
    return version, "" if right else f"version {version} answered {data}, expected {wanted}"


def _readable(sock: socket.socket | None) -> bool:
    """Whether something came unasked, which on an idle connection is its end."""
    return sock is None or bool(select.select([sock], [], [], 0)[0])


def _text(body: bytes) -> str:
    return body[:300].decode("utf-8", "replace").strip()


class Load:
    """All clients of an order, in threads."""

    def __init__(self, order: Order) -> None:
        self.tally = Tally()
        self.stopped = threading.Event()
        self._order = order
        self._left = order.limit
        self._lock = threading.Lock()
        self._deadline = time.monotonic() + order.seconds
        kinds = ["new"] * order.new + ["kept"] * order.kept
        self._pause = len(kinds) / order.rate
        self._threads = [
            threading.Thread(target=self._run, args=[Client(order, kind, self.tally), self._pause * i / len(kinds)])
            for i, kind in enumerate(kinds)
        ]

    def run(self) -> dict[str, Any]:
        """Run until the end, whatever brings it."""
        for thread in self._threads:
            thread.start()
        while any(thread.is_alive() for thread in self._threads):
            self.stopped.wait(PROGRESS_SECONDS)
            _print({"progress": self.tally.document()})
            if self.stopped.is_set():
                break
        for thread in self._threads:
            thread.join()
        return self.tally.document()

    def _run(self, client: Client, offset: float) -> None:
        due = time.monotonic() + offset
        try:
            while not self.stopped.wait(max(0.0, due - time.monotonic())):
                if time.monotonic() >= self._deadline or not self._take():
                    break
                client.send()
                # Not at once after a slow answer either: the server may just be closing the connection.
                due = max(due + self._pause, time.monotonic() + self._pause / 2)
        finally:
            client.close()

    def _take(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left >= 0


def _stop_when_told(load: Load) -> None:
    for line in sys.stdin:
        if line.strip() == "stop":
            break
    load.stopped.set()


def _print(document: Mapping[str, Any]) -> None:
    print(json.dumps(document), flush=True)


def main() -> None:
    """Take the order, run it, print the result."""
    load = Load(Order.parse(sys.stdin.readline()))
    threading.Thread(target=_stop_when_told, args=[load], daemon=True).start()
    _print({"result": load.run()})


if __name__ == "__main__":
    main()
