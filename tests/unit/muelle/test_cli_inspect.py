"""``muelle inspect``: tells all, executes nothing."""

import json
import os
import shutil

import pytest


@pytest.fixture
def copy(repository, tmp_path):
    """A bundle to damage."""
    return shutil.copytree(repository / "iris" / "1", tmp_path / "iris" / "1")


def inspected(muelle, *arguments):
    result = muelle("inspect", *arguments, "--output", "json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("reference", ["iris", "iris@1"])
def test_a_bundle_by_name(muelle, repository, reference):
    found = inspected(muelle, reference, "--repository", repository)
    assert found["kind"] == "bundle"
    assert found["manifest"]["name"] == "iris"
    assert found["manifest"]["signature"]["inputs"][0]["name"] == "sepal length (cm)"
    assert found["problems"] == []
    assert {file["state"] for file in found["files"]} == {"ok"}
    assert len(found["files"]) == 6


@pytest.mark.parametrize("path", ["iris/1", "iris", "iris/1/manifest.json"])
def test_a_bundle_by_path(muelle, repository, path):
    assert inspected(muelle, repository / path)["manifest"]["version"] == "1"


def test_a_models_path_means_its_newest_version(muelle, copy):
    for version in ("2", "10"):
        shutil.copytree(copy, copy.parent / version)
    assert inspected(muelle, copy.parent)["path"].endswith("iris/10")


def test_globals_and_graph_are_listed(muelle, repository):
    files = {file["name"]: file for file in inspected(muelle, repository / "iris/1")["files"]}
    names = {entry["name"]: entry["allowed"] for entry in files["model.joblib"]["globals"]}
    assert names["sklearn.ensemble._forest.RandomForestClassifier"] is True
    assert all(names.values())
    graph = files["model.onnx"]["graph"]
    assert graph["operators"] == {"ai.onnx.ml.TreeEnsembleClassifier": 1}
    assert graph["inputs"][0]["shape"] == [-1, 4]


def test_the_table_says_the_same(muelle, repository):
    out = muelle("inspect", repository / "breast-cancer/1").stdout
    for text in ("breast-cancer 1", "mean radius", "predict_proba", "score accuracy", "model.joblib", "REFUSED"):
        assert (text in out) is (text != "REFUSED")
    assert "globals it would import" in out


def test_an_evil_pickle_is_shown_not_run(muelle, brought):
    found = inspected(muelle, brought / "evil.pkl")
    assert found["kind"] == "file"
    assert found["globals"] == [{"name": "posix.system", "allowed": False}]
    assert "REFUSED" in muelle("inspect", brought / "evil.pkl").stdout
    assert not (brought / "marker").exists()


def test_a_module_that_is_allowed_counts_as_allowed(muelle, brought):
    assert inspected(muelle, brought / "evil.pkl", "--allow-module", "posix")["globals"][0]["allowed"] is True
    assert not (brought / "marker").exists()


def test_bare_files(muelle, brought, repository, tmp_path):
    assert inspected(muelle, brought / "compressed.joblib")["format"] == "pickle"
    onnx = inspected(muelle, repository / "linear/1/model.onnx")
    assert (onnx["format"], onnx["problem"]) == ("onnx", None)
    skops = pytest.importorskip("skops.io")
    skops.dump({"a": 1}, tmp_path / "a.skops")
    assert inspected(muelle, tmp_path / "a.skops")["globals"] == []


@pytest.mark.parametrize("name", ["a.onnx", "a.joblib", "a.skops"])
def test_bare_files_that_are_none(muelle, tmp_path, name):
    (tmp_path / name).write_bytes(b"no model")
    assert inspected(muelle, tmp_path / name)["problem"]
    assert "problem" in muelle("inspect", tmp_path / name).stdout


def test_a_flipped_byte(muelle, copy):
    data = bytearray((copy / "model.joblib").read_bytes())
    data[-20] ^= 1
    (copy / "model.joblib").write_bytes(data)
    found = inspected(muelle, copy)
    assert [file["name"] for file in found["files"] if file["state"] == "altered"] == ["model.joblib"]
    assert any("model.joblib" in problem and "altered" in problem for problem in found["problems"])


def test_missing_extra_and_linked_files(muelle, copy):
    (copy / "golden.json").unlink()
    (copy / "extra.pkl").write_bytes(b"\x80\x04N.")
    (copy / "profile.json").unlink()
    (copy / "profile.json").symlink_to("/etc/passwd")
    os.mkfifo(copy / "pipe.joblib")
    states = {file["name"]: file["state"] for file in inspected(muelle, copy)["files"]}
    assert states["golden.json"] == "missing"
    assert states["extra.pkl"] == "extra"
    assert states["profile.json"] == "unreadable"
    out = muelle("inspect", copy).stdout
    for text in (
        "golden.json: missing",
        "extra.pkl: not in the manifest",
        "profile.json: can't be read: not a plain file",
    ):
        assert text in out


@pytest.mark.parametrize("manifest", [None, "{", '{"format_version": 99}', "[]"])
def test_a_manifest_that_is_none(muelle, copy, manifest):
    (copy / "manifest.json").unlink()
    if manifest is not None:
        (copy / "manifest.json").write_text(manifest)
    found = inspected(muelle, copy)
    assert found["manifest"] is None
    assert len(found["problems"]) == 1
    assert len([file for file in found["files"] if file.get("globals")]) == 1
    assert "can't be read" in muelle("inspect", copy).stdout


def test_a_name_cannot_steer_the_terminal(muelle, copy):
    (copy / "\x1b[2J.pkl").write_bytes(b"\x80\x04N.")
    assert "\x1b" not in muelle("inspect", copy).stdout


@pytest.mark.parametrize("reference", ["./nothing", "nothing"])
def test_nothing_there(muelle, repository, reference):
    result = muelle("inspect", reference, "--repository", repository)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "nothing" in result.stderr


def test_a_file_of_another_kind(muelle, brought):
    result = muelle("inspect", brought / "iris.csv")
    assert result.exit_code == 1
    assert "a file that ends in .joblib, .pkl, .pickle, .skops, .onnx" in result.stderr
