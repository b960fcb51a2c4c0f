"""Requests of the Open Inference Protocol v2 in JSON: what is taken, and what is refused with which place."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from oip_bodies import (
    FRAME,
    MATRIX,
    NUMBERS,
    PREDICT,
    TEXT,
    columns_of,
    features,
    matrix,
    matrix_of,
    read,
    refused,
    tensor,
)

from muelle.bundle.signature import Feature, Signature
from muelle.errors import InputError
from service.protocols.oip import decode

# --- rows in one tensor -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]]])
@pytest.mark.parametrize("datatype", ["FP64", "FP32", "FP16", "INT8", "UINT64"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_matrix_flat_or_nested_in_any_numeric_datatype(data: Any, datatype: str, dtype: str) -> None:
    request = read({"inputs": [tensor("any name", [2, 3], datatype, data)]}, matrix(dtype))
    assert matrix_of(request).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert matrix_of(request).dtype == dtype
    assert request.rows == 2


def test_a_feature_s_name_on_the_whole_matrix_does_not_matter() -> None:
    assert matrix_of(read({"inputs": [features(name="x1")]})).shape == (2, 3)


@pytest.mark.parametrize("shape", [[2], [2, 1]])
@pytest.mark.parametrize("name", ["x0", "features"])
def test_one_feature_alone(shape: list[int], name: str) -> None:
    request = read({"inputs": [tensor(name, shape, "FP64", [1, 2])]}, matrix(width=1))
    assert matrix_of(request).tolist() == [[1], [2]]
    request = read({"inputs": [tensor(name, shape, "BYTES", ["a", "b"])]}, TEXT)
    assert columns_of(request)["text"].tolist() == ["a", "b"]


def test_one_tensor_for_a_frame_of_numbers() -> None:
    data = columns_of(read({"inputs": [tensor("x", [2, 2], "FP64", [1, 1.5, 2, 2.5])]}, NUMBERS))
    assert data["a"].tolist() == [1, 2]
    assert data["a"].dtype == np.int64
    assert data["b"].tolist() == [1.5, 2.5]


@pytest.mark.parametrize(
    ("changes", "code", "where"),
    [
        ({"shape": [2, 4]}, "wrong_feature_count", "inputs[0].shape"),
        ({"shape": [3, 2]}, "wrong_feature_count", "inputs[0].shape"),
        ({"shape": [6, 1]}, "wrong_feature_count", "inputs[0].shape"),
        ({"shape": [2, 0]}, "wrong_feature_count", "inputs[0].shape"),
        ({"shape": [6]}, "invalid_shape", "inputs[0].shape"),
        ({"shape": [1, 2, 3]}, "invalid_shape", "inputs[0].shape"),
        ({"shape": []}, "invalid_shape", "inputs[0].shape"),
        ({"shape": 6}, "invalid_shape", "inputs[0].shape"),
        ({"shape": "2,3"}, "invalid_shape", "inputs[0].shape"),
        ({"shape": [-1, 3]}, "invalid_shape", "inputs[0].shape[0]"),
        ({"shape": [2, -3]}, "invalid_shape", "inputs[0].shape[1]"),
        ({"shape": [2.0, 3]}, "invalid_shape", "inputs[0].shape[0]"),
        ({"shape": [True, 3]}, "invalid_shape", "inputs[0].shape[0]"),
        ({"shape": ["2", 3]}, "invalid_shape", "inputs[0].shape[0]"),
        ({"shape": [2**64, 3]}, "invalid_shape", "inputs[0].shape[0]"),
        ({"shape": [2, 2**62]}, "wrong_feature_count", "inputs[0].shape"),
        ({"shape": [2**62, 3]}, "too_many_rows", "inputs[0].shape"),
        ({"shape": [101, 3], "data": [0] * 303}, "too_many_rows", "inputs[0].shape"),
        ({"shape": [0, 3], "data": []}, "empty_batch", "inputs[0].shape"),
        ({"shape": [1, 3]}, "shape_mismatch", "inputs[0].data"),
        ({"shape": [3, 3]}, "shape_mismatch", "inputs[0].data"),
        ({"data": [[1, 2, 3], [4, 5]]}, "shape_mismatch", "inputs[0].data[1]"),
        ({"datatype": "FP128"}, "unknown_datatype", "inputs[0].datatype"),
        ({"datatype": "fp64"}, "unknown_datatype", "inputs[0].datatype"),
        ({"datatype": 64}, "invalid_value", "inputs[0].datatype"),
        ({"datatype": "BOOL", "data": [True] * 6}, "invalid_value", "inputs[0].datatype"),
        ({"datatype": "BYTES", "data": ["1"] * 6}, "invalid_value", "inputs[0].datatype"),
        ({"name": 1}, "invalid_value", "inputs[0].name"),
        ({"name": None}, "missing_field", "inputs[0]"),
        ({"shape": None}, "missing_field", "inputs[0]"),
        ({"datatype": None}, "missing_field", "inputs[0]"),
        ({"data": None}, "missing_field", "inputs[0]"),
        ({"dtype": "FP64"}, "unknown_field", "inputs[0]"),
        ({"parameters": []}, "invalid_shape", "inputs[0].parameters"),
        ({"parameters": {"a": [1]}}, "invalid_value", "inputs[0].parameters"),
        ({"parameters": {"shared_memory_region": "r"}}, "unknown_field", "inputs[0].parameters"),
        ({"data": [1, 2, 3, 4, 5, "6"]}, "invalid_value", "inputs[0].data[5]"),
        ({"data": [1, 2, 3, 4, True, 6]}, "invalid_value", "inputs[0].data[4]"),
        ({"data": [1, 2, 3, None, 5, 6]}, "invalid_value", "inputs[0].data[3]"),
        ({"data": [[1, 2, 3], [None, 5, 6]]}, "invalid_value", "inputs[0].data[1][0]"),
        ({"data": [1, 2, 3, 4, 5, [6]]}, "invalid_value", "inputs[0].data[5]"),
        ({"data": {"0": 1}}, "invalid_shape", "inputs[0].data"),
    ],
)
def test_a_tensor_with_a_fault_is_refused_with_its_place(changes: Any, code: str, where: str) -> None:
    error = refused({"inputs": [features(**changes)]})
    assert (error.code, error.where) == (code, where)
    assert str(error).startswith(f"{where}: ")


def test_the_wrong_number_of_features_names_the_right_ones() -> None:
    assert "expected 3 features, got 4; in order: x0, x1, x2" in str(refused({"inputs": [features(shape=[2, 4])]}))


def test_null_says_null() -> None:
    assert "got null" in str(refused({"inputs": [features(data=[1, 2, 3, 4, 5, None])]}))


@pytest.mark.parametrize("datatype", ["FP64", "FP32", "FP16", "INT64"])
def test_null_is_nan_where_a_feature_may_miss(datatype: str) -> None:
    signature = matrix(nullable=(1,))
    request = read({"inputs": [features(datatype=datatype, data=[1, None, 3, 4, 5, 6])]}, signature)
    np.testing.assert_array_equal(matrix_of(request), [[1, math.nan, 3], [4, 5, 6]])
    error = refused({"inputs": [features(datatype=datatype, data=[1, None, None, 4, 5, 6])]}, signature)
    assert (error.code, error.where) == ("invalid_value", "inputs[0].data[2]")


def test_a_number_too_large_for_a_float32_feature_is_refused() -> None:
    error = refused({"inputs": [features(data=[1, 2, 3, 4, -1e39, 6])]}, matrix("float32"))
    assert (error.code, error.where) == ("invalid_value", "inputs[0].data[4]")
    assert "-1e+39" in str(error)


def test_categories_of_numbers() -> None:
    signature = Signature("frame", (Feature("x0", "float64", categories=(1.0, 2.0)),), (PREDICT,))
    assert columns_of(read({"inputs": [tensor("x0", [2], "INT8", [1, 2])]}, signature))["x0"].tolist() == [1, 2]
    error = refused({"inputs": [tensor("x0", [2], "INT8", [1, 3])]}, signature)
    assert (error.code, error.where) == ("unknown_category", "inputs[0].data[1]")


# --- a tensor for each feature ----------------------------------------------------------------------------------------


def frame_inputs() -> dict[str, dict[str, Any]]:
    return {
        "colour": tensor("colour", [2], "BYTES", ["red", None]),
        "age": tensor("age", [2, 1], "UINT8", [[30], [40]]),
        "smoker": tensor("smoker", [2], "BOOL", [True, False]),
        "height": tensor("height", [2, 1], "FP32", [1.5, 1.75]),
        "weight": tensor("weight", [2], "FP64", [None, 80]),
    }


def test_a_tensor_for_each_feature_in_any_order() -> None:
    data = columns_of(read({"inputs": list(frame_inputs().values())}, FRAME))
    assert list(data) == list(FRAME.names)
    assert data["age"].tolist() == [30, 40]
    assert data["age"].dtype == np.int64
    np.testing.assert_array_equal(data["weight"], [math.nan, 80])
    assert data["height"].dtype == np.float32
    assert data["smoker"].dtype == np.bool_
    assert data["colour"].tolist() == ["red", None]


def test_a_tensor_for_each_column_of_a_matrix() -> None:
    inputs = [tensor(f"x{i}", [2], "FP64", [i, i + 10]) for i in (2, 0, 1)]
    assert matrix_of(read({"inputs": inputs})).tolist() == [[0, 1, 2], [10, 11, 12]]


def test_a_missing_boolean_is_null_where_the_feature_may_miss() -> None:
    inputs = frame_inputs() | {"smoker": tensor("smoker", [2], "BOOL", [None, True])}
    assert columns_of(read({"inputs": list(inputs.values())}, FRAME))["smoker"].tolist() == [None, True]


@pytest.mark.parametrize(
    ("name", "changes", "code", "where"),
    [
        ("age", {"name": "ages"}, "unknown_feature", ".name"),
        ("age", {"name": "height"}, "duplicate_name", ".name"),
        ("age", {"shape": [1, 2]}, "invalid_shape", ".shape"),
        ("age", {"shape": [3], "data": [1, 2, 3]}, "shape_mismatch", ".shape"),
        ("age", {"data": [1, 2, 3]}, "shape_mismatch", ".data"),
        ("age", {"datatype": "FP64", "data": [30, 40.5]}, "invalid_value", ".data[1]"),
        ("age", {"datatype": "FP64", "data": [30, None]}, "invalid_value", ".data[1]"),
        ("age", {"datatype": "INT64", "data": [None, 40]}, "invalid_value", ".data[0]"),
        ("age", {"datatype": "UINT64", "data": [1, 2**63]}, "invalid_value", ".data[1]"),
        ("age", {"datatype": "INT64", "data": [1, 2**63]}, "invalid_value", ".data[1]"),
        ("age", {"datatype": "INT64", "data": [1, -(2**63) - 1]}, "invalid_value", ".data[1]"),
        ("age", {"datatype": "UINT8", "data": [1, 256]}, "invalid_value", ".data[1]"),
        ("age", {"datatype": "BOOL", "data": [True, False]}, "invalid_value", ".datatype"),
        ("age", {"datatype": "BYTES", "data": ["1", "2"]}, "invalid_value", ".datatype"),
        ("smoker", {"datatype": "INT8", "data": [0, 1]}, "invalid_value", ".datatype"),
        ("smoker", {"data": [0, 1]}, "invalid_value", ".data[0]"),
        ("colour", {"datatype": "INT8", "data": [0, 1]}, "invalid_value", ".datatype"),
        ("colour", {"data": ["red", "blue"]}, "unknown_category", ".data[1]"),
        ("colour", {"data": [1, "red"]}, "invalid_value", ".data[0]"),
        ("height", {"datatype": "FP64", "data": [1e39, 1]}, "invalid_value", ".data[0]"),
    ],
)
def test_a_column_with_a_fault_is_refused_with_its_place(name: str, changes: Any, code: str, where: str) -> None:
    inputs = frame_inputs()
    inputs[name] |= changes
    order = [key for key in inputs if key != name] + [name]
    error = refused({"inputs": [inputs[key] for key in order]}, FRAME)
    assert (error.code, error.where) == (code, f"inputs[4]{where}")


def test_missing_features_are_named() -> None:
    inputs = [tensor("age", [1], "INT64", [1])]
    error = refused({"inputs": inputs}, FRAME)
    assert (error.code, error.where) == ("missing_feature", "inputs")
    assert "weight, height, smoker, colour" in str(error)


def test_no_one_tensor_suits_mixed_features() -> None:
    error = refused({"inputs": [tensor("x", [1, 5], "FP64", [1, 2, 3, 4, 5])]}, FRAME)
    assert (error.code, error.where) == ("invalid_value", "inputs[0].datatype")
    assert "smoker" in str(error)


# --- the request around the tensors -----------------------------------------------------------------------------------


def test_parameters_of_all_three_kinds_are_taken() -> None:
    parameters = {"a": "x", "b": 1, "c": 1.5, "d": True}
    assert read({"parameters": parameters, "inputs": [features(parameters=parameters)]}).rows == 2


@pytest.mark.parametrize(
    ("changes", "code", "where"),
    [
        ({"id": 42}, "invalid_value", "id"),
        ({"id": None}, "invalid_value", "id"),
        ({"input": []}, "unknown_field", ""),
        ({"inputs": []}, "invalid_shape", "inputs"),
        ({"inputs": {}}, "invalid_shape", "inputs"),
        ({"inputs": None}, "invalid_shape", "inputs"),
        ({"inputs": [1]}, "invalid_shape", "inputs[0]"),
        ({"inputs": [[]]}, "invalid_shape", "inputs[0]"),
        ({"parameters": None}, "invalid_shape", "parameters"),
        ({"parameters": {"a": None}}, "invalid_value", "parameters"),
        ({"parameters": {"a": {}}}, "invalid_value", "parameters"),
        ({"parameters": {"binary_data_output": 1}}, "invalid_value", "parameters.binary_data_output"),
        ({"outputs": {}}, "invalid_shape", "outputs"),
        ({"outputs": ["predict"]}, "invalid_shape", "outputs[0]"),
        ({"outputs": [{}]}, "missing_field", "outputs[0]"),
        ({"outputs": [{"name": 1}]}, "invalid_value", "outputs[0].name"),
        ({"outputs": [{"name": "predict"}, {"name": "nope"}]}, "unknown_output", "outputs[1].name"),
        ({"outputs": [{"name": "predict"}] * 2}, "duplicate_name", "outputs[1].name"),
        ({"outputs": [{"name": "predict", "data": []}]}, "unknown_field", "outputs[0]"),
        ({"outputs": [{"name": "predict", "parameters": 1}]}, "invalid_shape", "outputs[0].parameters"),
        (
            {"outputs": [{"name": "predict", "parameters": {"binary_data": "yes"}}]},
            "invalid_value",
            "outputs[0].parameters.binary_data",
        ),
        (
            {"outputs": [{"name": "predict", "parameters": {"classification": 2}}]},
            "unknown_field",
            "outputs[0].parameters",
        ),
    ],
)
def test_a_request_with_a_fault_is_refused_with_its_place(changes: Any, code: str, where: str) -> None:
    error = refused({"inputs": [features()], **changes})
    assert (error.code, error.where) == (code, where)


def test_inputs_are_needed() -> None:
    assert refused({"id": "1"}).code == "missing_field"


@pytest.mark.parametrize("document", [None, 1, "x", [], [{}], True])
def test_a_body_that_is_no_object_is_refused(document: Any) -> None:
    assert refused(document).code == "invalid_shape"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"\xff", "invalid_json"),
        (b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP64","data":[1,2,NaN]}]}', "invalid_json"),
        (b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP64","data":[1,2,Infinity]}]}', "invalid_json"),
        (b'{"inputs":[],"inputs":[]}', "duplicate_name"),
        (b'{"inputs":[{"name":"x","name":"y","shape":[1,3],"datatype":"FP64","data":[1,2,3]}]}', "duplicate_name"),
    ],
)
def test_a_body_that_is_no_strict_json_is_refused(body: bytes, code: str) -> None:
    with pytest.raises(InputError) as caught:
        decode(body, None, MATRIX, 100)
    assert caught.value.code == code


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"1" * 400, b"1" * 5000])
def test_a_number_beyond_float64_is_refused(number: bytes) -> None:
    body = b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP64","data":[1,2,' + number + b"]}]}"
    with pytest.raises(InputError) as caught:
        decode(body, None, MATRIX, 100)
    assert caught.value.code in ("invalid_json", "invalid_value")


def test_a_lone_surrogate_is_refused() -> None:
    """orjson could not write it into the answer again."""
    with pytest.raises(InputError) as caught:
        decode(b'{"id":"\\ud800","inputs":[]}', None, MATRIX, 100)
    assert str(caught.value).encode()


def test_deep_nesting_is_refused() -> None:
    for depth in (300, 1_000, 100_000):
        body = b'{"inputs":' + b"[" * depth + b"]" * depth + b"}"
        with pytest.raises(InputError):
            decode(body, None, MATRIX, 100)
