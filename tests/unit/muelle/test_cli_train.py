"""``muelle train`` and ``muelle list``."""

import json

import pytest

from muelle.bundle import open_bundle


def test_train_writes_what_it_says(muelle, tmp_path):
    result = muelle("train", "iris", "--repository", tmp_path / "models", "--output", "json")
    assert result.exit_code == 0
    (facts,) = json.loads(result.stdout)
    assert result.stderr == ""
    manifest = open_bundle(facts["path"]).manifest
    assert (facts["name"], facts["version"]) == ("iris", "1") == (manifest.name, manifest.version)
    assert facts["engines"] == ["onnx", "joblib"]
    assert facts["onnx"]["kept"] is True
    assert facts["scores"] == manifest.scores
    assert facts["data_digest"].startswith("sha256:")


def test_the_table_has_scores_engines_agreement_and_path(muelle, tmp_path):
    result = muelle("train", "linear", "--repository", tmp_path, "--version", "7")
    assert result.exit_code == 0
    for text in ("linear", "7", "r2 1", "cv_r2_mean 1", "onnx, joblib", "agrees", str(tmp_path / "linear" / "7")):
        assert text in result.stdout


def test_no_onnx(muelle, tmp_path):
    result = muelle("train", "linear", "--repository", tmp_path, "--no-onnx", "--output", "json")
    (facts,) = json.loads(result.stdout)
    assert facts["engines"] == ["joblib"]
    assert facts["onnx"]["reason"] == "not asked for"


def test_an_existing_version_is_refused_in_one_line(muelle, tmp_path):
    assert muelle("train", "linear", "--repository", tmp_path, "--version", "1").exit_code == 0
    result = muelle("train", "linear", "--repository", tmp_path, "--version", "1")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "a version is never overwritten" in result.stderr


@pytest.mark.parametrize("version", ["../2", "a b", ".x", ""])
def test_a_version_that_is_no_name_is_refused(muelle, tmp_path, version):
    result = muelle("train", "linear", "--repository", tmp_path / "models", f"--version={version}")
    assert result.exit_code == 1
    assert "version: expected 1 to 63 letters" in result.stderr
    assert not (tmp_path / "models").exists()


def test_an_unknown_example_is_wrong_usage(muelle):
    result = muelle("train", "titanic")
    assert result.exit_code == 2
    assert "'linear', 'breast-cancer', 'iris', 'all'" in result.stderr


def test_list(muelle, repository):
    result = muelle("list", "--repository", repository, "--output", "json")
    found = json.loads(result.stdout)
    assert [(model["name"], model["version"], model["problem"]) for model in found] == [
        ("breast-cancer", "1", None),
        ("iris", "1", None),
        ("linear", "1", None),
    ]
    assert found[1]["estimator"] == "RandomForestClassifier"
    table = muelle("list", "--repository", repository).stdout
    assert "Pipeline(StandardScaler, LogisticRegression)" in table


def test_list_takes_the_repository_from_the_servers_variable(muelle, repository):
    # As the image has it: the first folder that exists.
    result = muelle("list", "--output", "json", env={"MUELLE_MODELS": f"/nowhere:{repository}"})
    assert len(json.loads(result.stdout)) == 3


def test_list_shows_what_is_broken(muelle, repository, tmp_path):
    (tmp_path / "iris" / "2").mkdir(parents=True)
    (tmp_path / "iris" / "10").symlink_to(repository / "iris" / "1")
    (tmp_path / "iris" / ".tmp-3").mkdir()
    found = json.loads(muelle("list", "--repository", tmp_path, "--output", "json").stdout)
    assert [model["version"] for model in found] == ["2", "10"]
    assert found[0]["problem"] == "manifest.json: missing from the bundle"
    assert found[1]["problem"] == "its manifest says it is iris 1"
    assert "missing from the bundle" in muelle("list", "--repository", tmp_path).stdout


def test_list_without_a_repository(muelle, tmp_path):
    result = muelle("list", "--repository", tmp_path / "nothing")
    assert result.exit_code == 1
    assert result.stderr.endswith("nothing: no such folder of models\n")
