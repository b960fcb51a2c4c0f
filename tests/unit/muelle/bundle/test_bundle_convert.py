"""The ONNX variant: kept when it agrees, refused when it does not, and what was measured is reported."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler

from muelle.bundle.convert import TOLERANCE, convert
from muelle.bundle.engines import OnnxEngine
from muelle.bundle.infer import Sample, infer_outputs, make_signature

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
Y = X @ [1.0, 2.0, 3.0] + 1
LABELS = np.where(Y > 2, "high", np.where(Y > 0, "middle", "low"))
FRAME = pd.DataFrame(
    {"unused": RNG.normal(size=40), "count": np.arange(40), "v": X[:, 0], "city": np.where(X[:, 1] > 0, "Vigo", "Lugo")}
)


def inferred(estimator, rows):
    sample = Sample(estimator, rows)
    outputs, answers = infer_outputs(estimator, sample.native)
    return make_signature(sample, outputs), sample.data(), answers


def converted(estimator, rows):
    signature, data, answers = inferred(estimator, rows)
    model, report = convert(estimator, signature, data, answers)
    assert (model is not None) == report.kept
    return model, report


def encoding(handle_unknown: str, encoder=OneHotEncoder):
    options = {"unknown_value": -1} if handle_unknown == "use_encoded_value" else {}
    return ColumnTransformer(
        [("city", encoder(handle_unknown=handle_unknown, **options), ["city"]), ("n", StandardScaler(), ["count", "v"])]
    )


class TestKept:
    def test_values(self):
        model, report = converted(LinearRegression().fit(X, Y), X)
        assert isinstance(model, bytes)
        assert (report.rows, report.label_agreement, report.input_dtype) == (40, None, "float64")
        assert report.max_error <= TOLERANCE
        assert report.opset >= 15
        assert report.reason.startswith("agrees with the estimator on 40 rows: largest error ")

    def test_labels_and_probabilities(self):
        _, report = converted(LogisticRegression().fit(X, LABELS), X)
        assert (report.kept, report.label_agreement, report.input_dtype) == (True, 1.0, "float64")
        assert report.max_error <= TOLERANCE
        assert "labels agree on 100.00%, largest error" in report.reason

    def test_several_labels_a_row(self):
        targets = np.column_stack([Y > 0, Y > 2]).astype(int)
        _, report = converted(RandomForestClassifier(3, max_depth=3, random_state=0).fit(X, targets), X)
        assert (report.kept, report.label_agreement, report.max_error) == (True, 1.0, None)

    def test_float32_rows(self):
        rows = X.astype(np.float32)
        _, report = converted(LinearRegression().fit(rows, Y), rows)
        assert report.input_dtype == "float32"

    def test_a_frame_with_strings_and_a_column_that_nobody_uses(self):
        model, report = converted(make_pipeline(encoding("ignore"), LogisticRegression()).fit(FRAME, LABELS), FRAME)
        assert (report.kept, report.input_dtype) == (True, "columns")
        assert model is not None

    def test_booleans_in_a_frame(self):
        frame = FRAME[["v"]].assign(member=FRAME["city"] == "Vigo")
        both = ColumnTransformer([("n", StandardScaler(), ["v"]), ("b", "passthrough", ["member"])])
        estimator = make_pipeline(both, LinearRegression()).fit(frame, Y)
        signature, data, answers = inferred(estimator, frame)
        model, report = convert(estimator, signature, data, answers)
        assert (report.kept, report.input_dtype) == (True, "columns")
        got = OnnxEngine(model, signature).run(data, ["predict"])["predict"]
        np.testing.assert_allclose(got, answers["predict"], rtol=1e-6)


class TestRefused:
    def test_values_that_differ(self):
        estimator = LinearRegression().fit(X, Y)
        signature, data, answers = inferred(estimator, X)
        wrong = {"predict": answers["predict"] * (1 + 3e-6)}
        model, report = convert(estimator, signature, data, wrong)
        assert model is None
        assert not report.kept
        assert report.max_error == pytest.approx(3e-6, rel=0.2)  # the float32 graph, tried last, adds its own
        assert report.reason.startswith("does not agree with the estimator on 40 rows: largest error 3")

    def test_one_label_that_differs_is_enough(self):
        estimator = LogisticRegression().fit(X, LABELS)
        signature, data, answers = inferred(estimator, X)
        labels = answers["predict"].copy()
        labels[7] = "low" if labels[7] != "low" else "high"
        model, report = convert(estimator, signature, data, {**answers, "predict": labels})
        assert model is None
        assert report.label_agreement == pytest.approx(39 / 40)
        assert "labels agree on 97.50%" in report.reason

    def test_probabilities_that_differ(self):
        estimator = LogisticRegression().fit(X, LABELS)
        signature, data, answers = inferred(estimator, X)
        model, report = convert(
            estimator, signature, data, {**answers, "predict_proba": answers["predict_proba"] + 2e-6}
        )
        assert (model, report.kept, report.label_agreement) == (None, False, 1.0)

    def test_answers_that_are_no_numbers_are_reported_without_a_number(self):
        estimator = LinearRegression().fit(X, Y)
        signature, data, _ = inferred(estimator, X)
        model, report = convert(estimator, signature, data, {"predict": np.full(40, np.nan)})
        assert (model, report.kept, report.max_error) == (None, False, None)
        assert "largest error inf" in report.reason

    def test_a_tree_behind_a_scaler_whose_thresholds_float32_can_not_see(self):
        rows = (1e8 + np.arange(60.0)).reshape(-1, 1)
        scaled = make_pipeline(StandardScaler(with_std=False), RandomForestRegressor(3, random_state=0))
        signature, data, answers = inferred(scaled.fit(rows, np.arange(60.0) ** 2), rows)
        model, report = convert(scaled, signature, data, answers)
        if model is None:
            assert not report.kept
            assert report.rows == 60
            assert report.max_error is None or report.max_error > TOLERANCE
        else:  # a converter that learnt it must be right
            got = OnnxEngine(model, signature).run(data, ["predict"])["predict"]
            np.testing.assert_allclose(got, answers["predict"], rtol=2e-6, atol=1e-3)

    def test_what_the_converter_does_not_know(self):
        model, report = converted(make_pipeline(FunctionTransformer(np.exp), LinearRegression()).fit(X, Y), X)
        assert model is None
        assert report.rows == 0
        assert report.reason.startswith("can't be converted: ")
        assert "\n" not in report.reason
        assert len(report.reason) < 230


class TestNeverTried:
    def test_texts(self):
        texts = ["good day", "bad day"] * 3
        _, report = converted(make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0] * 3), texts)
        assert report.reason == "rows of text or of mixed objects are served by the estimator itself"

    def test_objects(self):
        rows = FRAME[["city", "v"]].to_numpy(object)
        encoder = ColumnTransformer([("c", OneHotEncoder(handle_unknown="ignore"), [0])], remainder="passthrough")
        _, report = converted(make_pipeline(encoder, LinearRegression()).fit(rows, Y), rows)
        assert report.reason == "rows of text or of mixed objects are served by the estimator itself"

    def test_declared_categories(self):
        frame = FRAME.assign(city=FRAME["city"].astype("category"))
        _, report = converted(make_pipeline(encoding("ignore"), LinearRegression()).fit(frame, Y), frame)
        assert report.reason == "categorical columns are served by the estimator itself"

    def test_missing_booleans(self):
        frame = FRAME[["v"]].assign(member=pd.Series([True, None] * 20, dtype=object))
        picked = ColumnTransformer([("n", StandardScaler(), ["v"])])
        _, report = converted(make_pipeline(picked, LinearRegression()).fit(frame, Y), frame)
        assert "missing booleans" in report.reason

    @pytest.mark.parametrize("wrap", [
        lambda transformer: transformer,
        lambda transformer: make_pipeline(transformer, StandardScaler(with_mean=False)),
        lambda transformer: FeatureUnion([("one", transformer)]),
        lambda transformer: make_pipeline(make_pipeline(make_pipeline(FeatureUnion([("one", transformer)])))),
    ])  # fmt: skip
    @pytest.mark.parametrize("encoder", [OneHotEncoder, OrdinalEncoder])
    def test_encoders_that_refuse_what_they_never_saw(self, wrap, encoder):
        estimator = make_pipeline(wrap(encoding("error", encoder)), LinearRegression()).fit(FRAME, Y)
        _, report = converted(estimator, FRAME)
        assert report.reason.startswith("an encoder with handle_unknown='error' refuses unseen categories")

    def test_without_the_converter(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "skl2onnx", None)
        model, report = converted(LinearRegression().fit(X, Y), X)
        assert (model, report.reason) == (None, "skl2onnx is not installed")
