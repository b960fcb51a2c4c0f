"""The signature: what its JSON may be, and what the parts answer."""

from __future__ import annotations

import copy

import pytest

from muelle.bundle.signature import Feature, Output, Signature
from muelle.errors import ManifestError

GOOD = {
    "layout": "frame",
    "inputs": [
        {"name": "age", "dtype": "float64", "shape": [-1], "nullable": False, "categories": None},
        {"name": "city", "dtype": "string", "shape": [-1], "nullable": True, "categories": ["Vigo", "Lugo"]},
    ],
    "outputs": [
        {"name": "predict", "dtype": "bool", "shape": [-1], "classes": [False, True]},
        {"name": "predict_proba", "dtype": "float64", "shape": [-1, 2], "classes": [False, True]},
    ],
}


def test_there_and_back():
    signature = Signature.from_json(GOOD)
    assert signature.to_json() == GOOD
    assert signature.names == ("age", "city")
    assert signature.output_names == ("predict", "predict_proba")
    assert signature.inputs[1].categories == ("Vigo", "Lugo")
    assert signature.output("predict_proba").shape == (-1, 2)
    with pytest.raises(KeyError):
        signature.output("transform")


@pytest.mark.parametrize(("layout", "nullable", "plain"), [("matrix", False, True), ("matrix", True, False),
    ("frame", False, False)])  # fmt: skip
def test_only_a_matrix_without_missing_values_is_plain(layout, nullable, plain):
    inputs = (Feature("a", "float64"), Feature("b", "float64", nullable))
    assert Signature(layout, inputs, (Output("predict", "float64", (-1,)),)).plain is plain


def cut(path: str, value: object) -> dict:
    changed = copy.deepcopy(GOOD)
    *parents, last = [int(part) if part.isdecimal() else part for part in path.split("/")]
    place = changed
    for parent in parents:
        place = place[parent]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return changed


@pytest.mark.parametrize(("path", "value", "message"), [
    ("layout", "Matrix", "s.layout: expected one of"),
    ("layout", ..., "s: missing layout"),
    ("rows", 3, "s: unknown rows"),
    ("inputs", {}, "s.inputs: expected a list"),
    ("inputs", [], "s.inputs: expected one or more inputs of different names, got []"),
    ("inputs/0/name", "city", "s.inputs: expected one or more inputs of different names"),
    ("inputs/0/name", "", "s.inputs[0].name: expected a string"),
    ("inputs/0/dtype", "object", "s.inputs[0].dtype: expected one of"),
    ("inputs/0/dtype", None, "s.inputs[0].dtype: expected one of"),
    ("inputs/0/shape", [1], "s.inputs[0].shape: expected [-1], got [1]"),
    ("inputs/0/shape", -1, "s.inputs[0].shape: expected [-1]"),
    ("inputs/0/nullable", None, "s.inputs[0].nullable: expected true or false"),
    ("inputs/0/nullable", ..., "s.inputs[0]: missing nullable"),
    ("inputs/0/unit", "kg", "s.inputs[0]: unknown unit"),
    ("inputs/1/categories", "Vigo", "s.inputs[1].categories: expected a list"),
    ("inputs/1/categories", ["Vigo", None], "s.inputs[1].categories[1]: expected a string, number or boolean"),
    ("inputs/1", "city", "s.inputs[1]: expected an object"),
    ("outputs", [], "s.outputs: expected predict, then perhaps predict_proba"),
    ("outputs/1/name", "predict", "s.outputs: expected predict, then perhaps predict_proba"),
    ("outputs/0/name", "predict_proba", "s.outputs: expected predict, then perhaps predict_proba"),
    ("outputs/0/name", "score", "s.outputs[0].name: expected one of predict, predict_proba"),
    ("outputs/0/dtype", "int32", "s.outputs[0].dtype: expected one of"),
    ("outputs/0/shape", [], "s.outputs[0].shape: expected [-1] or [-1, k], got []"),
    ("outputs/0/shape", [2], "s.outputs[0].shape: expected [-1] or [-1, k], got [2]"),
    ("outputs/0/shape", [-1, 0], "s.outputs[0].shape: expected [-1] or [-1, k], got [-1, 0]"),
    ("outputs/0/shape", [-1, -1], "s.outputs[0].shape: expected [-1] or [-1, k], got [-1, -1]"),
    ("outputs/0/shape", [-1, 2, 2], "s.outputs[0].shape: expected [-1] or [-1, k]"),
    ("outputs/0/shape", [-1, 1.5], "s.outputs[0].shape[1]: expected an integer"),
    ("outputs/0/shape", None, "s.outputs[0].shape: expected a list"),
    ("outputs/0/classes", [None], "s.outputs[0].classes[0]: expected a string, number or boolean"),
    ("outputs/0/classes", ..., "s.outputs[0]: missing classes"),
])  # fmt: skip
def test_a_wrong_field_is_refused_with_its_place(path, value, message):
    with pytest.raises(ManifestError) as caught:
        Signature.from_json(cut(path, value), "s")
    assert str(caught.value).startswith(message)


def number(name: str, dtype: str, categories: list | None = None) -> dict:
    return {"name": name, "dtype": dtype, "shape": [-1], "nullable": False, "categories": categories}


@pytest.mark.parametrize(("layout", "inputs", "message"), [
    ("matrix", [number("a", "float64"), number("b", "float32")], "a matrix has one dtype"),
    ("matrix", [number("a", "int64")], "a matrix has one dtype, float64 or float32"),
    ("matrix", [number("a", "float64", [1.0])], "a matrix has no categories"),
    ("text", [number("a", "float64")], "the text layout has one input of dtype string"),
    ("text", [number("a", "string"), number("b", "string")], "the text layout has one input"),
])  # fmt: skip
def test_a_layout_that_its_inputs_can_not_have(layout, inputs, message):
    with pytest.raises(ManifestError, match=message):
        Signature.from_json({**GOOD, "layout": layout, "inputs": inputs})
