"""Validated rows and answers: missing values, dtypes, shapes, and how far two answers are apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from muelle.bundle.data import column_array, columns, largest_error, missing_mask, normalise, row_count, rows, take
from muelle.bundle.signature import Feature, Output, Signature
from muelle.errors import EngineError

VALUES = Output("predict", "float64", (-1,))
LABELS = Output("predict", "int64", (-1,))
PROBABILITIES = Output("predict_proba", "float64", (-1, 2), (0, 1))
FRAME = Signature("frame", (Feature("a", "float64", True), Feature("b", "string", True)), (VALUES,))
MATRIX = Signature("matrix", (Feature("a", "float64"), Feature("b", "float64")), (VALUES,))


def test_a_matrix_and_a_mapping_of_columns_are_both_data():
    matrix = np.array([[1.0, 2.0], [3.0, np.nan], [5.0, 6.0]])
    mapping = {"a": np.array([1.0, np.nan]), "b": np.array(["x", None], dtype=object)}
    assert (row_count(matrix), row_count(mapping)) == (3, 2)
    assert take(matrix, np.array([2, 0])).tolist() == [[5.0, 6.0], [1.0, 2.0]]
    assert take(mapping, np.array([1]))["b"].tolist() == [None]
    assert columns(MATRIX, matrix)["a"].tolist() == [1.0, 3.0, 5.0]
    assert rows(MATRIX, matrix) == [[1.0, 2.0], [3.0, None], [5.0, 6.0]]
    assert rows(FRAME, mapping) == [[1.0, "x"], [None, None]]


def test_missing_is_nan_or_none():
    assert missing_mask(np.array([1.0, np.nan, np.inf])).tolist() == [False, True, False]
    assert missing_mask(np.array([True, None, ""], dtype=object)).tolist() == [False, True, False]
    assert missing_mask(np.array([0, 1])).tolist() == [False, False]
    assert missing_mask(np.array([False])).tolist() == [False]


@pytest.mark.parametrize(("dtype", "values", "expected"), [
    ("float64", [1, None], np.array([1.0, np.nan])),
    ("float32", [1.5, None], np.array([1.5, np.nan], np.float32)),
    ("float32", [1.5], np.array([1.5], np.float32)),
    ("int64", [2**62], np.array([2**62])),
    ("int64", [1, None], np.array([1.0, np.nan])),
    ("bool", [True, False], np.array([True, False])),
    ("bool", [True, None], np.array([True, None], object)),
    ("string", ["x", None], np.array(["x", None], object)),
    ("string", ["x"], np.array(["x"], object)),
])  # fmt: skip
def test_a_columns_array(dtype, values, expected):
    array = column_array(Feature("a", dtype, True), values)
    assert array.dtype == expected.dtype
    np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize(("output", "value", "expected"), [
    (VALUES, [1, 2], np.array([1.0, 2.0])),
    (VALUES, np.array([[1.0], [2.0]], np.float32), np.array([1.0, 2.0])),
    (LABELS, np.array([1.0, 2.0]), np.array([1, 2])),
    (Output("predict", "int64", (-1, 1)), np.array([1, 2], np.int32), np.array([[1], [2]])),
    (Output("predict", "bool", (-1,)), np.array([1, 0]), np.array([True, False])),
    (Output("predict", "string", (-1,)), np.array(["no", "yes"]), np.array(["no", "yes"], object)),
])  # fmt: skip
def test_an_answer_gets_the_promised_dtype_and_shape(output, value, expected):
    array = normalise(output, value, 2)
    assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(array, expected)


def test_strings_are_python_strings():
    assert [type(v) for v in normalise(Output("predict", "string", (-1,)), np.array(["a"]), 1)] == [str]


@pytest.mark.parametrize("value", [[1.0, 2.0, 3.0], [[1.0, 2.0], [3.0, 4.0]], [], 1.0])
def test_an_answer_of_another_size_is_refused(value):
    with pytest.raises(EngineError, match=r"^predict: expected the shape \(2,\), the model answered"):
        normalise(VALUES, value, 2)


finite = st.floats(-1e100, 1e100, allow_subnormal=False).map(lambda value: 0.0 if abs(value) < 1e-100 else value)
answers = arrays(np.float64, array_shapes(min_dims=1, max_dims=2, max_side=6), elements=finite)
quick = settings(max_examples=60)


@quick
@given(answers)
def test_equal_answers_have_no_error(array):
    assert largest_error(VALUES, array, array.copy()) == 0.0
    assert largest_error(PROBABILITIES, array, array.copy()) == 0.0


@quick
@given(arrays(np.float64, 8, elements=st.floats(0.1, 1e6)), st.floats(1e-9, 1e-3), st.integers(-30, 30))
def test_values_are_compared_relative_to_themselves_whatever_their_unit(array, relative, exponent):
    scaled = array * 2.0**exponent
    error = largest_error(VALUES, scaled, scaled * (1 + relative))
    assert error == pytest.approx(relative, rel=1e-5)


@quick
@given(arrays(np.float64, (8, 2), elements=st.floats(0, 1)), st.floats(1e-9, 1))
def test_probabilities_are_compared_absolutely(array, by):
    assert largest_error(PROBABILITIES, array, array + by) == pytest.approx(by, rel=1e-6)


@quick
@given(arrays(np.float64, 6, elements=finite), st.permutations(range(6)), st.floats(-1, 1))
def test_the_order_of_rows_does_not_matter(array, order, by):
    other = array + by
    chosen = np.array(order)
    assert largest_error(VALUES, array, other) == largest_error(VALUES, array[chosen], other[chosen])


@quick
@given(answers, st.sampled_from([np.nan, np.inf, -np.inf]), st.data())
def test_a_value_that_becomes_infinite_or_nan_is_infinitely_far(array, odd, data):
    other = array.copy()
    other.flat[data.draw(st.integers(0, array.size - 1))] = odd
    assert largest_error(VALUES, array, other) == np.inf
    assert largest_error(VALUES, other, array) == np.inf
    assert largest_error(VALUES, other, other.copy()) == 0.0


@pytest.mark.parametrize(("expected", "actual"), [(np.inf, -np.inf), (np.nan, np.inf), (-np.inf, np.nan)])
def test_nan_and_the_two_infinities_are_three_different_answers(expected, actual):
    assert largest_error(VALUES, np.array([1.0, expected]), np.array([1.0, actual])) == np.inf
    assert largest_error(VALUES, np.array([1.0, expected]), np.array([1.0, expected])) == 0.0
    assert largest_error(VALUES, np.array([expected]), np.array([expected])) == 0.0


def test_a_value_that_happens_to_be_nought_does_not_decide():
    expected = np.array([0.0, 1.0])
    # The denominator is at least a millionth of the largest value, here 1e-6.
    assert largest_error(VALUES, expected, np.array([1e-13, 1.0])) == pytest.approx(1e-7)
    assert largest_error(VALUES, expected, np.array([1e-6, 1.0])) == pytest.approx(1.0)
    assert largest_error(VALUES, np.zeros(2), np.array([0.0, 1e-3])) == pytest.approx(1e-3)


@pytest.mark.parametrize(("dtype", "expected", "actual"), [
    ("int64", np.array([1, 2]), np.array([1, 3])),
    ("bool", np.array([True, True]), np.array([True, False])),
    ("string", np.array(["a", "b"], object), np.array(["a", "B"], object)),
])  # fmt: skip
def test_labels_are_equal_or_infinitely_far(dtype, expected, actual):
    output = Output("predict", dtype, (-1,))
    assert largest_error(output, expected, actual) == np.inf
    assert largest_error(output, expected, expected.copy()) == 0.0


def test_other_shapes_are_infinitely_far_and_no_rows_are_equal():
    assert largest_error(VALUES, np.zeros(2), np.zeros(3)) == np.inf
    assert largest_error(VALUES, np.zeros(2), np.zeros((2, 1))) == np.inf
    assert largest_error(VALUES, np.zeros(0), np.zeros(0)) == 0.0
