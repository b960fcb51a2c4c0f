"""Folding a scaler into the linear layer behind it."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor

onnx = pytest.importorskip("onnx")

from muelle.bundle.fold import fold_scaling  # noqa: E402  # behind the check that onnx is there

RNG = np.random.default_rng(0)
X = RNG.normal(loc=50, scale=7, size=(80, 5))
Y = X @ [1.0, -2.0, 0.5, 3.0, 0.1] + 4
CLASSES = np.digitize(Y, np.quantile(Y, [0.3, 0.6]))


def graph_of(estimator):
    import skl2onnx
    from skl2onnx.common.data_types import DoubleTensorType

    options = {"zipmap": False} if hasattr(estimator, "predict_proba") else None
    return skl2onnx.to_onnx(estimator, initial_types=[("rows", DoubleTensorType([None, 5]))], options=options)


def run(model):
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"rows": X})[-1]


def operators(model):
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize(
    "scaler",
    [StandardScaler(), StandardScaler(with_mean=False), StandardScaler(with_std=False)],
    ids=["mean and deviation", "deviation", "mean"],
)
def test_the_folded_graph_answers_the_same_without_the_scaler(scaler):
    model = graph_of(make_pipeline(scaler, LogisticRegression(max_iter=2000)).fit(X, CLASSES))
    expected = run(model)
    folded = fold_scaling(model)
    assert folded is not None
    onnx.checker.check_model(folded)
    assert operators(folded)[:2] == ["MatMul", "Add"]
    np.testing.assert_allclose(run(folded), expected, rtol=1e-9)
    used = {name for node in folded.graph.node for name in node.input}
    assert {item.name for item in folded.graph.initializer} <= used


@pytest.mark.parametrize(
    "estimator",
    [LinearRegression(), make_pipeline(StandardScaler(), DecisionTreeRegressor(max_depth=2))],
    ids=["no scaler", "no linear layer"],
)
def test_what_has_no_such_form_is_left_alone(estimator):
    model = graph_of(estimator.fit(X, Y))
    before = model.SerializeToString()
    assert fold_scaling(model) is None
    assert model.SerializeToString() == before


def test_a_bundle_holds_the_folded_graph_where_it_agrees(tmp_path):
    from muelle.bundle import open_bundle, save

    estimator = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(X, Y.mean() < Y)
    bundle = open_bundle(save(estimator, X, name="folded", repository=tmp_path))
    assert bundle.manifest.onnx.kept
    assert bundle.manifest.onnx.label_agreement == 1.0
    assert operators(onnx.load_from_string(bundle.read("model.onnx")))[:2] == ["MatMul", "Add"]


def test_two_readers_of_the_scaled_rows_keep_the_scaler():
    model = graph_of(make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(X, CLASSES))
    scaled = next(node for node in model.graph.node if node.op_type == "MatMul").input[0]
    model.graph.node.append(onnx.helper.make_node("Identity", [scaled], ["scaled_rows"]))
    assert fold_scaling(model) is None
