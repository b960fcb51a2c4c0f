"""Labels that this replica can't match, asked of the others: whichever answered the request remembers it.

All are asked at once, and none is waited for longer than `ASK_SECONDS` in all, looking up their addresses included. One
that is down, or hangs, is counted, and named in the log at most once a minute.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from muelle.errors import InputError
from service.exchange import OverloadedError
from service.feedback_metrics import RESULTS, FeedbackMetrics, Result
from service.protocols.feedback import Label, encode

_log = logging.getLogger(__name__)

#: Says that a request comes from another replica, which has asked all others already.
FORWARDED: Final = "X-Muelle-Forwarded"
ASK_SECONDS: Final = 2.0
#: The most that are asked.
MOST_PEERS: Final = 64
#: How long addresses are kept: replicas come and go by the minute.
_ADDRESSES_SECONDS: Final = 5.0
#: How long a request waits for the one before it to have asked; each holds a thread.
_TURN_SECONDS: Final = 0.25
_SAY_SECONDS: Final = 60.0
#: More than a thousand words take.
_ANSWER_BYTES: Final = 64 * 1024
_PLACE: Final = re.compile(r"\[(\d{1,4})\]\.\w+")

#: Returns the addresses that a name has now, as texts; raises OSError.
Resolve = Callable[[str, int], Sequence[str]]


class Answers(NamedTuple):
    """What the others said.

    Attributes
    ----------
    results : list of str
        For each label, the best of all answers: matched, else duplicate, else unmatched.
    unreachable : int
        How many replicas gave no answer.
    """

    results: list[Result]
    unreachable: int


class Peers:
    """The other replicas.

    Parameters
    ----------
    name : str
        ``HOST:PORT``; the host's addresses are those of all replicas.
    own : tuple of str and int
        The address and port on which this server listens.
    metrics : FeedbackMetrics
        Where requests are counted.
    resolve : callable, optional
        Looks up the addresses; the system's way if not given.
    """

    def __init__(
        self, name: str, own: tuple[str, int], metrics: FeedbackMetrics, resolve: Resolve | None = None
    ) -> None:
        host, _, port = name.rpartition(":")
        self._host = host.strip("[]")
        self._port = int(port)
        self._own = own
        self._metrics = metrics
        self._resolve = resolve or _addresses
        self._known: tuple[str, ...] | None = None
        self._known_until = 0.0
        self._turn = threading.Lock()
        self._say_again = 0.0

    def ask(self, labels: Sequence[Label], headers: Mapping[str, str]) -> Answers:
        """Let the other replicas match labels.

        Parameters
        ----------
        labels : sequence of Label
            Those that are matched nowhere yet.
        headers : mapping
            What the request brought: its key, its id.

        Raises
        ------
        InputError
            A replica has the prediction, and the label is none that its model may have. ``where`` begins with the
            label's place in `labels`.
        OverloadedError
            Another request is still asking.
        """
        deadline = time.monotonic() + ASK_SECONDS
        if not self._turn.acquire(timeout=_TURN_SECONDS):
            raise OverloadedError("other labels are being asked of the other replicas; try again later")
        try:
            addresses = self._look_up(deadline)
            if addresses is None:
                none: list[Result] = ["unmatched"] * len(labels)
                return Answers(none, self._failed(1, f"the name {self._host} is not resolved"))
            body = encode(labels)
            calls = [_Call(address, self._port, body, headers, deadline, len(labels)) for address in addresses]
            for call in calls:
                call.start()
            for call in calls:
                call.join(max(0.0, deadline - time.monotonic()))
            for call in calls:
                call.give_up()
        finally:
            self._turn.release()
        return self._gather(calls, len(labels))

    def _gather(self, calls: Sequence[_Call], number: int) -> Answers:
        # Taken once: a call that was given up may end at any moment.
        outcomes = [(call, call.outcome) for call in calls]
        answered = [outcome for _, outcome in outcomes if not isinstance(outcome, str)]
        self._metrics.asked["answered"].inc(len(answered))
        failures = [f"{call.address}: {outcome}" for call, outcome in outcomes if isinstance(outcome, str)]
        self._failed(len(failures), "; ".join(failures[:3]))
        for outcome in answered:
            if isinstance(outcome, InputError):
                raise outcome
        lists = [outcome for outcome in answered if isinstance(outcome, list)]
        none: Result = "unmatched"
        results = [min((found[i] for found in lists), key=RESULTS.index, default=none) for i in range(number)]
        return Answers(results, len(failures))

    def _failed(self, number: int, why: str) -> int:
        if number:
            self._metrics.asked["failed"].inc(number)
            if time.monotonic() >= self._say_again:
                self._say_again = time.monotonic() + _SAY_SECONDS
                _log.warning("feedback: %d replicas gave no answer: %s", number, why)
        return number

    def _look_up(self, deadline: float) -> tuple[str, ...] | None:
        """Return the others' addresses, None when they can't be had in time; no more than that many."""
        if self._known is not None and time.monotonic() < self._known_until:
            return self._known
        found: list[Sequence[str]] = []

        def resolve() -> None:
            # The second is for names that can be none.
            with contextlib.suppress(OSError, UnicodeError):
                found.append(self._resolve(self._host, self._port))

        # In a thread, since nothing else bounds how long the system takes.
        thread = threading.Thread(target=resolve, name="feedback-resolve", daemon=True)
        thread.start()
        thread.join(max(0.0, deadline - time.monotonic()))
        if not found:
            return None
        others = [address for address in dict.fromkeys(found[0]) if not self._is_own(address)]
        self._known = tuple(others[:MOST_PEERS])
        self._known_until = time.monotonic() + _ADDRESSES_SECONDS
        return self._known

    def _is_own(self, address: str) -> bool:
        host, port = self._own
        if port != self._port:
            return False
        return address == host if host not in ("0.0.0.0", "::") else _is_local(address)  # noqa: S104


class _Call(threading.Thread):
    """One request to one replica.

    Attributes
    ----------
    outcome : list of str, InputError or str
        The results; or that the list is refused; or why there is no answer.
    """

    def __init__(
        self, address: str, port: int, body: bytes, headers: Mapping[str, str], deadline: float, number: int
    ) -> None:
        super().__init__(name="feedback-peer", daemon=True)
        self.address = address
        self.outcome: list[Result] | InputError | str = "no answer in time"
        self._port = port
        self._body = body
        self._headers = {**headers, "Content-Type": "application/json", FORWARDED: "1", "Connection": "close"}
        self._deadline = deadline
        self._number = number
        self._connection: http.client.HTTPConnection | None = None

    def run(self) -> None:
        """Ask."""
        left = max(0.001, self._deadline - time.monotonic())
        connection = self._connection = http.client.HTTPConnection(self.address, self._port, timeout=left)
        try:
            connection.request("POST", "/feedback", self._body, self._headers)
            response = connection.getresponse()
            self.outcome = _read(response.status, response.read(_ANSWER_BYTES), self._number)
        except (OSError, http.client.HTTPException, ValueError, TypeError, LookupError) as error:
            # The last three for documents of another form.
            self.outcome = type(error).__name__
        finally:
            connection.close()

    def give_up(self) -> None:
        """End the wait of one that trickles its answer: each piece would be waited for anew."""
        connection = self._connection
        if self.is_alive() and connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError, AttributeError):
                connection.sock.shutdown(socket.SHUT_RDWR)


def _read(status: int, body: bytes, number: int) -> list[Result] | InputError | str:
    """Return what an answer says; raises ValueError, TypeError or LookupError for one that no replica gives."""
    if status not in (200, 400):
        return f"status {status}"
    document: Any = orjson.loads(body)
    if status == 400:
        place, message = _split_place(str(document["error"]), number)
        return InputError(message, code=str(document["code"]), where=place)
    results: list[Result] = document["results"]
    if len(results) != number or not set(results) <= set(RESULTS):
        raise ValueError("not the results of these labels")
    return results


def _split_place(error: str, number: int) -> tuple[str, str]:
    place, _, message = error.partition(": ")
    found = _PLACE.fullmatch(place)
    if found is None or int(found[1]) >= number:
        raise ValueError("no place of a label")
    return place, message


def _addresses(host: str, port: int) -> list[str]:
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _is_local(address: str) -> bool:
    """Whether this machine, or pod, has the address: only then can it be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        # Fails already where the kernel has no such family.
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
