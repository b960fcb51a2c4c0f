"""Predictions joined with labels: counts, coverage, lag and scores, by model, version and period."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from muelle.bundle.data import Array
from muelle.bundle.signature import Scalar
from muelle.quality.comparing import Scorer
from muelle.quality.labels import UNKNOWN_TIME, Labels, keys_of
from muelle.quality.scores import Classification, Regression, Score

Period = Literal["day", "week", "month", "version"]
PERIODS: Final = get_args(Period)
_NAMES: Final[Mapping[Period, Callable[[date], str]]] = {
    "day": date.isoformat,
    "week": lambda day: f"{day:%G-W%V}",
    "month": lambda day: f"{day:%Y-%m}",
    "version": lambda day: "all",
}
_SECOND: Final = 1_000_000


class PredictionBatch(NamedTuple):
    """Some rows of the log, of one version and day.

    Attributes
    ----------
    request_ids, rows : arrays of shape (n,)
        Which row of which request.
    answered_at : array of shape (n,) int64
        Microseconds since 1970.
    predicted : array of shape (n,), optional
        Numbers, booleans, or texts and None; None when the log has none that can be scored.
    probabilities : array of shape (n, n_classes) float64, optional
        NaN in rows whose probabilities were not answered.
    """

    request_ids: Array
    rows: Array
    answered_at: NDArray[np.int64]
    predicted: Array | None
    probabilities: NDArray[np.float64] | None


@dataclass(frozen=True)
class Row:
    """What is known of one version in one period.

    Attributes
    ----------
    period : str
        ``2026-11-21``, ``2026-W47``, ``2026-11``, or ``all``.
    predictions : int
        Rows that were answered.
    repeated : int
        Rows beside those, whose request id came again on the same day: a label means the latest.
    labelled : int
        Rows whose label is known.
    unusable : int
        Rows whose label can't be compared with the prediction, not counted as labelled.
    lag_seconds : float
        Median time from answer to label; NaN when there is none.
    scores : mapping
        By name; empty without labels.
    """

    model: str
    version: str
    period: str
    predictions: int
    repeated: int
    labelled: int
    unusable: int
    lag_seconds: float
    scores: Mapping[str, Score]

    @property
    def coverage(self) -> float:
        """Share of the predictions whose label is known."""
        return self.labelled / self.predictions if self.predictions else math.nan


@dataclass
class _Group:
    """What adds up to a `Row`."""

    seed: int
    predictions: int = 0
    repeated: int = 0
    labelled: int = 0
    unusable: int = 0
    lags: list[Array] = field(default_factory=list)
    scores: Classification | Regression | None = None


class Evaluation:
    """Adds up the log, a day of one version at a time.

    Parameters
    ----------
    labels : Labels
        What became known.
    period : str
        What is one row of the result: one of `PERIODS`.
    """

    def __init__(self, labels: Labels, period: Period) -> None:
        self._labels = labels
        self._name = _NAMES[period]
        self._groups: dict[tuple[str, str, str], _Group] = {}
        self._used: dict[tuple[str, str], NDArray[np.bool_]] = {}

    def add_day(
        self,
        model: str,
        version: str,
        day: date,
        classes: Sequence[Scalar] | None,
        batches: Iterable[PredictionBatch],
    ) -> None:
        """Add a day of one version, the last day first: where a request id came again, its latest answer counts.

        It holds some 50 bytes of each prediction of the day, and more of the labelled ones.

        Parameters
        ----------
        model, version : str
            Of all batches.
        day : date
            In UTC, on which they were answered.
        classes : sequence of scalars, optional
            In the order of the probabilities; None when the model predicts numbers.
        batches : iterable of PredictionBatch
            All of that day.
        """
        period = self._name(day)
        seed = zlib.crc32(f"{model}/{version}".encode())
        group = self._groups.setdefault((model, version, period), _Group(seed))
        used = self._used.setdefault((model, version), np.zeros(len(self._labels), np.bool_))
        keys: list[Array] = []
        times: list[Array] = []
        matches: list[tuple[int, Array, PredictionBatch]] = []
        count = 0
        for batch in batches:
            found = keys_of(batch.request_ids, batch.rows)
            keys.append(found)
            times.append(batch.answered_at)
            places = self._labels.find(found)
            if (places >= 0).any():
                matched = np.flatnonzero(places >= 0)
                matches.append((count, matched, _chosen(batch, matched)))
            count += len(found)
        if not count:
            return
        joined = np.concatenate(keys)
        latest = _latest(joined, np.concatenate(times))
        group.predictions += int(latest.sum())
        group.repeated += int((~latest).sum())
        scorer = Scorer(classes)
        for start, matched, batch in matches:
            places = self._labels.find(joined[start + matched])
            new = latest[start + matched] & ~used[places]
            used[places[new]] = True
            self._score(group, scorer, _chosen(batch, np.flatnonzero(new)), places[new])

    def rows(self) -> list[Row]:
        """Return the result, by model, version and period."""
        return [
            Row(
                model=model,
                version=version,
                period=period,
                predictions=group.predictions,
                repeated=group.repeated,
                labelled=group.labelled,
                unusable=group.unusable,
                lag_seconds=_median(group.lags),
                scores=group.scores.scores() if group.scores is not None else {},
            )
            for (model, version, period), group in sorted(self._groups.items())
        ]

    def _score(self, group: _Group, scorer: Scorer, batch: PredictionBatch, places: NDArray[np.intp]) -> None:
        if not len(places):
            return
        usable = np.ones(len(places), np.bool_)
        if batch.predicted is not None:
            if group.scores is None:
                group.scores = scorer.start(group.seed)
            usable = scorer.add(group.scores, self._labels.texts[places], batch.predicted, batch.probabilities)
        group.labelled += int(usable.sum())
        group.unusable += int((~usable).sum())
        observed = self._labels.observed_at[places]
        known = usable & (observed != UNKNOWN_TIME)
        group.lags.append(((observed - batch.answered_at)[known] / _SECOND).astype(np.float32))


def _chosen(batch: PredictionBatch, places: Array) -> PredictionBatch:
    return PredictionBatch(
        batch.request_ids[places],
        batch.rows[places],
        batch.answered_at[places],
        None if batch.predicted is None else batch.predicted[places],
        None if batch.probabilities is None else batch.probabilities[places],
    )


def _latest(keys: Array, times: Array) -> NDArray[np.bool_]:
    """Return which rows are the latest of their key; of two at the same time, the one that comes later here."""
    order = np.lexsort((times, keys))
    sorted_keys = keys[order]
    last = np.ones(len(keys), np.bool_)
    last[:-1] = sorted_keys[1:] != sorted_keys[:-1]
    found = np.zeros(len(keys), np.bool_)
    found[order[last]] = True
    return found


def _median(parts: Sequence[Array]) -> float:
    values = np.concatenate(parts) if parts else np.empty(0)
    return float(np.median(values)) if len(values) else math.nan
