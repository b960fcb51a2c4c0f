"""Rows as a JSON parser gives them become columns exactly, or an error that names the place."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muelle.bundle.signature import Feature, Output, Signature
from muelle.errors import InputError
from muelle.inference.rows import rows_to_data, shown

OUTPUTS = (Output("predict", "int64", (-1,)),)
MISSING = math.nan


def signature(*features: Feature, layout: Any = "frame") -> Signature:
    return Signature(layout, features, OUTPUTS)


def matrix(width: int = 2, dtype: str = "float64", *, nullable: bool = False) -> Signature:
    return signature(*(Feature(f"x{i}", dtype, nullable) for i in range(width)), layout="matrix")


MIXED = signature(
    Feature("age", "int64"),
    Feature("name", "string", nullable=True),
    Feature("member", "bool"),
    Feature("score", "float64", nullable=True),
    Feature("size", "string", categories=("S", "M")),
)
ROW: dict[str, Any] = {"age": 7, "name": "Ann", "member": True, "score": 1.5, "size": "S"}


def one(feature: Feature, *values: Any) -> np.ndarray:
    """One column's values through the whole conversion."""
    data = rows_to_data(signature(feature), [[value] for value in values])
    assert not isinstance(data, np.ndarray)
    return data[feature.name]


def refused(feature: Feature, *values: Any) -> tuple[str, str, str]:
    with pytest.raises(InputError) as caught:
        one(feature, *values)
    return caught.value.code, caught.value.where, str(caught.value)


def test_a_matrix_is_one_array_of_its_dtype() -> None:
    for dtype in ("float64", "float32"):
        data = rows_to_data(matrix(2, dtype), [[1, 2.5], [-0.0, 1e-3]])
        assert isinstance(data, np.ndarray)
        assert data.dtype == dtype
        assert data.tolist() == np.array([[1, 2.5], [-0.0, 1e-3]], dtype).tolist()


def test_a_frame_is_a_column_each() -> None:
    data = rows_to_data(MIXED, [list(ROW.values()), [8, None, False, None, "M"]])
    assert not isinstance(data, np.ndarray)
    assert list(data) == ["age", "name", "member", "score", "size"]
    assert [column.dtype.kind for column in data.values()] == list("iObfO")
    assert data["age"].tolist() == [7, 8]
    assert data["name"].tolist() == ["Ann", None]
    assert data["member"].tolist() == [True, False]
    assert data["score"][0] == 1.5
    assert np.isnan(data["score"][1])
    assert data["size"].tolist() == ["S", "M"]


def test_objects_are_matched_by_name_whatever_their_order() -> None:
    turned = dict(reversed(ROW.items()))
    by_name = rows_to_data(MIXED, [ROW, turned])
    by_place = rows_to_data(MIXED, [list(ROW.values())] * 2)
    assert not isinstance(by_name, np.ndarray)
    assert not isinstance(by_place, np.ndarray)
    assert all((by_name[name] == by_place[name]).all() for name in by_place)
    assert rows_to_data(matrix(1), [{"x0": 4}]).tolist() == [[4.0]]  # type: ignore[union-attr]


def test_texts_are_one_column_of_strings() -> None:
    text = signature(Feature("text", "string"), layout="text")
    data = rows_to_data(text, [["good day"], [""]])
    assert not isinstance(data, np.ndarray)
    assert data["text"].tolist() == ["good day", ""]
    assert data["text"].dtype == object


TAKEN = [
    (Feature("a", "float64"), [1, 2.5, -0.0, 2**64], "f8"),
    (Feature("a", "float32"), [1, 2.5, 3.4e38], "f4"),
    (Feature("a", "float64", nullable=True), [1, None, MISSING], "f8"),
    (Feature("a", "float32", nullable=True), [1, None], "f4"),
    (Feature("a", "float64", nullable=True), [None, None], "f8"),
    (Feature("a", "int64"), [6, 6.0, -(2**63), 2**63 - 1], "i8"),
    (Feature("a", "int64", nullable=True), [6, None, 7.0], "f8"),
    (Feature("a", "int64", nullable=True), [6, 7], "i8"),
    (Feature("a", "bool"), [True, False], "?"),
    (Feature("a", "bool", nullable=True), [True, None], "O"),
    (Feature("a", "string"), ["", "ä"], "O"),
    (Feature("a", "string", nullable=True), [None, None], "O"),
    (Feature("a", "string", nullable=True, categories=("x", "y")), ["x", None], "O"),
    (Feature("a", "int64", categories=(1, 2)), [1, 2.0], "i8"),
    (Feature("a", "int64", nullable=True, categories=(1, 2)), [1, None], "f8"),
    (Feature("a", "bool", categories=(True,)), [True], "?"),
]


