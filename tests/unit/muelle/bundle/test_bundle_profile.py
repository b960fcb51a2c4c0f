"""The reference profile: where the edges are, that every row is counted once, and its JSON."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from muelle.bundle.profile import ColumnProfile, Profile, build_profile
from muelle.bundle.signature import Feature, Output, Signature
from muelle.errors import ManifestError


def profile_of(column, dtype: str = "float64", categories: tuple | None = None) -> ColumnProfile:
    array = np.asarray(column, dtype={"string": object, "bool": None}.get(dtype, dtype))
    signature = Signature("frame", (Feature("a", dtype, True, categories),), (Output("predict", "float64", (-1,)),))
    return build_profile(signature, {"a": array}, np.zeros(len(array))).inputs["a"]


def test_the_edges_are_the_deciles():
    column = profile_of(np.arange(1, 101))
    assert column.kind == "numeric"
    np.testing.assert_allclose(column.edges, np.quantile(np.arange(1, 101), np.arange(1, 10) / 10))
    assert column.counts == (10,) * 10
    assert (column.missing, column.minimum, column.median, column.maximum) == (0, 1.0, 50.5, 100.0)
    assert (column.mean, column.std) == (50.5, np.arange(1, 101).std())


def test_a_bin_holds_its_upper_edge():
    column = profile_of([0.0] * 50 + [1.0] * 50)
    assert column.edges[0] == 0.0
    assert column.counts[0] == 50


def test_ties_are_merged_and_no_bin_is_empty_for_ever():
    column = profile_of([0.0] * 90 + list(range(1, 11)))
    assert len(set(column.edges)) == len(column.edges) == len(column.counts) - 1
    assert column.counts[0] == 90
    assert sum(column.counts) == 100
    assert max(column.edges) < 10


def test_a_constant_has_one_bin():
    column = profile_of([7.5] * 20)
    assert (column.edges, column.counts, column.mean, column.std) == ((), (20,), 7.5, 0.0)


def test_only_missing_values():
    column = profile_of([np.nan] * 4)
    assert column == ColumnProfile(kind="numeric", counts=(0,), missing=4)
    assert profile_of([None, None], "string") == ColumnProfile(kind="categorical", counts=(0,), missing=2)


def test_infinite_values_are_in_the_outer_bins_and_spoil_no_statistic():
    column = profile_of([*range(1, 101), np.inf, np.inf, -np.inf, np.nan])
    assert column.counts == (11, *(10,) * 8, 12)
    assert column.missing == 1
    assert (column.minimum, column.median, column.maximum) == (1.0, 50.5, 100.0)
    assert profile_of([np.inf, -np.inf]) == ColumnProfile(kind="numeric", counts=(2,), missing=0)


def test_statistics_that_overflow_are_left_out():
    column = profile_of([1e308, 1e308, -1e308, 1.0])
    assert column.std is None
    assert column.maximum == 1e308
    assert sum(column.counts) == 4
    assert json.dumps(vars(column), allow_nan=False)


def test_integers_are_numeric_and_booleans_are_not():
    assert profile_of([1, 2, 3], "int64").kind == "numeric"
    column = profile_of([True, False, True], "bool")
    assert (column.kind, column.values, column.counts) == ("categorical", (True, False), (2, 1, 0))
    column = profile_of(np.array([True, None, True], dtype=object), "bool")
    assert (column.values, column.counts, column.missing) == ((True,), (2, 0), 1)


def test_declared_categories_of_numbers_are_categorical():
    column = profile_of([1, 2, 2], "int64", (1, 2, 3))
    assert (column.kind, column.values, column.counts) == ("categorical", (2, 1), (2, 1, 0))


def test_the_fifteen_most_frequent_values_then_other():
    values = [f"v{i:02}" for i in range(20) for _ in range(i + 1)]
    column = profile_of([*values, None], "string")
    assert column.values == tuple(f"v{i:02}" for i in range(19, 4, -1))
    assert column.counts == (*range(20, 5, -1), 1 + 2 + 3 + 4 + 5)
    assert column.missing == 1
    exactly = profile_of([f"v{i}" for i in range(15)], "string")
    assert (len(exactly.values), exactly.counts[-1]) == (15, 0)


@settings(max_examples=60)
@given(arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6) | st.just(np.nan) | st.just(np.inf)))
def test_every_row_is_counted_once_where_the_edges_say(values):
    column = profile_of(values)
    assert sum(column.counts) + column.missing == len(values)
    assert list(column.edges) == sorted(set(column.edges))
    bounds = [-np.inf, *column.edges, np.inf]
    expected = [int(((values > low) & (values <= high)).sum()) for low, high in pairwise(bounds)]
    assert list(column.counts) == expected


def whole() -> Profile:
    signature = Signature(
        "frame",
        (Feature("n", "float64", True), Feature("ä|b", "string", True), Feature("b", "bool")),
        (Output("predict", "float64", (-1, 2)),),
    )
    data = {
        "n": np.array([1.0, np.nan, 0.1, 3.0]),
        "ä|b": np.array(["x", "y", None, "x"], object),
        "b": np.array([True, False, True, True]),
    }
    return build_profile(signature, data, np.array([[1.0, 2.0], [3.0, np.nan], [0.0, 1.0], [1.0, 1.0]]))


def test_there_and_back():
    profile = whole()
    assert Profile.from_bytes(profile.to_bytes()) == profile
    assert profile.rows == 4
    assert list(profile.predictions) == ["predict[0]", "predict[1]"]
    assert profile.predictions["predict[1]"].missing == 1


@pytest.mark.parametrize(
    ("dtype", "kind"), [("float64", "numeric"), ("int64", "categorical"), ("string", "categorical")]
)
def test_labels_are_categorical_predictions(dtype, kind):
    signature = Signature("matrix", (Feature("a", "float64"),), (Output("predict", dtype, (-1,)),))
    answers = np.array(["a", "b", "a"], object) if dtype == "string" else np.array([1, 2, 1], dtype)
    profile = build_profile(signature, np.zeros((3, 1)), answers)
    assert profile.predictions["predict"].kind == kind
    assert sum(profile.predictions["predict"].counts) == 3


@pytest.mark.parametrize(("key", "value", "message"), [
    ("kind", "text", "inputs.n.kind: expected one of numeric, categorical, got 'text'"),
    ("counts", [1, -1], "inputs.n.counts: expected an integer of at least 0"),
    ("counts", [1], "inputs.n.counts: expected 10, got 1"),
    ("edges", ["a"], "inputs.n.edges: expected a number"),
    ("values", [None], "inputs.n.values[0]: expected a string, number or boolean"),
    ("missing", None, "inputs.n.missing: expected an integer"),
    ("mean", "1", "inputs.n.mean: expected a number"),
    ("mode", 1, "inputs.n: unknown mode"),
])  # fmt: skip
def test_a_wrong_field_is_refused_with_its_place(key, value, message):
    document = json.loads(whole().to_bytes())
    document["inputs"]["n"][key] = value
    with pytest.raises(ManifestError) as caught:
        Profile.from_bytes(json.dumps(document).encode())
    assert str(caught.value).startswith(message)


def test_the_whole_document_is_checked():
    for data, message in [
        (b"[]", "profile.json: expected an object"),
        (b'{"rows": 1, "inputs": {}}', "profile.json: missing predictions"),
        (b'{"rows": 1, "inputs": [], "predictions": {}}', "inputs: expected an object"),
        (b'{"rows": 1, "inputs": {"a": 1}, "predictions": {}}', "inputs.a: expected an object"),
    ]:
        with pytest.raises(ManifestError) as caught:
            Profile.from_bytes(data)
        assert str(caught.value).startswith(message)


def test_a_classifiers_confidence_is_profiled_as_the_largest_probability_of_each_row():
    signature = Signature("matrix", (Feature("a", "float64"),), (Output("predict", "int64", (-1,)),))
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.5, 0.5]])
    profile = build_profile(signature, np.zeros((3, 1)), np.array([0, 1, 0]), probabilities)
    confidence = profile.predictions["confidence"]
    assert (confidence.minimum, confidence.maximum, sum(confidence.counts)) == (0.5, 0.9, 3)
    assert Profile.from_bytes(profile.to_bytes()) == profile
