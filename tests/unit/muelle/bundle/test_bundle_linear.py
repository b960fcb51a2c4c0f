"""Labels of linear classifiers without ONNX Runtime: the same as the estimator's, and proved like the graph's."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

onnx = pytest.importorskip("onnx")

from muelle.bundle import open_bundle, save  # noqa: E402  # behind the check that onnx is there
from muelle.bundle.engines import OnnxEngine  # noqa: E402
from muelle.bundle.golden import check_golden  # noqa: E402
from muelle.bundle.linear import KEY, LinearLabels, note_linear_labels  # noqa: E402
from muelle.bundle.signature import Output  # noqa: E402
from muelle.errors import EngineError, GoldenMismatchError  # noqa: E402

RNG = np.random.default_rng(0)
X = RNG.normal(loc=5, scale=3, size=(200, 4))
Y = X @ [1.0, -2.0, 0.5, 3.0]
MANY = RNG.normal(loc=5, scale=3, size=(40_000, 4))
TWO = np.median(Y) < Y
THREE = np.digitize(Y, np.quantile(Y, [0.3, 0.6]))


def graph_of(estimator, kind="DoubleTensorType"):
    import skl2onnx
    from skl2onnx.common import data_types

    types = [("rows", getattr(data_types, kind)([None, 4]))]
    options = {"zipmap": False} if hasattr(estimator, "predict_proba") else None
    return skl2onnx.to_onnx(estimator, initial_types=types, options=options)


def notes(model):
    return {item.key: item.value for item in model.metadata_props}


def output(classes, dtype="int64"):
    return Output(name="predict", dtype=dtype, shape=(-1,), classes=classes)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, THREE)
    return open_bundle(save(estimator, X, name="linear", repository=tmp_path_factory.mktemp("repository")))


@pytest.mark.parametrize(
    "labels",
    [TWO, THREE, THREE * 10 - 7, np.array(["low", "middle", "high"])[THREE]],
    ids=["bool", "int", "other integers", "str"],
)
@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "scaled"])
def test_labels_are_the_estimators_own(tmp_path, labels, scaled):
    estimator = LogisticRegression(max_iter=1000)
    estimator = (make_pipeline(StandardScaler(), estimator) if scaled else estimator).fit(X, labels)
    made = open_bundle(save(estimator, X, name="linear", repository=tmp_path))
    model = made.read("model.onnx")
    assert KEY in notes(onnx.load_from_string(model))
    engine = OnnxEngine(model, made.manifest.signature)
    for rows in (MANY, MANY[:1]):
        alone = engine.run(rows, ("predict",))
        both = engine.run(rows, ("predict", "predict_proba"))
        assert alone.keys() == {"predict"}
        assert both.keys() == {"predict", "predict_proba"}
        assert alone["predict"].tolist() == both["predict"].tolist() == estimator.predict(rows).tolist()
        assert alone["predict"].dtype == both["predict"].dtype
        np.testing.assert_allclose(both["predict_proba"], estimator.predict_proba(rows), atol=1e-9)


def test_of_equal_scores_the_first_counts_as_with_the_estimator():
    estimator = LogisticRegression().fit(X, TWO)
    estimator.coef_[:], estimator.intercept_[:] = 0, 0
    model = graph_of(estimator)
    assert note_linear_labels(model, 2)
    labels = LinearLabels.read(notes(model)[KEY], 4, output((False, True), "bool"))
    assert labels(X).tolist() == estimator.predict(X).tolist() == [False] * len(X)


def test_rows_are_taken_in_parts_and_none_is_lost():
    weights = RNG.normal(size=(3, 2_000))
    labels = LinearLabels(weights, np.zeros(2_000), np.arange(2_000))
    rows = RNG.normal(size=(101, 3))
    assert labels(rows).tolist() == (rows @ weights).argmax(axis=1).tolist()


def test_rows_that_add_up_to_more_than_a_float_holds_raise_no_warning():
    labels = LinearLabels(np.array([[-2.0, 2.0], [-2.0, 2.0]]), np.zeros(2), np.array([0, 1]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert labels(np.array([[1e308, 1e308], [-1e308, -1e308]])).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("estimator", "labels", "kind"),
    [
        (LinearRegression(), Y, "DoubleTensorType"),
        (DecisionTreeClassifier(max_depth=2), THREE, "DoubleTensorType"),
        (GaussianNB(), THREE, "DoubleTensorType"),
        (LogisticRegression(), THREE, "FloatTensorType"),
    ],
    ids=["values", "tree", "not linear", "float32"],
)
def test_what_is_not_the_largest_of_linear_scores_is_left_alone(estimator, labels, kind):
    model = graph_of(estimator.fit(X, labels), kind)
    before = model.SerializeToString()
    assert not note_linear_labels(model, 3)
    assert model.SerializeToString() == before


def test_a_matrix_too_large_for_the_gain_is_left_alone():
    rows = RNG.normal(size=(60, 3_000))
    estimator = LogisticRegression(max_iter=5).fit(rows, np.arange(60) % 3)
    import skl2onnx
    from skl2onnx.common.data_types import DoubleTensorType

    model = skl2onnx.to_onnx(
        estimator, initial_types=[("rows", DoubleTensorType([None, 3_000]))], options={"zipmap": False}
    )
    assert not note_linear_labels(model, 3)


def test_other_classes_than_scores_are_left_alone():
    assert not note_linear_labels(graph_of(LogisticRegression().fit(X, THREE)), 2)


@pytest.mark.parametrize("attribute", [("axis", 0), ("select_last_index", 1)])
def test_another_choice_is_left_alone(attribute):
    model = graph_of(LogisticRegression().fit(X, THREE))
    choice = next(node for node in model.graph.node if node.op_type == "ArgMax")
    kept = [item for item in choice.attribute if item.name != attribute[0]]
    del choice.attribute[:]
    choice.attribute.extend([*kept, onnx.helper.make_attribute(*attribute)])
    assert not note_linear_labels(model, 3)


def test_a_note_that_says_something_else_than_the_golden_rows_is_found_at_loading(bundle):
    model = onnx.load_from_string(bundle.read("model.onnx"))
    note = json.loads(notes(model)[KEY])
    note["weights"] = (-np.asarray(note["weights"])).tolist()
    onnx.helper.set_model_props(model, {KEY: json.dumps(note)})
    signature = bundle.manifest.signature
    with pytest.raises(GoldenMismatchError, match="golden output predict"):
        check_golden(signature, bundle.golden, OnnxEngine(model.SerializeToString(), signature))


@pytest.mark.parametrize(
    "note",
    ["", "[]", "{}", '{"weights": [["a"]], "offset": [0]}', '{"weights": [[1], [2, 3]], "offset": [0]}'],
)
def test_a_note_of_another_form_is_refused(note):
    with pytest.raises(EngineError, match=r"model\.onnx: muelle\.linear_labels: expected weights and an offset"):
        LinearLabels.read(note, 1, output((0,)))


@pytest.mark.parametrize(
    ("width", "classes"), [(3, (0, 1)), (2, (0, 1, 2)), (2, None)], ids=["features", "classes", "no classes"]
)
def test_a_note_that_does_not_fit_is_refused(width, classes):
    note = json.dumps({"weights": [[1, 2], [3, 4]], "offset": [0, 0]})
    with pytest.raises(EngineError, match="expected the shape"):
        LinearLabels.read(note, width, output(classes))
