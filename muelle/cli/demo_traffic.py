"""Made-up traffic of real rows, for ``muelle demo --monitor``: mostly good requests, some batches, some mistakes."""

from __future__ import annotations

import http.client
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

Row = list[Any]

#: Which model is asked, in hundredths: most for the one that drifts, so that it shows soon.
_SHARES: Final = {"breast-cancer": 60, "iris": 30, "linear": 10}
_BATCHES: Final = 0.08
_LARGEST_BATCH: Final = 20
_MISTAKES: Final = 0.04
#: What drifts, and by how many of its standard deviations: as if a device were calibrated anew.
DRIFTING_MODEL: Final = "breast-cancer"
DRIFTING_FEATURE: Final = "mean texture"
DRIFT_DEVIATIONS: Final = 1.5
#: When the service is away for a moment, or too slow, how late the traffic may get before it gives up being on time.
_LATEST_SECONDS: Final = 1.0
_TIMEOUT_SECONDS: Final = 10.0


class Request(NamedTuple):
    """One prediction request."""

    path: str
    body: bytes


@dataclass(frozen=True)
class Rows:
    """A model's real rows.

    Attributes
    ----------
    names : tuple of str
        Of the features.
    rows : sequence of lists
        Values in that order.
    deviations : tuple of float
        Each feature's standard deviation.
    """

    names: tuple[str, ...]
    rows: Sequence[Row]
    deviations: tuple[float, ...]


def real_rows() -> dict[str, Rows]:
    """Return the data sets of the three examples by model."""
    from training.pipelines import recipes

    found = {}
    for recipe in recipes().values():
        frame = recipe.data().features
        deviations = tuple(float(value) for value in frame.std())
        found[recipe.name] = Rows(tuple(map(str, frame.columns)), frame.to_numpy().tolist(), deviations)
    return found


class Mixture:
    """An endless mixture of requests.

    Parameters
    ----------
    rows : mapping
        Model to its rows.
    seed : int
        The same seed gives the same requests.

    Attributes
    ----------
    drifting : bool
        Whether rows of `DRIFTING_MODEL` are shifted from now on.
    """

    def __init__(self, rows: Mapping[str, Rows], seed: int = 0) -> None:
        self._rows = rows
        self._random = random.Random(seed)  # noqa: S311  # no secrets
        self.drifting = False

    def __iter__(self) -> Iterator[Request]:
        while True:
            yield self.next()

    def next(self) -> Request:
        """Return a request."""
        chance = self._random
        (model,) = chance.choices(list(_SHARES), list(_SHARES.values()))
        path = f"/models/{model}/predict"
        if chance.random() < _MISTAKES:
            return self._mistake(model, path)
        if chance.random() < _BATCHES:
            return Request(path, _body([self._row(model) for _ in range(chance.randint(2, _LARGEST_BATCH))]))
        # Half of them, since many clients don't ask; linear regression has none.
        return Request(path, _body(self._row(model), probabilities=model != "linear" and chance.random() < 0.5))

    def _row(self, model: str) -> Row:
        found = self._rows[model]
        row = list(self._random.choice(found.rows))
        if self.drifting and model == DRIFTING_MODEL:
            place = found.names.index(DRIFTING_FEATURE)
            row[place] += DRIFT_DEVIATIONS * found.deviations[place]
        return row

    def _mistake(self, model: str, path: str) -> Request:
        """Return what clients get wrong: a text for a number, a value too few, a model that isn't there."""
        row = self._row(model)
        kind = self._random.choice(("text", "short", "unknown"))
        if kind == "unknown":
            return Request("/models/rose/predict", _body(row))
        if kind == "short":
            return Request(path, _body(row[:-1]))
        row[self._random.randrange(len(row))] = "n/a"
        return Request(path, _body(row))


def _body(features: Any, *, probabilities: bool = False) -> bytes:
    document = {"features": features} | ({"probabilities": True} if probabilities else {})
    return json.dumps(document).encode()


@dataclass
class Sender:
    """Sends requests one after the other on one connection, at a steady rate.

    Parameters
    ----------
    host, port : str, int
        Where to.
    rate : float
        Requests a second; fewer when the answers take longer.

    Attributes
    ----------
    answered : dict of int to int
        Answers by status; 0 stands for requests without one.
    """

    host: str
    port: int
    rate: float
    answered: dict[int, int] = field(default_factory=dict)

    def send(self, requests: Iterator[Request], until: Callable[[], bool]) -> None:
        """Send until `until` says so, which is asked before each request."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=_TIMEOUT_SECONDS)
        due = time.monotonic()
        try:
            while not until():
                late = time.monotonic() - due
                if late > _LATEST_SECONDS:
                    due += late
                elif late < 0:
                    time.sleep(-late)
                due += 1 / self.rate
                status = self._one(connection, next(requests))
                self.answered[status] = self.answered.get(status, 0) + 1
        finally:
            connection.close()

    @staticmethod
    def _one(connection: http.client.HTTPConnection, request: Request) -> int:
        try:
            connection.request("POST", request.path, request.body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            return 0
        return response.status

    def summary(self) -> str:
        """Return what was answered, in words."""
        parts = [f"{count} answered {status}" for status, count in sorted(self.answered.items()) if status]
        parts += [f"{count} without an answer" for status, count in self.answered.items() if not status]
        return f"{sum(self.answered.values())} requests" + (f": {', '.join(parts)}" if parts else "")
