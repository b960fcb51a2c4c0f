"""Golden rows: which are kept, and how close an engine must come."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest

from muelle.bundle.golden import Golden, check_golden, make_golden
from muelle.bundle.signature import Feature, Output, Signature
from muelle.errors import EstimatorError, GoldenMismatchError, ManifestError

PREDICT = Output("predict", "float64", (-1,))
MATRIX = Signature("matrix", (Feature("a", "float64"), Feature("b", "float64")), (PREDICT,))
CLASSIFIER = Signature(
    "matrix",
    (Feature("a", "float64"),),
    (Output("predict", "string", (-1,), ("n", "y")), Output("predict_proba", "float64", (-1, 2), ("n", "y"))),
)


@dataclass
class Answering:
    """An engine that answers what it was told to."""

    answers: dict
    name: str = "fake"

    def run(self, data, outputs):
        return {name: self.answers[name] for name in outputs}


@pytest.mark.parametrize(("count", "kept"), [(1, 1), (2, 2), (15, 15), (16, 16), (17, 16), (1000, 16)])
def test_rows_are_spread_evenly_and_the_ends_are_among_them(count, kept):
    data = np.column_stack([np.arange(count), np.zeros(count)]).astype(float)
    golden = make_golden(MATRIX, data, {"predict": np.arange(count) * 2.0})
    chosen = [row[0] for row in golden.inputs]
    assert len(chosen) == len(set(chosen)) == kept
    assert (chosen[0], chosen[-1]) == (0.0, count - 1.0)
    assert np.ptp(np.diff(chosen)) <= 1 if kept > 1 else chosen == [0.0]
    assert golden.outputs["predict"] == [value * 2 for value in chosen]


def test_there_and_back_with_full_precision():
    data = np.random.default_rng(0).normal(size=(5, 2))
    golden = make_golden(MATRIX, data, {"predict": data[:, 0] / 3})
    again = Golden.from_bytes(golden.to_bytes(), MATRIX)
    assert again == golden
    np.testing.assert_array_equal(again.data(MATRIX), data)
    np.testing.assert_array_equal(again.answers(PREDICT), data[:, 0] / 3)


def test_a_frame_comes_back_with_its_missing_values():
    dtypes = ("float64", "float32", "int64", "bool", "string", "int64", "bool", "string")
    features = tuple(Feature(f"c{i}", dtype, i > 4) for i, dtype in enumerate(dtypes))
    data = {
        "c0": np.array([1.5, 2.5]),
        "c1": np.array([0.1, 0.2], np.float32),
        "c2": np.array([2**60 + 1, -1]),
        "c3": np.array([True, False]),
        "c4": np.array(["é", ""], object),
        "c5": np.array([1.0, np.nan]),
        "c6": np.array([None, True], object),
        "c7": np.array([None, "x"], object),
    }
    signature = Signature("frame", features, (PREDICT,))
    golden = Golden.from_bytes(make_golden(signature, data, {"predict": np.zeros(2)}).to_bytes(), signature)
    for name, column in golden.data(signature).items():
        assert column.dtype == data[name].dtype
        np.testing.assert_array_equal(column, data[name])


def test_a_float32_matrix_stays_one():
    signature = Signature("matrix", (Feature("a", "float32"), Feature("b", "float32")), (PREDICT,))
    data = np.array([[0.1, 0.2]], np.float32)
    again = make_golden(signature, data, {"predict": np.zeros(1)}).data(signature)
    assert again.dtype == np.float32
    np.testing.assert_array_equal(again, data)


@pytest.mark.parametrize("answer", [1.0, -1000.0, 1e-9, 1e12])
def test_values_may_differ_by_a_millionth_of_themselves(answer):
    golden = Golden([[0.0, 0.0]], {"predict": [answer]})
    for factor in (1.0, 1 + 0.5e-6, 1 - 0.5e-6):
        check_golden(MATRIX, golden, Answering({"predict": np.array([answer * factor])}))
    for factor in (1 + 2e-6, 1 - 2e-6, -1.0, np.nan, np.inf):
        with pytest.raises(GoldenMismatchError, match="the fake engine does not reproduce the golden output predict"):
            check_golden(MATRIX, golden, Answering({"predict": np.array([answer * factor])}))


def test_probabilities_may_differ_by_a_millionth_and_labels_not_at_all():
    golden = Golden([[0.0], [1.0]], {"predict": ["n", "y"], "predict_proba": [[0.9, 0.1], [0.2, 0.8]]})
    labels, probabilities = np.array(["n", "y"], object), np.array([[0.9, 0.1], [0.2, 0.8]])
    by = np.array([[0.0, 0.0], [1.0, -1.0]])
    check_golden(CLASSIFIER, golden, Answering({"predict": labels, "predict_proba": probabilities + 0.5e-6 * by}))
    with pytest.raises(GoldenMismatchError, match="predict_proba: largest error 2e-06, allowed 1e-06"):
        check_golden(CLASSIFIER, golden, Answering({"predict": labels, "predict_proba": probabilities + 2e-6 * by}))
    wrong = {"predict": np.array(["n", "n"], object), "predict_proba": probabilities}
    with pytest.raises(GoldenMismatchError, match="predict: largest error inf"):
        check_golden(CLASSIFIER, golden, Answering(wrong))


def test_an_answer_of_nan_must_be_nan_again():
    answers = np.array([np.nan, 2.0])
    golden = make_golden(MATRIX, np.zeros((2, 2)), {"predict": answers})
    golden = Golden.from_bytes(golden.to_bytes(), MATRIX)
    assert golden.outputs == {"predict": [None, 2.0]}
    check_golden(MATRIX, golden, Answering({"predict": answers}))
    with pytest.raises(GoldenMismatchError):
        check_golden(MATRIX, golden, Answering({"predict": np.array([0.0, 2.0])}))


def test_rows_and_answers_that_json_can_not_hold_are_passed_over():
    data = np.array([[1.0, 2.0], [np.inf, 2.0], [3.0, -np.inf], [4.0, 4.0], [5.0, 5.0]])
    golden = make_golden(MATRIX, data, {"predict": np.array([1.0, 2.0, 3.0, np.inf, 5.0])})
    assert golden.inputs == [[1.0, 2.0], [5.0, 5.0]]
    assert golden.outputs == {"predict": [1.0, 5.0]}
    with pytest.raises(EstimatorError, match="expected a row without infinite values"):
        make_golden(MATRIX, data[1:3], {"predict": np.zeros(2)})


@pytest.mark.parametrize(("change", "message"), [
    ({"inputs": []}, "golden.json: outputs.predict: expected 0 answers, got 1"),
    ({"inputs": [], "outputs": {"predict": []}}, "golden.json: inputs: expected at least one row"),
    ({"inputs": {}}, "golden.json: inputs: expected a list"),
    ({"inputs": [[1.0]]}, "golden.json: inputs[0]: expected 2 values"),
    ({"inputs": [{"a": 1, "b": 2}]}, "golden.json: inputs[0]: expected 2 values"),
    ({"outputs": {}}, "golden.json: outputs: missing predict"),
    ({"outputs": {"predict": [1.0], "extra": [1.0]}}, "golden.json: outputs: unknown extra"),
    ({"outputs": {"predict": [1.0, 2.0]}}, "golden.json: outputs.predict: expected 1 answers, got 2"),
    ({"outputs": {"predict": 1.0}}, "golden.json: outputs.predict: expected a list"),
    ({"more": 1}, "golden.json: unknown more"),
])  # fmt: skip
def test_a_wrong_document_is_refused_with_its_place(change, message):
    document = {"inputs": [[1.0, 2.0]], "outputs": {"predict": [1.0]}} | change
    with pytest.raises(ManifestError) as caught:
        Golden.from_bytes(json.dumps(document).encode(), MATRIX)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("cell", ["x", [1.0], {}, 10**400])
def test_values_of_another_dtype_are_a_manifest_error(cell):
    with pytest.raises(
        ManifestError, match=r"^golden\.json: inputs: (not of the signature's dtypes|expected one value a cell)"
    ):
        Golden([[1.0, cell]], {"predict": [1.0]}).data(MATRIX)
    with pytest.raises(ManifestError, match=r"^golden\.json: outputs\.predict: not as the signature says"):
        Golden([[1.0, 2.0], [1.0, 2.0]], {"predict": [1.0, [cell, cell]]}).answers(PREDICT)
