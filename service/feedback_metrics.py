"""The counters behind quality: what was predicted against what came true, as sums that add up over workers and pods.

Everything that becomes a label comes from the bundle, or is one of a few fixed words. All children exist at 0 from the
moment when a model was loaded. (Design: monitoring.md, "Feedback".)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from itertools import islice
from typing import Final, Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from muelle.bundle.binning import OTHER
from muelle.bundle.profile import ColumnProfile, Profile
from muelle.bundle.signature import Scalar, Signature
from muelle.errors import InputError
from muelle.inference.rows import shown
from service.distributions import class_labels
from service.metrics import UNKNOWN

Result = Literal["matched", "duplicate", "unmatched"]
PeerResult = Literal["answered", "failed"]
Direction = Literal["over", "under"]

RESULTS: Final[tuple[Result, ...]] = get_args(Result)
#: Upper bounds in seconds: a minute, ten, an hour, six hours, a day, three, a week, two, thirty days.
LAG_BUCKETS: Final = (60.0, 600.0, 3_600.0, 21_600.0, 86_400.0, 259_200.0, 604_800.0, 1_209_600.0, 2_592_000.0)
#: A single error counts as no more than so many times the largest number of the reference: a sum that has once taken in
#: 1e300 would never be seen to grow again.
_MOST_TIMES: Final = 1e6
#: The most scores of a bundle that are told.
_MOST_SCORES: Final = 20
#: How many classes a message lists.
_LISTED: Final = 20


class FeedbackMetrics:
    """The metrics of all models.

    Parameters
    ----------
    registry : CollectorRegistry
        The worker's.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        model = ("model", "version")
        counter = partial(Counter, registry=registry)
        self.labels = counter("muelle_feedback_total", "Labels that came.", (*model, "result"))
        self.outcomes = counter(
            "muelle_feedback_outcomes_total", "Matched labels of a classifier.", (*model, "actual", "predicted")
        )
        self.correct = counter(
            "muelle_feedback_correct_total", "Matched labels that are the class that was predicted.", model
        )
        self.absolute = counter(
            "muelle_feedback_absolute_error_total",
            "Sum of how far predictions were from their labels, by whether they were too high (over) or too low.",
            (*model, "direction"),
        )
        self.squared = counter("muelle_feedback_squared_error_total", "Sum of the errors' squares.", model)
        self.lag = Histogram(
            "muelle_feedback_lag_seconds",
            "Time from an answer to when its label was known.",
            model,
            buckets=LAG_BUCKETS,
            registry=registry,
        )
        # Every worker reports the same about a model; a version that no living one has loaded is not reported.
        self.scores = Gauge(
            "muelle_model_score",
            "What the bundle says of the model's quality on held-out rows.",
            (*model, "score"),
            multiprocess_mode="livemax",
            registry=registry,
        )
        asked = counter("muelle_feedback_peer_requests_total", "Requests to other replicas for labels.", ("result",))
        self.asked = {result: asked.labels(result) for result in get_args(PeerResult)}
        self.unmatched = self.labels.labels(UNKNOWN, UNKNOWN, "unmatched")


class ModelFeedback:
    """One version's children, and what its labels may be.

    Parameters
    ----------
    families : FeedbackMetrics
        The worker's.
    labels : tuple of str
        Model and version.
    signature : Signature
        Its ``predict`` has one value a row.
    profile : Profile
        For the size of its numbers.
    scores : mapping
        The manifest's: what labels are to be compared with.
    """

    def __init__(
        self,
        families: FeedbackMetrics,
        labels: tuple[str, str],
        signature: Signature,
        profile: Profile,
        scores: Mapping[str, float],
    ) -> None:
        for name, value in islice(scores.items(), _MOST_SCORES):
            families.scores.labels(*labels, name).set(value)
        self._results = {result: families.labels.labels(*labels, result) for result in ("matched", "duplicate")}
        self._lag = families.lag.labels(*labels)
        classes = signature.output("predict").classes
        self._score: _Classes | _Numbers
        if classes is None:
            self._score = _Numbers(families, labels, profile.predictions.get("predict"))
        else:
            self._score = _Classes(families, labels, classes, class_labels(signature))
        self.check = self._score.check

    def is_comparable(self, prediction: float) -> bool:
        """Whether a label can be compared to it: a model may have answered NaN, or none of its own classes."""
        return math.isfinite(prediction)

    def count(self, result: Result) -> None:
        """Count a label that was matched, now or before."""
        self._results[result].inc()

    def score(self, prediction: float, actual: float, lag_seconds: float) -> None:
        """Count a label that was matched, against its prediction; `actual` comes from `check`."""
        self._lag.observe(max(0.0, lag_seconds))
        self._score.count(prediction, actual)


class _Classes:
    """A classifier's."""

    def __init__(
        self,
        families: FeedbackMetrics,
        labels: tuple[str, str],
        classes: tuple[Scalar, ...],
        names: Mapping[Scalar, str],
    ) -> None:
        # In JSON true is not 1, but 1.0 is.
        self._places = {(type(value) is bool, value): float(place) for place, value in enumerate(classes)}
        self._expected = ", ".join(shown(value) for value in classes[:_LISTED])
        if len(classes) > _LISTED:
            self._expected += f" or another of its {len(classes)} classes"
        self._names = {float(place): names.get(value, OTHER) for place, value in enumerate(classes)}
        shown_names = dict.fromkeys(self._names.values())
        self._outcomes = {
            (actual, predicted): families.outcomes.labels(*labels, actual, predicted)
            for actual in shown_names
            for predicted in shown_names
        }
        self._correct = families.correct.labels(*labels)

    def check(self, label: Scalar, where: str) -> float:
        place = self._places.get((type(label) is bool, label))
        if place is None:
            message = f"expected one of the classes {self._expected}, got {shown(label)}"
            raise InputError(message, code="unknown_class", where=where)
        return place

    def count(self, prediction: float, actual: float) -> None:
        self._outcomes[self._names[actual], self._names[prediction]].inc()
        if prediction == actual:
            self._correct.inc()


class _Numbers:
    """A regressor's."""

    def __init__(self, families: FeedbackMetrics, labels: tuple[str, str], reference: ColumnProfile | None) -> None:
        known = () if reference is None else (reference.minimum, reference.maximum)
        self._most = _MOST_TIMES * (max((abs(value) for value in known if value is not None), default=0.0) or 1.0)
        self._absolute: dict[Direction, Counter] = {
            direction: families.absolute.labels(*labels, direction) for direction in get_args(Direction)
        }
        self._squared = families.squared.labels(*labels)

    def check(self, label: Scalar, where: str) -> float:
        if isinstance(label, bool | str):
            raise InputError(f"expected a number, got {shown(label)}", code="invalid_value", where=where)
        return float(label)

    def count(self, prediction: float, actual: float) -> None:
        error = min(abs(prediction - actual), self._most)
        self._absolute["over" if prediction > actual else "under"].inc(error)
        self._squared.inc(error * error)
