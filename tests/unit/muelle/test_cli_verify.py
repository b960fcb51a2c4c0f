"""``muelle verify``: fine bundles pass, every kind of damage fails with exit code 1."""

import dataclasses
import json
import pickle
import shutil

import pytest

from muelle.bundle.files import sha256
from muelle.bundle.manifest import FileEntry, Manifest


@pytest.fixture
def copy(repository, tmp_path):
    """A bundle to damage."""
    return shutil.copytree(repository / "linear" / "1", tmp_path / "linear" / "1")


def rewrite(folder, file=None, data=b"", **changes):
    """Change the manifest, and a file with its digest: what somebody with write access could do."""
    manifest = Manifest.from_bytes((folder / "manifest.json").read_bytes())
    if file is not None:
        (folder / file).write_bytes(data)
        changes["files"] = {**manifest.files, file: FileEntry(sha256(data), len(data))}
    (folder / "manifest.json").write_bytes(dataclasses.replace(manifest, **changes).to_bytes())


def failures(muelle, *arguments):
    result = muelle("verify", *arguments, "--output", "json")
    document = json.loads(result.stdout)
    assert result.exit_code == (0 if document["ok"] else 1)
    return [(check["check"], check["engine"], check["detail"]) for check in document["checks"] if not check["ok"]]


@pytest.mark.parametrize("name", ["linear", "breast-cancer", "iris@1"])
def test_the_examples_are_fine(muelle, repository, name):
    result = muelle("verify", name, "--repository", repository)
    assert result.exit_code == 0
    assert "fine" in result.stdout
    assert "FAILED" not in result.stdout
    assert failures(muelle, name, "--repository", repository) == []


def test_each_engine_is_checked(muelle, repository):
    document = json.loads(muelle("verify", repository / "iris/1", "--output", "json").stdout)
    assert [(check["check"], check["engine"]) for check in document["checks"]] == [
        ("manifest", None),
        ("digests", None),
        ("profile", None),
        ("golden rows", None),
        ("libraries", "onnx"),
        ("loading", "onnx"),
        ("golden outputs", "onnx"),
        ("libraries", "joblib"),
        ("loading", "joblib"),
        ("golden outputs", "joblib"),
    ]


def test_one_engine_only(muelle, repository):
    document = json.loads(muelle("verify", repository / "iris/1", "--engine", "onnx", "--output", "json").stdout)
    assert {check["engine"] for check in document["checks"]} == {None, "onnx"}
    assert failures(muelle, repository / "iris/1", "--engine", "skops") == [
        ("in the bundle", "skops", "the bundle has onnx, joblib")
    ]


def test_a_flipped_byte(muelle, copy):
    data = bytearray((copy / "model.onnx").read_bytes())
    data[100] ^= 1
    (copy / "model.onnx").write_bytes(data)
    ((check, engine, detail),) = failures(muelle, copy)
    assert (check, engine) == ("digests", None)
    assert "model.onnx" in detail
    assert "NOT FINE" in muelle("verify", copy).stdout


def test_a_missing_and_an_extra_file(muelle, copy):
    (copy / "extra").touch()
    assert failures(muelle, copy) == [("digests", None, "extra: not in the manifest")]
    (copy / "golden.json").unlink()
    assert failures(muelle, copy) == [("digests", None, "golden.json: missing from the bundle")]


def test_a_broken_manifest(muelle, copy):
    (copy / "manifest.json").write_text('{"format_version": 99}')
    ((check, _, detail),) = failures(muelle, copy)
    assert check == "manifest"
    assert "upgrade Muelle" in detail


def test_a_broken_profile(muelle, copy):
    rewrite(copy, "profile.json", b"{}")
    assert [check for check, _, _ in failures(muelle, copy)] == ["profile"]


def test_other_libraries_concern_the_pickle_only(muelle, copy):
    libraries = Manifest.from_bytes((copy / "manifest.json").read_bytes()).libraries
    rewrite(copy, libraries={**libraries, "scikit-learn": "0.24.2"})
    ((check, engine, detail),) = failures(muelle, copy)
    assert (check, engine) == ("libraries", "joblib")
    assert "made with scikit-learn 0.24.2" in detail
    assert failures(muelle, copy, "--engine", "onnx") == []


def test_golden_outputs_that_are_not_reproduced(muelle, copy):
    golden = json.loads((copy / "golden.json").read_bytes())
    golden["outputs"]["predict"][0] += 0.5
    rewrite(copy, "golden.json", json.dumps(golden).encode())
    assert [(check, engine) for check, engine, _ in failures(muelle, copy)] == [
        ("golden outputs", "onnx"),
        ("golden outputs", "joblib"),
    ]


def test_a_truncated_graph_with_a_right_digest(muelle, copy):
    rewrite(copy, "model.onnx", (copy / "model.onnx").read_bytes()[:150])
    assert [(check, engine) for check, engine, _ in failures(muelle, copy)] == [("loading", "onnx")]


def test_an_evil_pickle_with_a_right_digest_is_not_run(muelle, copy, brought):
    rewrite(copy, "model.joblib", (brought / "evil.pkl").read_bytes())
    ((check, engine, detail),) = failures(muelle, copy)
    assert (check, engine) == ("loading", "joblib")
    assert "posix.system" in detail
    assert not (brought / "marker").exists()


def test_a_pickle_of_something_else(muelle, copy):
    rewrite(copy, "model.joblib", pickle.dumps({"a": 1}))
    ((check, engine, _),) = failures(muelle, copy)
    assert (check, engine) == ("loading", "joblib")


def test_nothing_there(muelle, repository):
    result = muelle("verify", "iris@9", "--repository", repository)
    assert result.exit_code == 1
    assert result.stderr == "Error: no version '9' of iris; there is 1\n"
