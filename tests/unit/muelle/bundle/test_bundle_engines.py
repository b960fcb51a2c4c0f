"""Engines: each answers like ``estimator.predict``, and says whose fault it is when it can't."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from muelle.bundle.convert import convert
from muelle.bundle.data import take
from muelle.bundle.engines import EstimatorEngine, OnnxEngine, load_engine
from muelle.bundle.infer import Sample, infer_outputs, make_signature
from muelle.bundle.signature import Feature, Output, Signature
from muelle.errors import EngineError, InputError, UnsafePickleError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
Y = X @ [1.0, 2.0, 3.0] + 1
LABELS = np.where(Y > 2, "high", np.where(Y > 0, "middle", "low"))
NAMED = pd.DataFrame(X, columns=["a", "b", "c"])
MIXED = pd.DataFrame({"n": np.arange(40), "v": X[:, 0], "city": np.where(X[:, 1] > 0, "Vigo", "Lugo"), "b": Y > 0})
NUMBERS = pd.DataFrame({"n": pd.Series([1, None, 3, 4] * 10, dtype="Int64"), "v": X[:, 0]})
GAPS = MIXED.assign(city=MIXED["city"].where(X[:, 2] > -1, None), v=MIXED["v"].where(X[:, 2] < 1))
TEXTS = ["a good day", "a bad day", "good", "bad"] * 10

encoded = ColumnTransformer(
    [("c", OneHotEncoder(handle_unknown="ignore"), ["city"]), ("n", make_pipeline(SimpleImputer(), StandardScaler()),
     ["n", "v"])]
)  # fmt: skip
by_position = ColumnTransformer([("c", OneHotEncoder(handle_unknown="ignore"), [2])], remainder="drop")

KINDS = {
    "matrix": (LinearRegression(), X, Y, True),
    "float32": (LinearRegression(), X.astype(np.float32), Y, True),
    "named matrix": (LogisticRegression(), NAMED, LABELS, True),
    "string labels": (LogisticRegression(), X, LABELS, True),
    "bool labels": (LogisticRegression(), X, Y > 0, True),
    "integer labels": (RandomForestClassifier(5, random_state=0), X, np.digitize(Y, [0, 2]) * 10, True),
    "several values": (LinearRegression(), X, np.column_stack([Y, -Y]), True),
    "several labels": (DecisionTreeClassifier(max_depth=3), X, np.column_stack([Y > 0, Y > 2]).astype(int), True),
    "one column of values": (LinearRegression(), X, Y.reshape(-1, 1), True),
    "outliers": (IsolationForest(n_estimators=5, random_state=0), X, None, True),
    "clusters": (KMeans(3, n_init=1, random_state=0), X, None, True),
    "mixed frame": (make_pipeline(encoded, LogisticRegression()), MIXED, LABELS, True),
    "frame of numbers": (make_pipeline(SimpleImputer(), LinearRegression()), NUMBERS, Y, True),
    "frame with gaps": (make_pipeline(encoded, LinearRegression()), GAPS, Y, None),
    "categories": (make_pipeline(encoded, LinearRegression()), MIXED.astype({"city": "category"}), Y, False),
    "objects": (make_pipeline(by_position, LinearRegression()), MIXED.to_numpy(object), Y, False),
    "texts": (make_pipeline(TfidfVectorizer(), LogisticRegression()), TEXTS, LABELS, False),
}


class Kind:
    """A fitted estimator with all that a bundle would hold of it."""

    def __init__(self, estimator, rows, y):
        from sklearn.base import clone

        self.estimator = clone(estimator).fit(rows, y)
        sample = Sample(self.estimator, rows)
        outputs, self.answers = infer_outputs(self.estimator, sample.native)
        self.signature = make_signature(sample, outputs)
        self.data = sample.data()
        self.model, self.report = convert(self.estimator, self.signature, self.data, self.answers)


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request) -> Kind:
    estimator, rows, y, self_converts = KINDS[request.param]
    found = Kind(estimator, rows, y)
    if self_converts is not None:
        assert found.report.kept is self_converts, found.report.reason
    return found


class TestAnswers:
    def engines(self, kind: Kind) -> list:
        engines = [EstimatorEngine("joblib", kind.estimator, kind.signature)]
        return engines + ([OnnxEngine(kind.model, kind.signature)] if kind.model else [])

    def check(self, kind: Kind, chosen: np.ndarray) -> None:
        for engine in self.engines(kind):
            answers = engine.run(take(kind.data, chosen), kind.signature.output_names)
            assert list(answers) == list(kind.signature.output_names)
            for output in kind.signature.outputs:
                answer, expected = answers[output.name], kind.answers[output.name][chosen]
                assert answer.shape == (len(chosen), *output.shape[1:])
                assert answer.dtype == expected.dtype
                if output.dtype == "float64":
                    np.testing.assert_allclose(answer, expected, rtol=2e-6, atol=2e-6)
                else:
                    np.testing.assert_array_equal(answer, expected)
                if output.dtype == "string":
                    assert {type(value) for value in answer.ravel()} == {str}

    def test_they_are_the_estimators_own(self, kind):
        self.check(kind, np.arange(40))

    def test_for_one_row(self, kind):
        self.check(kind, np.array([7]))

    def test_for_rows_in_another_order(self, kind):
        self.check(kind, np.array([39, 0, 20, 0]))

    def test_one_output_alone(self, kind):
        for engine in self.engines(kind):
            assert list(engine.run(kind.data, ["predict"])) == ["predict"]
            last = kind.signature.output_names[-1]
            assert list(engine.run(kind.data, [last])) == [last]


def test_a_category_that_is_not_in_these_rows_is_still_known():
    kind = Kind(*KINDS["categories"][:3])
    engine = EstimatorEngine("joblib", kind.estimator, kind.signature)
    some = np.flatnonzero(MIXED["city"] == "Lugo")[:3]
    np.testing.assert_allclose(engine.run(take(kind.data, some), ["predict"])["predict"], kind.answers["predict"][some])


PREDICT = Output("predict", "float64", (-1,))
MATRIX = Signature("matrix", (Feature("a", "float64"), Feature("b", "float64")), (PREDICT,))
ROWS = np.zeros((2, 2))


class Acting:
    """An estimator that does what it was told to."""

    def __init__(self, act):
        self.predict = act


def raising(error: Exception):
    def act(rows):
        raise error

    return Acting(act)


@pytest.mark.parametrize(("error", "said"), [
    (ValueError("Found unknown categories ['x'] in column 0\nmore"), "Found unknown categories ['x'] in column 0"),
    (ValueError(), "ValueError"),
    (ValueError("x" * 5000), "x" * 300),
    (UnicodeEncodeError("utf-8", "x", 0, 1, "no"), "'utf-8' codec"),
])  # fmt: skip
def test_a_value_error_is_the_callers(error, said):
    with pytest.raises(InputError) as caught:
        EstimatorEngine("joblib", raising(error), MATRIX).run(ROWS, ["predict"])
    assert caught.value.code == "rejected_by_estimator"
    assert str(caught.value).startswith(f"the estimator refused these rows: {said}")
    assert len(str(caught.value)) < 400
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [TypeError("no"), KeyError("a"), AttributeError("x"), MemoryError(), RuntimeError("no")]
)
def test_any_other_error_is_the_models(error):
    with pytest.raises(EngineError, match=rf"^the estimator failed: {type(error).__name__}"):
        EstimatorEngine("joblib", raising(error), MATRIX).run(ROWS, ["predict"])


@pytest.mark.parametrize("answer", [np.zeros(3), np.zeros((2, 2)), np.zeros(0), 1.0])
def test_an_answer_of_another_size_is_the_models_fault(answer):
    with pytest.raises(EngineError, match=r"^predict: expected the shape \(2,\)"):
        EstimatorEngine("joblib", Acting(lambda rows: answer), MATRIX).run(ROWS, ["predict"])


def test_an_object_without_the_outputs_is_no_model():
    signature = Signature("matrix", MATRIX.inputs, (PREDICT, Output("predict_proba", "float64", (-1, 2))))
    for estimator, missing in ((object(), "predict"), (LinearRegression(), "predict_proba")):
        with pytest.raises(
            EngineError, match=rf"^model\.joblib: the loaded {type(estimator).__name__} has no {missing}$"
        ):
            EstimatorEngine("joblib", estimator, signature)


def test_an_estimator_that_knows_names_gets_a_frame_and_no_warning():
    kind = Kind(*KINDS["named matrix"][:3])
    assert kind.signature.layout == "matrix"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        EstimatorEngine("joblib", kind.estimator, kind.signature).run(kind.data, ["predict"])


def test_an_encoder_refuses_a_category_it_never_saw():
    frame = MIXED[["city"]]
    strict = make_pipeline(ColumnTransformer([("c", OneHotEncoder(), ["city"])]), LinearRegression())
    kind = Kind(strict, frame, Y)
    engine = EstimatorEngine("joblib", kind.estimator, kind.signature)
    with pytest.raises(InputError, match="refused these rows: Found unknown categories"):
        engine.run({"city": np.array(["Madrid"], object)}, ["predict"])


@pytest.fixture(scope="module")
def linear() -> Kind:
    return Kind(*KINDS["matrix"][:3])


class TestOnnx:
    @pytest.mark.parametrize("data", [b"", b"not a graph", b"\x08\x07" * 50], ids=["empty", "text", "fields"])
    def test_what_is_no_graph(self, linear, data):
        with pytest.raises(EngineError, match=r"^model\.onnx: ONNX Runtime can't load it: "):
            OnnxEngine(data, linear.signature)

    def test_a_truncated_graph(self, linear):
        with pytest.raises(EngineError, match=r"^model\.onnx: "):
            OnnxEngine(linear.model[: len(linear.model) // 2], linear.signature)

    def test_too_few_outputs(self, linear):
        outputs = (PREDICT, Output("predict_proba", "float64", (-1, 2), (0, 1)))
        with pytest.raises(EngineError, match=r"^model\.onnx: expected 2 outputs, the graph has 1$"):
            OnnxEngine(linear.model, Signature("matrix", linear.signature.inputs, outputs))

    def test_rows_of_another_width(self, linear):
        engine = OnnxEngine(linear.model, linear.signature)
        with pytest.raises(EngineError, match=r"^ONNX Runtime failed: "):
            engine.run(np.zeros((2, 5)), ["predict"])

    def test_an_answer_of_another_shape(self, linear):
        signature = Signature("matrix", linear.signature.inputs, (Output("predict", "float64", (-1, 4)),))
        with pytest.raises(EngineError, match=r"^predict: expected the shape \(40, 4\)"):
            OnnxEngine(linear.model, signature).run(linear.data, ["predict"])

    @pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # scikit-learn's own cast, before it refuses
    def test_what_float32_cannot_hold_is_refused_as_scikit_learns_trees_refuse_it(self):
        forest = Kind(RandomForestClassifier(100, random_state=42), *load_iris(return_X_y=True))
        assert forest.report.input_dtype == "float32"
        row = np.array([[1e39, 0, 0, 0]])
        for engine in (EstimatorEngine("joblib", forest.estimator, forest.signature),
                       OnnxEngine(forest.model, forest.signature)):  # fmt: skip
            with pytest.raises(InputError) as caught:
                engine.run(row, ["predict"])
            assert caught.value.code == "rejected_by_estimator"

    def test_float32_votes_add_up_to_no_more_than_one(self):
        forest = Kind(RandomForestClassifier(100, random_state=0), X, LABELS)
        answer = OnnxEngine(forest.model, forest.signature).run(forest.data, ["predict_proba"])["predict_proba"]
        assert answer.max() == 1.0


class TestLoading:
    def test_by_name(self, line_bundle, line):
        for name in ("onnx", "joblib"):
            data = (line_bundle / f"model.{name}").read_bytes()
            signature = Signature("matrix", (Feature("x0", "float64"), Feature("x1", "float64")), (PREDICT,))
            engine = load_engine(name, data, signature)
            assert engine.name == name
            np.testing.assert_allclose(engine.run(line[1], ["predict"])["predict"], line[0].predict(line[1]))

    def test_an_unsafe_pickle_is_not_run(self, tmp_path):
        marker = tmp_path / "ran"
        data = f"cos\nsystem\n(S'touch {marker}'\ntR.".encode()
        with pytest.raises(UnsafePickleError, match=r"^model\.joblib"):
            load_engine("joblib", data, MATRIX)
        assert not marker.exists()
