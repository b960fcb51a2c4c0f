"""What is inferred from an estimator and a sample, for each form in which people have their rows."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import IsolationForest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from muelle.bundle.infer import Sample, infer_outputs
from muelle.bundle.signature import Feature, Output
from muelle.errors import EstimatorError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 3)).round(3)
Y = X @ [1.0, 2.0, 3.0]
LINEAR = LinearRegression().fit(X, Y)
CITY = np.array(["Vigo", "Lugo", "Ourense"] * 10, dtype=object)


class Anything:
    """An estimator that answers nought, whatever the rows are."""

    feature_names_in_ = np.array([], dtype=object)

    def predict(self, rows):
        return np.zeros(len(rows))


def sample_of(column: object, **options: object) -> Sample:
    """A sample with one column under test beside one of strings, so that it stays a frame."""
    frame = pd.DataFrame({"a": column, "s": pd.Series(["x"] * len(column), dtype=object)})
    return Sample(Anything(), frame, **options)


@pytest.mark.parametrize(("column", "expected"), [
    (pd.Series([1.5, 2.5]), Feature("a", "float64")),
    (pd.Series([1.5, np.nan]), Feature("a", "float64", True)),
    (pd.Series([1.5, 2.5], dtype="float32"), Feature("a", "float32")),
    (pd.Series([1, 2], dtype="int64"), Feature("a", "int64")),
    (pd.Series([1, 2], dtype="uint8"), Feature("a", "int64")),
    (pd.Series([1, 2], dtype="Int64"), Feature("a", "int64")),
    (pd.Series([1, None], dtype="Int64"), Feature("a", "int64", True)),
    (pd.Series([1.5, None], dtype="Float64"), Feature("a", "float64", True)),
    (pd.Series([True, False]), Feature("a", "bool")),
    (pd.Series([True, None], dtype="boolean"), Feature("a", "bool", True)),
    (pd.Series([True, None], dtype=object), Feature("a", "bool", True)),
    (pd.Series(["x", "y"], dtype="str"), Feature("a", "string")),
    (pd.Series(["x", None], dtype="str"), Feature("a", "string", True)),
    (pd.Series(["x", None], dtype="string"), Feature("a", "string", True)),
    (pd.Series(["x", "y"], dtype=object), Feature("a", "string")),
    (pd.Series(["x", None], dtype=object), Feature("a", "string", True)),
    (pd.Series(["x", np.nan], dtype=object), Feature("a", "string", True)),
    (pd.Series(["x", np.float64("nan")], dtype=object), Feature("a", "string", True)),
    (pd.Series([1, 2.5], dtype=object), Feature("a", "float64")),
    (pd.Series(["y", "x"], dtype="category"), Feature("a", "string", False, ("x", "y"))),
    (pd.Series(["y", None], dtype=pd.CategoricalDtype(["y", "never"])), Feature("a", "string", True, ("y", "never"))),
    (pd.Series([3, 1], dtype="category"), Feature("a", "int64", False, (1, 3))),
    (pd.Series([0.5, 1.5], dtype="category"), Feature("a", "float64", False, (0.5, 1.5))),
    (pd.Series([True, False], dtype="category"), Feature("a", "bool", False, (False, True))),
])  # fmt: skip
def test_a_columns_feature(column, expected):
    sample = sample_of(column)
    assert sample.layout == "frame"
    assert sample.features[0] == expected
    data = sample.data()["a"]
    assert len(data) == len(column)
    kinds = {"float64": "f", "float32": "f", "int64": "i", "bool": "b", "string": "O"}
    if not expected.nullable:
        assert data.dtype.kind == kinds[expected.dtype]


@pytest.mark.parametrize(("column", "got"), [
    (pd.Series(pd.to_datetime(["2026-01-01", "2026-01-02"])), "Timestamp"),
    (pd.Series(pd.to_timedelta([1, 2], unit="s")), "Timedelta"),
    (pd.Series([b"x", b"y"], dtype=object), "bytes"),
    (pd.Series([["x"], ["y"]], dtype=object), "list"),
    (pd.Series(["x", 1], dtype=object), "int, str"),
    (pd.Series([True, 1], dtype=object), "bool, int"),
    (pd.Series([1j, 2j]), "complex"),
    (pd.Series([None, None], dtype=object), "only missing values"),
])  # fmt: skip
def test_a_column_that_can_not_be_served(column, got):
    with pytest.raises(EstimatorError, match=rf"^column 'a': expected numbers, booleans or strings, got {got}$"):
        sample_of(column)


class TestArrays:
    @pytest.mark.parametrize("rows", [
        X, X.tolist(), [tuple(row) for row in X], sparse.csr_array(X), sparse.coo_matrix(X), np.asfortranarray(X),
    ])  # fmt: skip
    def test_numbers_are_a_float64_matrix(self, rows):
        sample = Sample(LINEAR, rows)
        assert sample.layout == "matrix"
        assert sample.features == tuple(Feature(f"x{i}", "float64") for i in range(3))
        data = sample.data()
        assert (data.dtype, data.flags.c_contiguous) == (np.float64, True)
        np.testing.assert_array_equal(data, X)

    @pytest.mark.parametrize("dtype", ["int64", "uint8", "float16"])
    def test_other_numbers_become_float64(self, dtype):
        sample = Sample(LINEAR, np.ones((4, 3), dtype))
        assert {feature.dtype for feature in sample.features} == {"float64"}
        assert sample.data().dtype == np.float64

    def test_float32_stays(self):
        sample = Sample(LINEAR, X.astype(np.float32))
        assert {feature.dtype for feature in sample.features} == {"float32"}
        assert sample.data().dtype == np.float32

    def test_missing_values_are_allowed_in_the_columns_that_have_some(self):
        rows = X.copy()
        rows[3, 1] = np.nan
        assert [f.nullable for f in Sample(LINEAR, rows).features] == [False, True, False]
        assert [f.nullable for f in Sample(LINEAR, rows, allow_missing=True).features] == [True, True, True]
        assert [f.nullable for f in Sample(LINEAR, rows, allow_missing=False).features] == [False, True, False]
        assert [f.nullable for f in Sample(LINEAR, X, allow_missing=True).features] == [True, True, True]

    def test_booleans_are_objects(self):
        sample = Sample(Anything(), np.array([[True, False], [False, True]]))
        assert sample.layout == "objects"
        assert [f.dtype for f in sample.features] == ["bool", "bool"]

    @pytest.mark.parametrize("rows", [
        [["Vigo", 1.5], ["Lugo", 2]], np.array([["Vigo", 1.5], ["Lugo", 2]], dtype=object),
    ])  # fmt: skip
    def test_mixed_rows_keep_their_numbers(self, rows):
        sample = Sample(Anything(), rows)
        assert sample.layout == "objects"
        assert [f.dtype for f in sample.features] == ["string", "float64"]
        assert sample.data()["x1"].tolist() == [1.5, 2.0]
        assert sample.native.tolist() == [["Vigo", 1.5], ["Lugo", 2]]

    def test_an_array_of_strings_has_columns_of_strings(self):
        sample = Sample(Anything(), np.array([["a", "b"], ["c", "d"]]))
        assert sample.layout == "objects"
        assert [(f.name, f.dtype) for f in sample.features] == [("x0", "string"), ("x1", "string")]

    def test_an_estimator_that_knows_names_gives_them(self):
        fitted = LinearRegression().fit(pd.DataFrame(X, columns=["a", "b", "c"]), Y)
        assert [f.name for f in Sample(fitted, X).features] == ["a", "b", "c"]

    @pytest.mark.parametrize(("rows", "message"), [
        (np.zeros(3), r"got the shape \(3,\)"),
        (np.zeros((2, 2, 2)), r"got the shape \(2, 2, 2\)"),
        (7, r"got the shape \(\)"),
        ([[1.0, 2.0, 3.0], [1.0]], "expected rows of shape"),
        (np.zeros((0, 3)), "the sample has no rows"),
        ([], "the sample has no rows"),
        (np.zeros((3, 0)), "expected one or more columns"),
        (np.array([["2026-01-01"]], "datetime64[D]"), "column 'x0': expected numbers, booleans or strings, got date"),
        (np.array([[1j]]), "column 'x0': expected numbers, booleans or strings, got complex"),
        ([["a", None], ["b", None]], "column 'x1': .* got only missing values"),
    ])  # fmt: skip
    def test_what_is_no_sample(self, rows, message):
        with pytest.raises(EstimatorError, match=message):
            Sample(LINEAR, rows)


@pytest.mark.parametrize("rows", [
    ["good", "bad"], ("good", "bad"), np.array(["good", "bad"]), np.array(["good", "bad"], object),
    pd.Series(["good", "bad"]), pd.Series(["good", "bad"], dtype=object, index=[7, 9]),
])  # fmt: skip
def test_texts(rows):
    sample = Sample(Anything(), rows)
    assert (sample.layout, sample.features) == ("text", (Feature("text", "string"),))
    assert sample.data()["text"].tolist() == ["good", "bad"]
    assert [type(text) for text in sample.native] == [str, str]


@pytest.mark.parametrize("rows", [["good", None], ["good", 1.5], pd.Series(["good", None])])
def test_texts_with_a_gap_are_refused(rows):
    with pytest.raises(EstimatorError):
        Sample(Anything(), np.array(rows, object) if isinstance(rows, list) else rows)


class TestFrames:
    def test_numbers_are_a_matrix_with_names_when_the_estimator_answers_the_same(self):
        frame = pd.DataFrame(X, columns=["a", "b", "c"]).assign(c=np.arange(30))
        sample = Sample(LinearRegression().fit(frame, Y), frame)
        assert sample.layout == "matrix"
        assert sample.features == tuple(Feature(name, "float64") for name in "abc")
        assert list(sample.native.columns) == ["a", "b", "c"]
        np.testing.assert_array_equal(sample.data(), frame.to_numpy(float))

    def test_an_estimator_that_was_fitted_on_an_array_gets_one(self):
        sample = Sample(LINEAR, pd.DataFrame(X, columns=["a", "b", "c"]))
        assert sample.layout == "matrix"
        assert isinstance(sample.native, np.ndarray)
        assert [f.name for f in sample.features] == ["a", "b", "c"]

    def test_one_that_looks_at_the_dtype_keeps_its_frame(self):
        class ByDtype(Anything):
            feature_names_in_ = np.array(["n", "v"], dtype=object)

            def predict(self, rows):
                return np.full(len(rows), float(rows["n"].dtype.kind == "i"))

        frame = pd.DataFrame({"n": [1, 2], "v": [0.5, 1.5]})
        sample = Sample(ByDtype(), frame)
        assert sample.layout == "frame"
        assert [f.dtype for f in sample.features] == ["int64", "float64"]
        assert sample.native is frame

    def test_one_that_takes_columns_by_name_and_keeps_no_names(self):
        class ByName:
            def predict(self, rows):
                return rows["v"].to_numpy() * 2

        frame = pd.DataFrame({"n": [1, 2], "v": [0.5, 1.5]})
        sample = Sample(ByName(), frame)
        assert sample.layout == "matrix"
        assert list(sample.native.columns) == ["n", "v"]

    def test_mixed_columns_stay_a_frame(self):
        frame = pd.DataFrame({"city": CITY, "v": X[:, 0]})
        encoder = ColumnTransformer([("city", OneHotEncoder(), ["city"])], remainder="passthrough")
        sample = Sample(make_pipeline(encoder, LinearRegression()).fit(frame, Y), frame)
        assert sample.layout == "frame"
        assert [(f.name, f.dtype) for f in sample.features] == [("city", "string"), ("v", "float64")]

    def test_mixed_columns_for_one_that_was_fitted_on_an_array_are_objects(self):
        frame = pd.DataFrame({"city": CITY, "v": X[:, 0]})
        encoder = ColumnTransformer([("city", OneHotEncoder(), [0])], remainder="passthrough")
        fitted = make_pipeline(encoder, LinearRegression()).fit(frame.to_numpy(object), Y)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            sample = Sample(fitted, frame)
        assert sample.layout == "objects"
        assert [(f.name, f.dtype) for f in sample.features] == [("city", "string"), ("v", "float64")]

    def test_names_that_are_not_strings_become_ones(self):
        sample = Sample(Anything(), pd.DataFrame({0: ["x"], 7: [2]}))
        assert [f.name for f in sample.features] == ["0", "7"]

    @pytest.mark.parametrize(("frame", "message"), [
        (pd.DataFrame([[1.0, 2.0]], columns=["a", "a"]), "two columns have the same name"),
        (pd.DataFrame([[1.0, "x"]], columns=[1, "1"]), "two columns have the same name"),
        (pd.DataFrame({"a": [1.0], "": ["x"]}), "expected one or more columns, each with a name"),
        (pd.DataFrame({"a": pd.Series([], dtype=float), "b": pd.Series([], dtype=object)}), "the sample has no rows"),
        (pd.DataFrame(index=range(3)), "expected one or more columns"),
    ])  # fmt: skip
    def test_what_is_no_sample(self, frame, message):
        with pytest.raises(EstimatorError, match=message):
            Sample(Anything(), frame)

    def test_columns_that_the_estimator_does_not_know(self):
        fitted = LinearRegression().fit(pd.DataFrame(X, columns=["a", "b", "c"]), Y)
        with pytest.raises(EstimatorError, match=r"LinearRegression\.predict fails on the sample: .*feature names"):
            Sample(fitted, pd.DataFrame(X, columns=["a", "b", "d"]))


class TestDtypes:
    def test_a_columns_dtype_can_be_said(self):
        sample = sample_of(pd.Series([1, 2]), dtypes={"a": "float64"})
        assert sample.features[0].dtype == "float64"
        assert sample.data()["a"].dtype == np.float64

    def test_whole_floats_with_gaps_can_be_integers(self):
        sample = sample_of(pd.Series([1.0, np.nan]), dtypes={"a": "int64"})
        assert sample.features[0] == Feature("a", "int64", True)
        np.testing.assert_array_equal(sample.data()["a"], [1.0, np.nan])

    def test_an_unknown_column(self):
        with pytest.raises(EstimatorError, match=r"^dtypes: the sample has no column b, z$"):
            sample_of(pd.Series([1]), dtypes={"z": "int64", "a": "int64", "b": "int64"})

    def test_an_unknown_dtype(self):
        with pytest.raises(EstimatorError, match=r"^dtypes: expected float64, .*, got int32, object$"):
            sample_of(pd.Series([1]), dtypes={"a": "object", "s": "int32"})

    @pytest.mark.parametrize(("column", "dtype"), [
        ([1.5, 2.0], "int64"), ([1, 2], "string"), ([1, 0], "bool"), (["1", "2"], "float64"), ([True, False], "int64"),
        ([True, False], "float64"),
    ])  # fmt: skip
    def test_values_of_another_kind_are_refused(self, column, dtype):
        with pytest.raises(EstimatorError, match=f"^column 'a': expected values of dtype {dtype}, got "):
            sample_of(pd.Series(column), dtypes={"a": dtype}).data()

    @pytest.mark.parametrize("dtype", ["string", "bool"])
    def test_a_matrix_has_numbers_only(self, dtype):
        with pytest.raises(EstimatorError, match=r"^dtypes: the sample has numbers in column x1"):
            Sample(LINEAR, X, dtypes={"x1": dtype, "x0": "float64"})


class TestOutputs:
    @pytest.mark.parametrize(("y", "dtype", "classes"), [
        (["no", "yes"] * 15, "string", ("no", "yes")),
        (np.array(["no", "yes"] * 15, object), "string", ("no", "yes")),
        ([0, 1, 7] * 10, "int64", (0, 1, 7)),
        (np.array([0, 1] * 15, np.uint8), "int64", (0, 1)),
        ([True, False] * 15, "bool", (False, True)),
        ([0.0, 1.0] * 15, "float64", (0.0, 1.0)),
    ])  # fmt: skip
    def test_a_classifiers_labels_and_probabilities(self, y, dtype, classes):
        fitted = DecisionTreeClassifier(max_depth=3).fit(X, y)
        outputs, answers = infer_outputs(fitted, X)
        assert outputs == (
            Output("predict", dtype, (-1,), classes),
            Output("predict_proba", "float64", (-1, len(classes)), classes),
        )
        assert [type(label) for label in outputs[0].classes] == [type(label) for label in classes]
        assert answers["predict"].tolist() == fitted.predict(X).tolist()
        assert answers["predict_proba"].shape == (30, len(classes))

    def test_a_classifier_without_probabilities(self):
        outputs, _ = infer_outputs(LinearSVC().fit(X, Y > 0), X)
        assert outputs == (Output("predict", "bool", (-1,), (False, True)),)

    @pytest.mark.parametrize(("estimator", "y", "expected"), [
        (LinearRegression(), Y, Output("predict", "float64", (-1,))),
        (LinearRegression(), np.column_stack([Y, Y]), Output("predict", "float64", (-1, 2))),
        (LinearRegression(), Y.reshape(-1, 1), Output("predict", "float64", (-1, 1))),
        (IsolationForest(n_estimators=5), None, Output("predict", "int64", (-1,))),
        (KMeans(2, n_init=1), None, Output("predict", "int64", (-1,))),
        (DecisionTreeClassifier(), np.column_stack([Y > 0, Y > 1]).astype(int), Output("predict", "int64", (-1, 2))),
    ])  # fmt: skip
    def test_the_others(self, estimator, y, expected):
        outputs, answers = infer_outputs(estimator.fit(X, y), X)
        assert outputs == (expected,)
        assert answers["predict"].shape == (30, *expected.shape[1:])

    def test_no_predict(self):
        with pytest.raises(EstimatorError, match=r"^expected a fitted estimator with predict, got OneHotEncoder$"):
            infer_outputs(OneHotEncoder().fit(X), X)
        with pytest.raises(EstimatorError, match="got dict"):
            infer_outputs({}, X)

    @pytest.mark.parametrize("rows", [X, pd.DataFrame(X), pd.DataFrame({"a": X[:, 0], "c": CITY})])
    def test_not_fitted(self, rows):
        with pytest.raises(EstimatorError, match=r"LinearRegression\.predict fails on the sample: .*not fitted"):
            infer_outputs(LinearRegression(), Sample(LinearRegression(), rows).native)

    def test_the_wrong_number_of_columns(self):
        with pytest.raises(EstimatorError, match="predict fails on the sample: X has 2 features"):
            infer_outputs(LINEAR, X[:, :2])

    @pytest.mark.parametrize(("answer", "message"), [
        (0.0, r"expected one answer a row, got the shape \(\)"),
        (np.zeros(29), r"got the shape \(29,\)"),
        (np.zeros((30, 2, 2)), r"got the shape \(30, 2, 2\)"),
        (np.array([None] * 30), "expected numbers, booleans or strings, got NoneType"),
        (np.array(["x", 1] * 15, object), "expected numbers, booleans or strings, got int, str"),
        (np.zeros(30, "datetime64[s]"), "expected numbers, booleans or strings"),
    ])  # fmt: skip
    def test_an_answer_that_no_signature_can_express(self, answer, message):
        estimator = Anything()
        estimator.predict = lambda rows: answer
        with pytest.raises(EstimatorError, match=message):
            infer_outputs(estimator, X)

    def test_probabilities_that_fail(self):
        fitted = DummyClassifier().fit(X, Y > 0)

        def failing(rows):
            raise NotImplementedError("not yet")

        fitted.predict_proba = failing
        with pytest.raises(EstimatorError, match=r"DummyClassifier\.predict_proba fails on the sample: not yet"):
            infer_outputs(fitted, X)

    def test_probabilities_of_another_shape_are_left_out(self):
        fitted = DummyClassifier().fit(X, Y > 0)
        fitted.predict_proba = lambda rows: np.zeros((len(rows), 5))
        assert [output.name for output in infer_outputs(fitted, X)[0]] == ["predict"]

    def test_texts_go_through(self):
        fitted = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(["good day", "bad day"], ["+", "-"])
        sample = Sample(fitted, ["good", "bad", "day"])
        outputs, answers = infer_outputs(fitted, sample.native)
        assert outputs[0].classes == ("+", "-")
        assert answers["predict"].tolist() == ["+", "-", fitted.predict(["day"])[0]]

    def test_a_regressor_that_does_not_look_at_its_rows(self):
        outputs, answers = infer_outputs(DummyRegressor().fit(X, Y), X)
        assert outputs == (Output("predict", "float64", (-1,)),)
        assert len(set(answers["predict"])) == 1
