"""Scores against scikit-learn's, on what real models say of rows that they have not seen."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from sklearn import metrics
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from muelle.quality.scores import Classification, Regression, Score


def classified(data: Any, estimator: Any) -> tuple[Any, Any, Any, Any]:
    fitting, asked, known, actual = train_test_split(data.data, data.target, test_size=0.6, random_state=0)
    model = estimator.fit(fitting, known)
    return actual, model.predict(asked), model.predict_proba(asked), model.classes_


CASES = {
    "breast-cancer": (load_breast_cancer, lambda: make_pipeline(StandardScaler(), LogisticRegression())),
    "iris": (load_iris, lambda: RandomForestClassifier(n_estimators=7, max_depth=1, random_state=0)),
}


def scored(actual: Any, predicted: Any, probabilities: Any, classes: Any, seed: int = 0) -> dict[str, Score]:
    found = Classification(seed)
    for part in np.array_split(np.arange(len(actual)), 4):
        found.add([str(value) for value in actual[part]], [str(value) for value in predicted[part]])
        found.add_probabilities(probabilities[part, np.searchsorted(classes, actual[part])])
    return found.scores()


@pytest.mark.parametrize("case", CASES)
def test_classification_agrees_with_scikit_learn(case: str) -> None:
    load, make = CASES[case]
    actual, predicted, probabilities, classes = classified(load(), make())
    found = scored(actual, predicted, probabilities, classes)
    expected = {
        "accuracy": metrics.accuracy_score(actual, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(actual, predicted),
        "macro_f1": metrics.f1_score(actual, predicted, average="macro"),
        "log_loss": metrics.log_loss(actual, probabilities, labels=classes),
    }
    assert {name: score.value for name, score in found.items()} == pytest.approx(expected)
    assert {score.rows for score in found.values()} == {len(actual)}
    assert all(score.low < score.value < score.high for score in found.values())


@pytest.mark.parametrize("case", CASES)
def test_intervals_are_those_of_a_bootstrap_over_rows(case: str) -> None:
    load, make = CASES[case]
    actual, predicted, probabilities, classes = classified(load(), make())
    found = scored(actual, predicted, probabilities, classes)
    draw = np.random.default_rng(8)
    resampled: dict[str, list[float]] = {"balanced_accuracy": [], "macro_f1": [], "log_loss": []}
    for _ in range(600):
        chosen = draw.integers(0, len(actual), len(actual))
        resampled["balanced_accuracy"].append(metrics.balanced_accuracy_score(actual[chosen], predicted[chosen]))
        resampled["macro_f1"].append(metrics.f1_score(actual[chosen], predicted[chosen], average="macro"))
        resampled["log_loss"].append(metrics.log_loss(actual[chosen], probabilities[chosen], labels=classes))
    for name, values in resampled.items():
        low, high = np.percentile(values, (2.5, 97.5))
        assert found[name].low == pytest.approx(low, abs=0.2 * (high - low))
        assert found[name].high == pytest.approx(high, abs=0.2 * (high - low))


def test_regression_agrees_with_scikit_learn_in_value_and_interval() -> None:
    data = load_diabetes()
    fitting, asked, known, actual = train_test_split(data.data, data.target, test_size=0.7, random_state=0)
    predicted = LinearRegression().fit(fitting, known).predict(asked)
    found = Regression(seed=3)
    for part in np.array_split(np.arange(len(actual)), 5):
        found.add(actual[part], predicted[part])
    scores = found.scores()
    functions = {
        "mae": metrics.mean_absolute_error,
        "rmse": metrics.root_mean_squared_error,
        "r2": metrics.r2_score,
    }
    draw = np.random.default_rng(8)
    drawn = [draw.integers(0, len(actual), len(actual)) for _ in range(600)]
    for name, function in functions.items():
        assert scores[name].value == pytest.approx(function(actual, predicted))
        low, high = np.percentile([function(actual[rows], predicted[rows]) for rows in drawn], (2.5, 97.5))
        assert scores[name].low == pytest.approx(low, abs=0.2 * (high - low))
        assert scores[name].high == pytest.approx(high, abs=0.2 * (high - low))
    assert [scores[name].better for name in functions] == [-1, -1, 1]


def test_r2_of_large_numbers_with_a_small_spread_is_exact() -> None:
    actual = 1e9 + np.random.default_rng(0).normal(size=1000)
    predicted = actual + 0.1 * np.random.default_rng(1).normal(size=1000)
    found = Regression(seed=0)
    found.add(actual, predicted)
    assert found.scores()["r2"].value == pytest.approx(metrics.r2_score(actual, predicted), rel=1e-6)


def test_labels_that_are_all_the_same_have_no_r2() -> None:
    found = Regression(seed=0)
    found.add(np.full(10, 3.0), np.arange(10.0))
    scores = found.scores()
    assert math.isnan(scores["r2"].value)
    assert scores["mae"].value == pytest.approx(np.abs(np.arange(10.0) - 3).mean())


def test_a_class_that_the_model_does_not_know_counts_against_it() -> None:
    found = Classification(seed=0)
    found.add(["a", "b", "new"], ["a", "b", "a"])
    scores = found.scores()
    actual, predicted = ["a", "b", "new"], ["a", "b", "a"]
    assert scores["accuracy"].value == pytest.approx(2 / 3)
    assert scores["balanced_accuracy"].value == pytest.approx(metrics.balanced_accuracy_score(actual, predicted))
    assert scores["macro_f1"].value == pytest.approx(metrics.f1_score(actual, predicted, average="macro"))
    assert "log_loss" not in scores


def test_a_probability_of_nought_is_bad_but_finite() -> None:
    found = Classification(seed=0)
    found.add(["a"], ["b"])
    found.add_probabilities(np.array([0.0]))
    expected = metrics.log_loss([0], [[0.0, 1.0]], labels=[0, 1])
    assert found.scores()["log_loss"].value == pytest.approx(expected)


def test_without_a_label_there_is_no_score() -> None:
    assert Classification(seed=0).scores() == {}
    assert Regression(seed=0).scores() == {}


def test_the_same_rows_have_the_same_intervals() -> None:
    load, make = CASES["iris"]
    parts = classified(load(), make())
    assert scored(*parts, seed=4) == scored(*parts, seed=4)


def test_thousands_of_classes_are_scored() -> None:
    draw = np.random.default_rng(0)
    actual = draw.integers(0, 3000, 4000)
    predicted = np.where(draw.random(4000) < 0.8, actual, draw.integers(0, 3000, 4000))
    found = Classification(seed=0)
    found.add(list(map(str, actual)), list(map(str, predicted)))
    scores = found.scores()
    assert scores["macro_f1"].value == pytest.approx(metrics.f1_score(actual, predicted, average="macro"))
    assert scores["macro_f1"].low < scores["macro_f1"].high