@pytest.mark.parametrize(("feature", "values", "dtype"), TAKEN, ids=[f"{f.dtype} {v}" for f, v, _ in TAKEN])
def test_what_a_feature_takes_comes_out_as_it_is(feature: Feature, values: list[Any], dtype: str) -> None:
    column = one(feature, *values)
    assert column.dtype == np.dtype(dtype)
    for found, wanted in zip(column.tolist(), values, strict=True):
        if wanted is None or wanted is MISSING:
            assert found is None or math.isnan(found)
        else:
            assert found == np.array(wanted).astype(dtype) if dtype != "O" else found is wanted


REFUSED = [
    ("float64", "1", 'expected a number, got "1"'),
    ("float64", True, "expected a number, got true"),
    ("float64", None, "expected a number, got null"),
    ("float64", MISSING, "expected a number, got NaN"),
    ("float64", [], "expected a number, got a list"),
    ("float64", {}, "expected a number, got an object"),
    ("float64", math.inf, "expected a finite float64 number, got a number that is not finite"),
    ("float64", 10**400, "expected a finite float64 number, got an integer of 1329 bits"),
    ("float32", 1e39, "expected a finite float32 number, got 1e+39"),
    ("float32", -(10**39), "expected a finite float32 number, got -1000"),
    ("int64", 6.5, "expected an integer of 64 bits, got 6.5"),
    ("int64", 2**63, "expected an integer of 64 bits, got 9223372036854775808"),
    ("int64", -(2**63) - 1, "expected an integer of 64 bits, got -9223372036854775809"),
    ("int64", 1e19, "expected an integer of 64 bits, got 1e+19"),
    ("int64", math.inf, "expected an integer of 64 bits, got a number that is not finite"),
    ("int64", "6", 'expected an integer, got "6"'),
    ("int64", False, "expected an integer, got false"),
    ("bool", 1, "expected true or false, got 1"),
    ("bool", 0.0, "expected true or false, got 0.0"),
    ("bool", "true", 'expected true or false, got "true"'),
    ("string", 7, "expected a string, got 7"),
    ("string", 7.5, "expected a string, got 7.5"),
    ("string", True, "expected a string, got true"),
    ("string", None, "expected a string, got null"),
    ("string", ["a"], "expected a string, got a list"),
]
FINE: dict[str, Any] = {"float64": 1.0, "float32": 1.0, "int64": 1, "bool": True, "string": "a"}


@pytest.mark.parametrize(("dtype", "value", "message"), REFUSED, ids=[f"{d} {shown(v)}" for d, v, _ in REFUSED])
@pytest.mark.parametrize("nullable", [False, True], ids=["present", "nullable"])
def test_what_a_feature_does_not_take_is_named_by_its_place(
    nullable: bool, dtype: str, value: Any, message: str
) -> None:
    if nullable and (value is None or value is MISSING):
        return
    feature = Feature("a", dtype, nullable)
    code, where, error = refused(feature, FINE[dtype], FINE[dtype], value, value)
    assert (code, where) == ("invalid_value", "features[2][0]")
    assert message in error
    if nullable:
        # A missing value beside it changes how the column is stored, not what it takes.
        assert refused(feature, None, value)[:2] == ("invalid_value", "features[1][0]")
    with pytest.raises(InputError) as caught:
        rows_to_data(signature(feature), [{"a": FINE[dtype]}, {"a": value}], "input")
    assert caught.value.where == "input[1].a"


@pytest.mark.parametrize("value", ["XL", "s", ""])
def test_an_unseen_category_is_told_with_those_there_are(value: str) -> None:
    code, where, error = refused(Feature("size", "string", categories=("S", "M")), "S", value)
    assert (code, where) == ("unknown_category", "features[1][0]")
    assert f'expected one of "S", "M", got "{value}"' in error
    code, _, error = refused(Feature("n", "int64", nullable=True, categories=(1, 2)), 1, None, 3)
    assert code == "unknown_category"
    assert "expected one of 1, 2, got 3" in error


