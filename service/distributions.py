"""The counters behind drift: rows by bin of each feature and prediction, by class, by confidence.

Everything that becomes a label comes from the bundle: features' names, bins, classes. All children exist from the
moment when a model was loaded, so no request can add a series. (Design: monitoring.md, "Drift".)
"""

from __future__ import annotations

import logging
from collections import Counter as Tally
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from muelle.bundle.binning import OTHER, Binning, chi2_quantile
from muelle.bundle.data import Array, Data
from muelle.bundle.profile import CONFIDENCE, Profile
from muelle.bundle.signature import Scalar, Signature
from service.observations import Observation

_log = logging.getLogger(__name__)

#: The most features, and the most columns of a prediction, that are counted for one model; each has up to 17 bins.
MOST_FEATURES: Final = 50
MOST_OUTPUTS: Final = 10
#: The most classes with a counter of their own.
MOST_CLASSES: Final = 20
#: What noise reaches in one of a thousand windows; `muelle.drift` has the same, and may not be imported here.
CRITICAL_PROBABILITY: Final = 0.999
#: Upper bounds of a row's largest probability; finer at the end, where most of a good classifier's are.
CONFIDENCE_BUCKETS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)

_Increment = Callable[[], None]


class Distributions:
    """The metrics of all models.

    Parameters
    ----------
    registry : CollectorRegistry
        The worker's.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        model = ("model", "version")
        counter = partial(Counter, registry=registry)
        # Every worker reports the same about a model; a version that no living one has loaded is not reported.
        gauge = partial(Gauge, multiprocess_mode="livemax", registry=registry)
        self.bins = counter("muelle_feature_bin_total", "Rows by bin of a feature.", (*model, "feature", "bin"))
        self.ratios = gauge(
            "muelle_feature_reference_ratio", "Smoothed share of a bin in the reference.", (*model, "feature", "bin")
        )
        self.references = gauge("muelle_feature_reference_observations", "Rows of the reference.", (*model, "feature"))
        self.criticals = gauge(
            "muelle_feature_psi_critical",
            "What PSI / (1/N + 1/M) exceeds in one of a thousand windows without drift.",
            (*model, "feature"),
        )
        self.predictions = counter("muelle_predictions_total", "Rows by predicted class.", (*model, "class"))
        self.confidence = Histogram(
            "muelle_prediction_confidence",
            "Largest probability of a row, where probabilities were asked for.",
            model,
            buckets=CONFIDENCE_BUCKETS,
            registry=registry,
        )
        self.critical_values: dict[int, float] = {}

    def of(self, name: str, version: str, signature: Signature, profile: Profile) -> ModelDistributions:
        """Make a model's children."""
        return ModelDistributions(self, (name, version), signature, profile)


