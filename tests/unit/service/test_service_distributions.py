"""What becomes a series of drift, and what does not: bounded by the bundle, never by the rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from muelle.bundle.binning import Binning
from muelle.bundle.data import Array
from muelle.bundle.profile import Profile, build_profile
from muelle.bundle.signature import Feature, Output, Signature
from service.distributions import Distributions, ModelDistributions
from service.observations import Observation

GENERATOR = np.random.default_rng(0)


def matrix(names: list[str], *outputs: Output) -> Signature:
    return Signature("matrix", tuple(Feature(name, "float64", nullable=True) for name in names), outputs)


def made(signature: Signature, profile: Profile) -> tuple[CollectorRegistry, ModelDistributions]:
    registry = CollectorRegistry()
    return registry, Distributions(registry).of("m", "1", signature, profile)


def seen(rows: Array, answers: dict[str, Array]) -> list[Observation]:
    return [Observation("id", 0.0, rows, answers, len(rows), rows.nbytes)]


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, {"model": "m", "version": "1", **labels})


def features(registry: CollectorRegistry) -> set[str]:
    return {s.labels["feature"] for f in registry.collect() for s in f.samples if "feature" in s.labels}


def series(registry: CollectorRegistry) -> int:
    return sum(len(family.samples) for family in registry.collect())


CLASSES = Output("predict", "string", (-1,), ("a", "b"))
PROBABILITIES = Output("predict_proba", "float64", (-1, 2), ("a", "b"))
ROWS = GENERATOR.normal(size=(100, 2))
LABELS = np.array(["a", "b"] * 50, dtype=object)
SHARES = np.tile([[0.7, 0.3]], (100, 1))


def classifier() -> tuple[CollectorRegistry, ModelDistributions]:
    signature = matrix(["x", "y"], CLASSES, PROBABILITIES)
    return made(signature, build_profile(signature, ROWS, LABELS, SHARES))


def test_everything_exists_at_zero_once_a_model_is_loaded() -> None:
    registry, _ = classifier()
    assert features(registry) == {"x", "y", "predict", "confidence"}
    for label in ("a", "b", "other"):
        assert value(registry, "muelle_predictions_total", **{"class": label}) == 0
    assert value(registry, "muelle_feature_bin_total", feature="x", bin="missing") == 0
    assert value(registry, "muelle_feature_bin_total", feature="predict", bin="other") == 0
    assert value(registry, "muelle_prediction_confidence_count") == 0
    assert value(registry, "muelle_feature_reference_observations", feature="x") == 100


def test_requests_are_counted_together_and_add_no_series() -> None:
    registry, counts = classifier()
    before = series(registry)
    rows = [GENERATOR.normal(size=(n, 2)) for n in (1, 30, 5)]
    rows[1][:4, 1] = np.nan
    answers: list[dict[str, Any]] = [
        {"predict": np.array(["a"], dtype=object)},
        {"predict": np.array(["b"] * 29 + ["no class of the model"], dtype=object), "predict_proba": SHARES[:30]},
        {"predict_proba": np.array([[0.5, 0.5], [1.0, 0.0], [0.95, 0.05], [np.nan, np.nan], [0.2, 0.8]])},
    ]
    counts.take([item for pair in zip(rows, answers, strict=True) for item in seen(*pair)])
    assert value(registry, "muelle_feature_bin_total", feature="y", bin="missing") == 4
    binning = Binning.of(build_profile(matrix(["x", "y"], CLASSES, PROBABILITIES), ROWS, LABELS).inputs["x"])
    for label, number in zip(binning.labels, binning.count(np.concatenate(rows)[:, 0]).tolist(), strict=True):
        assert value(registry, "muelle_feature_bin_total", feature="x", bin=label) == number
    found = [value(registry, "muelle_predictions_total", **{"class": label}) for label in ("a", "b", "other")]
    assert found == [1, 29, 1]
    # Without the row whose probabilities are no numbers.
    assert value(registry, "muelle_prediction_confidence_count") == 34
    assert value(registry, "muelle_prediction_confidence_sum") == pytest.approx(30 * 0.7 + 0.5 + 1.0 + 0.95 + 0.8)
    assert value(registry, "muelle_prediction_confidence_bucket", le="0.5") == 1
    assert value(registry, "muelle_prediction_confidence_bucket", le="0.95") == 33
    assert value(registry, "muelle_feature_bin_total", feature="confidence", bin="missing") == 1
    assert series(registry) == before


def test_a_row_that_cannot_be_counted_is_in_no_counter() -> None:
    registry, counts = classifier()
    page = {str(s) for f in registry.collect() for s in f.samples}
    with pytest.raises(IndexError):
        counts.take(seen(np.zeros((3, 1)), {"predict": LABELS[:3]}))
    assert {str(s) for f in registry.collect() for s in f.samples} == page


def test_the_first_fifty_features_are_counted_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    names = [f"f{i}" for i in range(60)]
    signature = matrix(names, Output("predict", "float64", (-1,)))
    rows = GENERATOR.normal(size=(40, 60))
    with caplog.at_level("INFO"):
        registry, counts = made(signature, build_profile(signature, rows, rows[:, 0]))
    assert features(registry) == {*names[:50], "predict"}
    assert [record.getMessage() for record in caplog.records] == [
        "m 1: drift is counted for the first 50 of its 60 features"
    ]
    counts.take(seen(rows, {"predict": rows[:, 0]}))
    assert value(registry, "muelle_feature_bin_total", feature="f49", bin="00") == 4
    # A number is no class, and there are no probabilities.
    assert value(registry, "muelle_predictions_total", **{"class": "other"}) is None
    assert value(registry, "muelle_prediction_confidence_count") is None


def test_several_outputs_are_counted_apart_up_to_ten(caplog: pytest.LogCaptureFixture) -> None:
    signature = matrix(["x"], Output("predict", "float64", (-1, 12)))
    rows, answers = GENERATOR.normal(size=(40, 1)), GENERATOR.normal(size=(40, 12))
    with caplog.at_level("INFO"):
        registry, counts = made(signature, build_profile(signature, rows, answers))
    assert features(registry) == {"x", *(f"predict[{i}]" for i in range(10))}
    assert "first 10 of its 12 outputs" in caplog.text
    counts.take(seen(rows, {"predict": answers}))
    assert value(registry, "muelle_feature_bin_total", feature="predict[9]", bin="09") == 4


def test_a_feature_with_a_predictions_name_gives_way(caplog: pytest.LogCaptureFixture) -> None:
    signature = matrix(["x", "predict"], Output("predict", "float64", (-1,)))
    registry, counts = made(signature, build_profile(signature, ROWS, ROWS[:, 0]))
    assert "drift of the feature predict is not counted, a prediction has its name" in caplog.text
    counts.take(seen(ROWS, {}))
    assert value(registry, "muelle_feature_bin_total", feature="x", bin="00") == 10
    assert value(registry, "muelle_feature_bin_total", feature="predict", bin="00") == 0


def test_twenty_classes_have_a_counter_and_the_rest_is_other() -> None:
    labels = np.arange(25)
    output = Output("predict", "int64", (-1,), tuple(range(25)))
    signature = matrix(["x"], output)
    registry, counts = made(signature, build_profile(signature, GENERATOR.normal(size=(25, 1)), labels))
    counts.take(seen(np.zeros((25, 1)), {"predict": labels}))
    found = {s.labels["class"]: s.value for f in registry.collect() for s in f.samples if s.name.endswith("s_total")}
    assert found == {**{str(i): 1.0 for i in range(20)}, "other": 5.0}
    truths = replace(signature, outputs=(Output("predict", "bool", (-1,), (False, True)),))
    profile = build_profile(truths, np.zeros((4, 1)), np.array([True, False, True, True]))
    registry, counts = made(truths, profile)
    counts.take(seen(np.zeros((3, 1)), {"predict": np.array([True, True, False])}))
    assert value(registry, "muelle_predictions_total", **{"class": "true"}) == 2
    assert value(registry, "muelle_predictions_total", **{"class": "false"}) == 1
