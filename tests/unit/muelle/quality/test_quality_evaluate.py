"""Joining answers and labels: each row once, the last label counts, and what can't be compared is told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import pytest

from muelle.bundle.signature import Scalar
from muelle.quality.evaluate import Evaluation, Period, PredictionBatch, Row
from muelle.quality.labels import UNKNOWN_TIME, LabelBatch, Labels, keys_of

DAY = date(2026, 11, 21)
SECOND = 1_000_000


def labels(*found: tuple[str, int, str, int | None]) -> Labels:
    ids, rows, texts, times = zip(*found, strict=True) if found else ((), (), (), ())
    known = [UNKNOWN_TIME if time is None else time * SECOND for time in times]
    numbers = [np.array(values, np.int64) for values in (rows, known)]
    return Labels([LabelBatch(np.array(ids, object), numbers[0], np.array(texts, object), numbers[1])])


def batch(
    ids: Sequence[str], predicted: Any, *, rows: Any = None, at: Any = None, proba: Any = None
) -> PredictionBatch:
    return PredictionBatch(
        np.array(ids, object),
        np.zeros(len(ids), np.int64) if rows is None else np.array(rows),
        np.zeros(len(ids), np.int64) if at is None else np.array(at) * SECOND,
        predicted if predicted is None else np.array(predicted, object if isinstance(predicted[0], str) else None),
        None if proba is None else np.array(proba, float),
    )


def evaluate(
    known: Labels, *batches: PredictionBatch, classes: tuple[Scalar, ...] | None = (0, 1), period: Period = "day"
) -> Row:
    evaluation = Evaluation(known, period)
    evaluation.add_day("m", "1", DAY, classes, batches)
    (row,) = evaluation.rows()
    return row


def test_rows_are_joined_by_request_id_and_row() -> None:
    known = labels(("a", 0, "1", 60), ("a", 1, "0", 120), ("b", 0, "1", 60), ("nobody", 0, "1", 60))
    row = evaluate(known, batch(["a", "a", "a"], [1, 1, 1], rows=[0, 1, 2]), batch(["b"], [1]))
    assert (row.predictions, row.labelled, row.repeated, row.unusable) == (4, 3, 0, 0)
    assert row.coverage == 0.75
    assert row.scores["accuracy"].value == pytest.approx(2 / 3)
    assert row.lag_seconds == 60


def test_the_label_that_was_observed_last_counts() -> None:
    known = labels(("a", 0, "1", 50), ("a", 0, "0", 90), ("a", 0, "1", 70), ("b", 0, "0", None), ("b", 0, "1", 5))
    row = evaluate(known, batch(["a", "b"], [0, 0]))
    assert row.scores["accuracy"].value == 1.0
    # A time that isn't known is after all others, and has no lag.
    assert row.lag_seconds == pytest.approx(90)
    assert len(known) == 2


def test_an_id_that_came_again_counts_once_with_its_latest_answer() -> None:
    known = labels(("a", 0, "1", 60))
    row = evaluate(known, batch(["a"], [1], at=[9]), batch(["a", "a", "b"], [0, 0, 0], at=[8, 7, 8]))
    assert (row.predictions, row.repeated, row.labelled) == (2, 2, 1)
    assert row.scores["accuracy"].value == 1.0


def test_a_label_counts_once_for_a_version_though_its_id_came_again_another_day() -> None:
    evaluation = Evaluation(labels(("a", 0, "1", 60)), "version")
    evaluation.add_day("m", "1", date(2026, 11, 22), (0, 1), [batch(["a"], [1])])
    evaluation.add_day("m", "1", DAY, (0, 1), [batch(["a"], [0])])
    # Another version may have been asked the same.
    evaluation.add_day("m", "2", DAY, (0, 1), [batch(["a"], [0])])
    first, second = evaluation.rows()
    assert (first.predictions, first.labelled, first.scores["accuracy"].value) == (2, 1, 1.0)
    assert (second.version, second.labelled, second.scores["accuracy"].value) == ("2", 1, 0.0)


@pytest.mark.parametrize(
    ("classes", "predicted", "texts", "right", "unusable"),
    [
        ((0, 1), [0, 1, 1, 1], ["0", "1.0", "true", "0"], 3, 0),
        ((0, 1), [0, 1, 1, 1], ["no", "1", "", "2"], 1, 2),
        ((False, True), [True, True, False, False], ["true", "1", "0", "True"], 3, 0),
        (("a", "b"), ["a", "b", "b", "a"], ["a", "b", "a", "A"], 2, 0),
        (("0", "1"), ["0", "1", "1", "1"], ["0", "1", "1.0", "x"], 2, 0),
        ((1.0, 2.5), [1.0, 2.5, 2.5, 1.0], ["1", "2.5", "2.50", "7"], 3, 0),
        # Two rows whose class was not asked for, which makes floats of integers.
        ((0, 1), [0.0, 1.0, np.nan, np.nan], ["0", "1", "1", "0"], 2, 2),
    ],
)
def test_a_label_is_compared_as_the_models_classes_are_written(
    classes: tuple[Scalar, ...], predicted: Any, texts: list[str], right: int, unusable: int
) -> None:
    ids = ["a", "b", "c", "d"]
    known = labels(*((name, 0, text, 1) for name, text in zip(ids, texts, strict=True)))
    row = evaluate(known, batch(ids, predicted), classes=classes)
    assert row.unusable == unusable
    assert row.labelled == 4 - unusable
    assert row.scores["accuracy"].value == pytest.approx(right / row.labelled)


def test_probabilities_count_where_they_were_answered() -> None:
    known = labels(("a", 0, "no", 1), ("b", 0, "yes", 1), ("c", 0, "yes", 1))
    proba = [[0.9, 0.1], [0.4, 0.6], [np.nan, np.nan]]
    row = evaluate(known, batch(["a", "b", "c"], ["no", "yes", "no"], proba=proba), classes=("no", "yes"))
    assert row.scores["log_loss"].rows == 2
    assert row.scores["log_loss"].value == pytest.approx(-(math.log(0.9) + math.log(0.6)) / 2)


def test_numbers_are_scored_as_numbers() -> None:
    known = labels(("a", 0, "1.5", 1), ("b", 0, "-3", 1), ("c", 0, "much", 1), ("d", 0, "1", 1))
    row = evaluate(known, batch(["a", "b", "c", "d"], [2.0, -3.0, 0.0, np.nan]), classes=None)
    assert (row.labelled, row.unusable) == (2, 2)
    assert row.scores["mae"].value == pytest.approx(0.25)


def test_what_can_not_be_scored_is_covered_all_the_same() -> None:
    row = evaluate(labels(("a", 0, "1", 9)), batch(["a", "b"], None))
    assert (row.predictions, row.labelled, row.scores) == (2, 1, {})
    assert row.lag_seconds == 9


def test_without_labels_there_are_counts() -> None:
    row = evaluate(labels(), batch(["a", "b"], [0, 1]))
    assert (row.predictions, row.labelled, row.coverage, row.scores) == (2, 0, 0.0, {})
    assert math.isnan(row.lag_seconds)


@pytest.mark.parametrize(
    ("period", "names"),
    [
        ("day", ["2026-11-22", "2026-11-23", "2026-12-01"]),
        ("week", ["2026-W47", "2026-W48", "2026-W49"]),
        ("month", ["2026-11", "2026-12"]),
        ("version", ["all"]),
    ],
)
def test_days_add_up_to_periods(period: Period, names: list[str]) -> None:
    evaluation = Evaluation(labels(), period)
    for number, day in enumerate([date(2026, 11, 22), date(2026, 11, 23), date(2026, 12, 1)]):
        evaluation.add_day("m", "1", day, None, [batch([f"id{number}"], [0.0])])
    rows = evaluation.rows()
    assert [row.period for row in rows] == names
    assert sum(row.predictions for row in rows) == 3


def test_keys_tell_rows_of_requests_apart() -> None:
    ids = np.array([f"request-{number}" for number in range(2000)] * 50, object)
    rows = np.repeat(np.arange(50), 2000)
    keys = keys_of(ids, rows)
    assert len(np.unique(keys)) == 100_000
    assert np.array_equal(keys, keys_of(ids, rows))


def test_labels_are_found_among_many() -> None:
    ids = np.array([f"id{number}" for number in range(10_000)], object)
    zeros = np.zeros(10_000, np.int64)
    known = Labels([LabelBatch(part, zeros[: len(part)], part, zeros[: len(part)]) for part in np.array_split(ids, 7)])
    places = known.find(keys_of(ids, zeros))
    assert np.array_equal(known.texts[places], ids)
    assert (known.find(keys_of(ids, zeros + 1)) == -1).all()
