"""The three examples from data to bundle, as the mission's first rows want them."""

import pytest

from muelle.bundle import open_bundle
from muelle.errors import BundleExistsError
from muelle.inference import Predictor
from training.pipelines import recipes
from training.publish import publish


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    repository = tmp_path_factory.mktemp("models")
    return {name: publish(recipe, repository=repository) for name, recipe in recipes().items()}


def test_there_are_the_three_examples(published):
    assert list(published) == ["linear", "breast-cancer", "iris"]
    assert [path.name for path in published.values()] == ["1", "1", "1"]


@pytest.mark.parametrize("name", ["linear", "breast-cancer", "iris"])
def test_the_manifest_tells_where_the_model_comes_from(published, name):
    manifest = open_bundle(published[name]).manifest
    data = recipes()[name].data()
    assert manifest.name == name
    assert manifest.data_digest == data.digest()
    assert manifest.signature.names == tuple(data.features.columns)
    assert manifest.parameters["seed"] == 42
    assert manifest.parameters["train_rows"] + manifest.parameters["test_rows"] == len(data.features)
    assert "scikit-learn" in manifest.libraries


@pytest.mark.parametrize(("name", "rows"), [("linear", 6), ("breast-cancer", 114), ("iris", 30)])
def test_onnx_agrees_on_the_rows_held_out(published, name, rows):
    report = open_bundle(published[name]).manifest.onnx
    assert report.kept, report.reason
    assert report.rows == rows
    assert report.max_error is not None
    assert report.max_error <= 1e-6
    assert report.label_agreement == (None if name == "linear" else 1.0)


@pytest.mark.parametrize("name", ["linear", "breast-cancer", "iris"])
def test_the_reference_profile_is_of_the_training_rows(published, name):
    bundle = open_bundle(published[name])
    assert bundle.profile.rows == bundle.manifest.parameters["train_rows"]


@pytest.mark.parametrize("engine", ["onnx", "joblib"])
def test_row_1_linear_regression_answers_12(published, engine):
    assert Predictor.load(published["linear"], engine=engine).predict([[6]]).tolist() == [12.0]


@pytest.mark.parametrize("engine", ["onnx", "joblib"])
def test_row_2_breast_cancer_answers_like_the_estimator_does(published, engine):
    predictor = Predictor.load(published["breast-cancer"], engine=engine)
    data = recipes()["breast-cancer"].data()
    predicted = predictor.predict(data.features)
    assert (predicted == data.target).mean() > 0.97
    assert open_bundle(published["breast-cancer"]).manifest.scores["accuracy"] > 0.95


@pytest.mark.parametrize("engine", ["onnx", "joblib"])
def test_row_3_iris_answers_0(published, engine):
    assert Predictor.load(published["iris"], engine=engine).predict([[5.1, 3.5, 1.4, 0.2]]).tolist() == [0]


def test_training_again_gives_the_same_model(published, tmp_path):
    again = open_bundle(publish(recipes()["iris"], repository=tmp_path))
    first = open_bundle(published["iris"])
    assert again.manifest.scores == first.manifest.scores
    assert again.manifest.files["golden.json"] == first.manifest.files["golden.json"]
    assert again.manifest.files["model.onnx"] == first.manifest.files["model.onnx"]


def test_a_version_is_never_overwritten(tmp_path):
    recipe = recipes()["linear"]
    assert publish(recipe, repository=tmp_path, version="2024.1", onnx=False).name == "2024.1"
    with pytest.raises(BundleExistsError, match=r"2024\.1 exists"):
        publish(recipe, repository=tmp_path, version="2024.1", onnx=False)
    assert open_bundle(tmp_path / "linear" / "2024.1").manifest.engines == ("joblib",)