def test_of_many_categories_some_are_told() -> None:
    _, _, error = refused(Feature("n", "int64", categories=tuple(range(1000))), 5000)
    assert len(error) < 200


SHAPES: list[tuple[Any, str, str]] = [
    ([], "empty_batch", "features"),
    ([[]], "wrong_feature_count", "features[0]"),
    ([[1]], "wrong_feature_count", "features[0]"),
    ([[1, 2], [1, 2, 3]], "wrong_feature_count", "features[1]"),
    ([[1, 2], {"x0": 1, "x1": 2}], "invalid_shape", "features[1]"),
    ([{"x0": 1, "x1": 2}, [1, 2]], "invalid_shape", "features[1]"),
    ([1, 2], "invalid_shape", "features[0]"),
    ([[1, 2], None], "invalid_shape", "features[1]"),
    ([[1, 2], "12"], "invalid_shape", "features[1]"),
    ([{}], "missing_feature", "features[0]"),
    ([{"x0": 1, "x1": 2}, {"x0": 1}], "missing_feature", "features[1]"),
    ([{"x0": 1, "x1": 2, "x2": 3}], "unknown_feature", "features[0]"),
    ([{"x0": 1, "X1": 2}], "missing_feature", "features[0]"),
    ([[[1], [2]]], "invalid_value", "features[0][0]"),
    ([[1, [2]]], "invalid_value", "features[0][1]"),
]


@pytest.mark.parametrize(("rows", "code", "where"), SHAPES, ids=[str(rows) for rows, _, _ in SHAPES])
def test_rows_of_another_shape_are_refused(rows: Any, code: str, where: str) -> None:
    with pytest.raises(InputError) as caught:
        rows_to_data(matrix(), rows)
    assert (caught.value.code, caught.value.where) == (code, where)


def test_a_wrong_count_names_the_features_but_not_hundreds() -> None:
    with pytest.raises(InputError, match=r"expected 2 features, got 3; in order: x0, x1$"):
        rows_to_data(matrix(2), [[1, 2, 3]])
    with pytest.raises(InputError, match=r"expected 500 features, got 1; in order: x0, .*, x39, …$"):
        rows_to_data(matrix(500), [[1]])


def test_the_first_bad_value_of_a_column_is_told() -> None:
    with pytest.raises(InputError) as caught:
        rows_to_data(matrix(), [[1, 2], [3, "a"], [4, "b"]])
    assert caught.value.where == "features[1][1]"


numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70)


@settings(max_examples=200, derandomize=True)
@given(rows=st.lists(st.tuples(numbers, numbers).map(list), min_size=1, max_size=20))
def test_finite_numbers_keep_their_value(rows: list[list[float]]) -> None:
    data = rows_to_data(matrix(), rows)
    assert isinstance(data, np.ndarray)
    assert data.tobytes() == np.array([[float(a), float(b)] for a, b in rows]).tobytes()


anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.just([]), st.just({}), st.just("S")
)


@settings(max_examples=400, derandomize=True)
@given(cells=st.lists(anything, min_size=5, max_size=5), others=st.booleans())
def test_a_row_is_taken_cell_by_cell_whatever_stands_beside_it(cells: list[Any], others: bool) -> None:
    """Whether a batch is taken depends on its cells alone, not on which way was taken through the code."""

    def taken(rows: list[list[Any]]) -> bool:
        try:
            rows_to_data(MIXED, rows)
        except InputError:
            return False
        return True

    good = list(ROW.values())
    alone = [taken([[cell if j == i else good[j] for j in range(5)]]) for i, cell in enumerate(cells)]
    rows = [good, cells, good] if others else [cells]
    assert taken(rows) == all(alone)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (math.nan, "NaN"),
        (-math.inf, "a number that is not finite"),
        (1.5, "1.5"),
        (12, "12"),
        (10**5000, "an integer of 16610 bits"),
        ("a", '"a"'),
        ("x" * 100, '"' + "x" * 36 + "..."),
        ([1], "a list"),
        ({"a": 1}, "an object"),
    ],
    ids=lambda value: str(value)[:12] if isinstance(value, str) else type(value).__name__,
)
def test_a_message_shows_a_value_shortly(value: Any, text: str) -> None:
    assert shown(value) == text
