"""Bounded load for tests: clients that open a connection a request, clients that keep theirs, and what became of each.

Nothing here measures speed. A `Load` runs until it is told to stop, has sent all it may, or its clients are refused.
"""

from __future__ import annotations

import http.client
import json
import select
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

Kind = Literal["new", "kept"]

#: However long a test forgets a load: its clients end by themselves.
MAX_SECONDS = 90.0


@dataclass(frozen=True)
class Outcome:
    """What became of one request.

    Attributes
    ----------
    connected, sent : float, optional
        ``time.monotonic()`` when its connection was established, and when it was sent; None when it never was.
    status : int, optional
        Of the answer; None when none came.
    failure : str
        Name of the exception, or ``wrong answer``; empty when there is nothing to complain about but the status.
    dropped : bool
        Whether the client's kept connection was closed before, though no answer on it had said that it would be.
    """

    connected: float | None
    sent: float | None
    status: int | None
    failure: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    dropped: bool = False


@dataclass(frozen=True)
class Tally:
    """Sums over outcomes."""

    outcomes: Sequence[Outcome]

    @property
    def sent(self) -> int:
        """Requests on a connection that was established."""
        return sum(outcome.connected is not None for outcome in self.outcomes)

    @property
    def ok(self) -> int:
        """Requests answered with 200 and the right body."""
        return sum(outcome.status == 200 and not outcome.failure for outcome in self.outcomes)

    @property
    def refused(self) -> int:
        """Attempts that ended before the connection was established."""
        return len(self.outcomes) - self.sent

    @property
    def failures(self) -> Counter[str]:
        """Requests that were not answered with 200, by exception or status."""
        return Counter(
            outcome.failure or f"status {outcome.status}"
            for outcome in self.outcomes
            if outcome.connected is not None and (outcome.failure or outcome.status != 200)
        )

    @property
    def dropped(self) -> int:
        """Kept connections that were closed without a word."""
        return sum(outcome.dropped for outcome in self.outcomes)

    @property
    def statuses(self) -> Counter[int]:
        """Answers by status."""
        return Counter(outcome.status for outcome in self.outcomes if outcome.status is not None)


class Client:
    """Sends one document again and again; a kept connection is opened anew only after it was closed."""

    def __init__(self, port: int, path: str, document: Any, kind: Kind, expected: Sequence[Any]) -> None:
        self._port = port
        self._path = path
        self._body = json.dumps(document).encode()
        self._expected = expected
        self._kind = kind
        self._connection: http.client.HTTPConnection | None = None
        self._connected: float | None = None
        self._dropped = False

    def send(self) -> Outcome:
        """Send one request."""
        self._dropped = False
        try:
            connection = self._open()
        except OSError as error:
            return Outcome(None, None, None, type(error).__name__, dropped=self._dropped)
        sent = time.monotonic()
        try:
            connection.request("POST", self._path, self._body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return Outcome(self._connected, sent, None, type(error).__name__, dropped=self._dropped)
        # http.client has closed its end when the answer said "Connection: close".
        if self._kind == "new" or connection.sock is None:
            self.close()
        headers = {name.lower(): value for name, value in response.getheaders()}
        wrong = response.status == 200 and self._expected and json.loads(body) not in self._expected
        failure = "wrong answer" if wrong else ""
        return Outcome(self._connected, sent, response.status, failure, headers, body, self._dropped)

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> http.client.HTTPConnection:
        # As connection pools do: a kept connection that the server has closed meanwhile is not used again.
        if self._connection is not None and select.select([self._connection.sock], [], [], 0)[0]:
            self.close()
            self._dropped = True
        if self._connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
            connection.connect()
            self._connected = time.monotonic()
            self._connection = connection
        return self._connection


class Load:
    """Clients in threads; a context manager that stops them.

    Parameters
    ----------
    port : int
        Of 127.0.0.1.
    path, document : str, object
        What to send.
    new, kept : int
        How many clients of each kind.
    requests : int, optional
        How many all clients may send together; without it they send until they are stopped.
    expected : sequence of object
        What each answer's body must be one of; empty for anything.
    pause_seconds : float
        Between two requests of a client: most tests want traffic, not a full machine.
    until_refused : bool
        Whether a client ends when its connection is refused.
    """

    def __init__(
        self,
        port: int,
        path: str,
        document: Any,
        *,
        new: int = 2,
        kept: int = 2,
        requests: int | None = None,
        expected: Sequence[Any] = (),
        pause_seconds: float = 0.005,
        until_refused: bool = False,
    ) -> None:
        kinds: list[Kind] = ["new"] * new + ["kept"] * kept
        self._clients = [Client(port, path, document, kind, expected) for kind in kinds]
        self._threads = [threading.Thread(target=self._run, args=[client], daemon=True) for client in self._clients]
        self._left = requests
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._pause_seconds = pause_seconds
        self._until_refused = until_refused
        self._outcomes: list[Outcome] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def tally(self) -> Tally:
        """What has become of the requests so far."""
        with self._lock:
            return Tally(list(self._outcomes))

    @property
    def busy(self) -> bool:
        """Whether any client is still at it."""
        return any(thread.is_alive() for thread in self._threads)

    def wait_ok(self, count: int) -> None:
        """Wait until that many more requests were answered with 200."""
        target = self.tally.ok + count
        self._wait(lambda tally: tally.ok >= target)

    def wait_failed(self, count: int) -> None:
        """Wait until that many requests in all were not."""
        self._wait(lambda tally: tally.failures.total() >= count)

    def join(self) -> Tally:
        """Wait until all clients have ended by themselves."""
        deadline = time.monotonic() + MAX_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            assert not thread.is_alive(), "a client did not end"
        return self.tally

    def stop(self) -> Tally:
        """Let each client finish its request and end."""
        self._stop.set()
        return self.join()

    def _wait(self, enough: Callable[[Tally], bool]) -> None:
        deadline = time.monotonic() + MAX_SECONDS
        while not enough(self.tally):
            assert time.monotonic() < deadline, self.tally.failures
            assert self.busy, self.tally.failures
            time.sleep(0.01)

    def _run(self, client: Client) -> None:
        deadline = time.monotonic() + MAX_SECONDS
        try:
            while not self._stop.is_set() and time.monotonic() < deadline and self._take():
                outcome = client.send()
                with self._lock:
                    self._outcomes.append(outcome)
                if outcome.connected is None and self._until_refused:
                    break
                self._stop.wait(self._pause_seconds)
        finally:
            client.close()

    def _take(self) -> bool:
        with self._lock:
            if self._left is None:
                return True
            self._left -= 1
            return self._left >= 0
