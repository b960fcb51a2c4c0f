"""``POST /feedback``: labels are matched to the answers that this server, or another replica, remembers.

A list is judged before anything is counted here, then by each other replica, of which some may have counted their part
when another refuses; sent again, nothing counts twice. Each row
is labelled once, whichever worker gets the label and however often it comes: what has been labelled is marked in the
memory itself, under a lock of all workers.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections import Counter as Tally
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from muelle.errors import InputError, NotReadyError
from muelle.inference import Predictor
from service.answering import Reply, authorise, turn_away_when_overloaded
from service.body import check_json_type, read_body
from service.exchange import OverloadedError, exchange_of
from service.feedback_metrics import RESULTS, FeedbackMetrics, ModelFeedback, Result
from service.feedback_peers import Peers
from service.memory import Entry, Memory, ModelMemory, is_comparable, model_key, row_key
from service.protocols.feedback import Label, decode
from service.tracing import outgoing

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from service.app import Service

#: How long a request waits for the others that mark labels; each takes milliseconds.
_LOCK_SECONDS: Final = 2.0
_PAUSE_SECONDS: Final = 0.002
#: What of a request goes on to the other replicas.
_PASSED_ON: Final = {"HTTP_AUTHORIZATION": "Authorization", "HTTP_X_API_KEY": "X-API-Key"}


class Taken(NamedTuple):
    """What became of labels.

    Attributes
    ----------
    results : list of str
        For each label ``matched``, ``duplicate`` or ``unmatched``.
    unreachable : int
        How many replicas gave no answer; what is unmatched may be remembered there.
    """

    results: list[Result]
    unreachable: int


class Feedback:
    """A worker's part in it.

    Parameters
    ----------
    metrics : FeedbackMetrics
        Where labels are counted.
    memory : Memory
        What all workers remember.
    lock : Path
        A file of the metrics folder, for the lock of all workers.
    peers : Peers, optional
        The other replicas; None when there are none to be asked.

    Raises
    ------
    OSError
        When the lock's file can't be made.
    """

    def __init__(self, metrics: FeedbackMetrics, memory: Memory, lock: Path, peers: Peers | None = None) -> None:
        self._metrics = metrics
        self._memory = memory
        self._peers = peers
        self._models: dict[int, ModelFeedback] = {}
        # A file lock is one of the process: its threads need their own.
        self._thread_lock = threading.Lock()
        self._lock_file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def of(self, predictor: Predictor) -> ModelMemory | None:
        """Return what remembers a loaded model's answers, None where there is nothing to compare; its series exist."""
        manifest, signature = predictor.manifest, predictor.signature
        key = model_key(manifest.name, manifest.version, predictor.digest)
        # Also where this worker has no room to remember: it matches what others do.
        if is_comparable(signature):
            labels = (manifest.name, manifest.version)
            self._models[key] = ModelFeedback(self._metrics, labels, signature, predictor.profile, manifest.scores)
        return self._memory.of(signature, key)

    def take(self, labels: Sequence[Label], headers: Mapping[str, str], *, ask: bool = True) -> Taken:
        """Match labels and count them.

        Parameters
        ----------
        labels : sequence of Label
            In the order of the request.
        headers : mapping
            What is passed on to other replicas.
        ask : bool
            Whether other replicas are asked for what is not matched here; whoever asks counts what is unmatched.

        Raises
        ------
        InputError
            A label is none that its model may have; ``where`` begins with its place in `labels`. Nothing was counted
            here.
        OverloadedError
            Too many are at it.
        """
        found = self._memory.find([row_key(label.request_id, label.row) for label in labels])
        pairs: dict[int, tuple[Entry, ModelFeedback]] = {}
        actual: dict[int, float] = {}
        for place, (label, entry) in enumerate(zip(labels, found, strict=True)):
            model = None if entry is None else self._models.get(entry.model)
            # What no loaded model has answered is not known any more: a reload may have taken its version away.
            if entry is not None and model is not None and model.is_comparable(entry.prediction):
                actual[place] = model.check(label.label, f"[{place}].label")
                pairs[place] = (entry, model)
        results: list[Result] = ["unmatched"] * len(labels)
        unreachable = 0
        if ask and self._peers is not None and len(pairs) < len(labels):
            unreachable = self._ask(self._peers, labels, results, pairs.keys(), headers)
        with self._only_one():
            for place, (entry, _) in pairs.items():
                results[place] = "matched" if entry.ring.label(entry) else "duplicate"
        for place, (entry, model) in pairs.items():
            model.count(results[place])
            if results[place] == "matched":
                model.score(entry.prediction, actual[place], labels[place].observed_at - entry.answered_at)
        if ask:
            self._metrics.unmatched.inc(results.count("unmatched"))
        return Taken(results, unreachable)

    def _ask(
        self,
        peers: Peers,
        labels: Sequence[Label],
        results: list[Result],
        matched: Collection[int],
        headers: Mapping[str, str],
    ) -> int:
        """Ask the other replicas for what is not matched here; returns how many gave no answer."""
        places = [place for place in range(len(labels)) if place not in matched]
        try:
            answers = peers.ask([labels[place] for place in places], headers)
        except InputError as error:
            raise _moved(error, lambda place: f"[{places[place]}]") from error
        for place, result in zip(places, answers.results, strict=True):
            results[place] = result
        return answers.unreachable

    @contextmanager
    def _only_one(self) -> Iterator[None]:
        """Be the only one of all workers' threads that marks labels."""
        deadline = time.monotonic() + _LOCK_SECONDS
        if not self._thread_lock.acquire(timeout=_LOCK_SECONDS):
            raise OverloadedError("other labels are being counted; try again later")
        try:
            # Asked again and again, since nothing else bounds the wait for a worker that stands still.
            while not self._lock():
                if time.monotonic() > deadline:
                    raise OverloadedError("another worker is counting labels; try again later")
                time.sleep(_PAUSE_SECONDS)
            try:
                yield
            finally:
                fcntl.flock(self._lock_file, fcntl.LOCK_UN)
        finally:
            self._thread_lock.release()

    def _lock(self) -> bool:
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def answer_feedback(service: Service, environ: WSGIEnvironment) -> Reply:
    """Answer ``POST /feedback``; raises `MuelleError`."""
    authorise(service, environ)
    turn_away_when_overloaded(service)
    body = read_body(environ, service.settings.max_body_bytes)
    check_json_type(environ)
    if service.feedback is None:
        raise NotReadyError("no labels are taken: there was no room in the metrics folder when this worker started")
    if service.models.loading:
        raise NotReadyError("labels are taken when the models are loaded")
    labels = decode(body)
    forwarded = environ.get("HTTP_X_MUELLE_FORWARDED") == "1"
    headers = {name: environ[key] for key, name in _PASSED_ON.items() if key in environ}
    headers["X-Request-Id"] = exchange_of(environ).request_id
    headers.update(outgoing(exchange_of(environ)))
    try:
        taken = service.feedback.take(labels, headers, ask=not forwarded)
    except InputError as error:
        if body.lstrip()[:1] == b"[":
            raise
        # One object: its places have no number.
        raise _moved(error, lambda _: "") from error
    if not forwarded and service.prediction_log is not None:
        service.prediction_log.feedback(labels)
    return Reply(200, _encode(taken, with_results=forwarded))


def _encode(taken: Taken, *, with_results: bool) -> bytes:
    tally = Tally(taken.results)
    document: dict[str, Any] = {result: tally[result] for result in RESULTS}
    if taken.unreachable:
        document["unreachable"] = taken.unreachable
    if with_results:
        document["results"] = taken.results
    return orjson.dumps(document)


def _moved(error: InputError, moved: Callable[[int], str]) -> InputError:
    """Return an error whose place ``[i]…`` begins with ``moved(i)`` instead."""
    number, _, rest = error.where[1:].partition("]")
    where = f"{moved(int(number))}{rest}".lstrip(".")
    return InputError(str(error).removeprefix(f"{error.where}: "), code=error.code, where=where)