class ModelDistributions:
    """One version's children; made by `Distributions.of`."""

    def __init__(
        self, families: Distributions, labels: tuple[str, str], signature: Signature, profile: Profile
    ) -> None:
        inputs = [n for n in signature.names if n in profile.inputs and n not in profile.predictions]
        outputs = [name for name in profile.predictions if name != CONFIDENCE]
        _tell_what_is_left_out(" ".join(labels), signature, inputs, outputs, profile)
        places = {name: place for place, name in enumerate(signature.names)}
        self._inputs = {name: places[name] for name in inputs[:MOST_FEATURES]}
        self._outputs = {name: place for place, name in enumerate(outputs[:MOST_OUTPUTS])}
        has_probabilities = "predict_proba" in signature.output_names
        binned = {name: profile.inputs[name] for name in self._inputs} | {
            name: profile.predictions[name]
            for name in (*self._outputs, CONFIDENCE)
            if name in profile.predictions and (name != CONFIDENCE or has_probabilities)
        }
        self._bins = {name: _Bins(families, labels, name, Binning.of(column)) for name, column in binned.items()}
        self._classes = class_labels(signature)
        named = (*self._classes.values(), OTHER) if self._classes else ()
        self._by_class = {label: families.predictions.labels(*labels, label) for label in named}
        self._confidence = families.confidence.labels(*labels) if has_probabilities else None

    def take(self, group: Sequence[Observation]) -> None:
        """Count requests together."""
        data = [item.data for item in group]
        answers = [item.answers for item in group]
        # First everything is counted, then the counters grow, so that a row is in all of them or in none.
        increments: list[_Increment] = []
        for name, values in self._input_columns(data).items():
            increments += self._bins[name].increments(values)
        predicted = [found["predict"] for found in answers if "predict" in found]
        if predicted:
            increments += self._count_predictions(np.concatenate(predicted))
        probabilities = [found["predict_proba"] for found in answers if "predict_proba" in found]
        if probabilities and self._confidence is not None:
            confidence = np.concatenate(probabilities).max(axis=1)
            increments += _histogram_increments(self._confidence, confidence)
            if CONFIDENCE in self._bins:
                increments += self._bins[CONFIDENCE].increments(confidence)
        for increment in increments:
            increment()

    def _input_columns(self, data: Sequence[Data]) -> dict[str, Array]:
        """Return each counted feature with all values."""
        matrices = [item for item in data if isinstance(item, np.ndarray)]
        if matrices:
            matrix = np.concatenate(matrices)
            return {name: matrix[:, place] for name, place in self._inputs.items()}
        tables = [item for item in data if not isinstance(item, np.ndarray)]
        return {name: np.concatenate([table[name] for table in tables]) for name in self._inputs}

    def _count_predictions(self, predicted: Array) -> list[_Increment]:
        increments: list[_Increment] = []
        columns = predicted.reshape(len(predicted), -1)
        for name, place in self._outputs.items():
            increments += self._bins[name].increments(columns[:, place])
        if self._classes:
            tally = Tally(self._classes.get(value, OTHER) for value in predicted.tolist())
            increments += [partial(self._by_class[label].inc, number) for label, number in tally.items()]
        return increments


class _Bins:
    """One column's bins with their counters; also says what the reference was."""

    def __init__(self, families: Distributions, labels: tuple[str, str], name: str, binning: Binning) -> None:
        self._binning = binning
        self._counters = [families.bins.labels(*labels, name, label) for label in binning.labels]
        for label, ratio in zip(binning.labels, binning.reference.tolist(), strict=True):
            families.ratios.labels(*labels, name, label).set(ratio)
        degrees = len(binning.labels) - 1
        if degrees not in families.critical_values:
            # Takes milliseconds, and most columns have as many bins as their neighbours.
            families.critical_values[degrees] = chi2_quantile(CRITICAL_PROBABILITY, degrees)
        families.criticals.labels(*labels, name).set(families.critical_values[degrees])
        families.references.labels(*labels, name).set(binning.observations)

    def increments(self, values: Array) -> list[_Increment]:
        """Return what counts these values."""
        counted = self._binning.count(values).tolist()
        return [partial(counter.inc, number) for counter, number in zip(self._counters, counted, strict=True) if number]


def class_labels(signature: Signature) -> dict[Scalar, str]:
    """Return the label of each class that is counted by itself; none unless a row has exactly one class."""
    output = signature.output("predict")
    if output.classes is None or len(output.shape) > 1:
        return {}
    # As JSON writes them.
    return {
        value: str(value).lower() if isinstance(value, bool) else str(value) for value in output.classes[:MOST_CLASSES]
    }


def _tell_what_is_left_out(
    model: str, signature: Signature, inputs: Sequence[str], outputs: Sequence[str], profile: Profile
) -> None:
    if hidden := [name for name in signature.names if name in profile.predictions]:
        _log.warning("%s: drift of the feature %s is not counted, a prediction has its name", model, ", ".join(hidden))
    for kind, found, most in (("features", inputs, MOST_FEATURES), ("outputs", outputs, MOST_OUTPUTS)):
        if len(found) > most:
            _log.info("%s: drift is counted for the first %d of its %d %s", model, most, len(found), kind)


def _histogram_increments(histogram: Histogram, values: Array) -> list[_Increment]:
    # A sum that was NaN once would be so for ever.
    values = values[~np.isnan(values)]
    counted = np.bincount(np.searchsorted(CONFIDENCE_BUCKETS, values), minlength=len(CONFIDENCE_BUCKETS) + 1).tolist()
    # prometheus_client has no public way to add many observations at once; its own observe() does these two.
    return [
        *(partial(histogram._buckets[place].inc, number) for place, number in enumerate(counted) if number),
        partial(histogram._sum.inc, float(values.sum())),
    ]
