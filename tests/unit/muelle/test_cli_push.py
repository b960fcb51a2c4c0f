"""``muelle push`` as a command, to a folder. Stores and registries are in ``tests/e2e/test_fetch_stores.py``."""

from __future__ import annotations

import json
import shutil

import pytest

from muelle.bundle import open_bundle


@pytest.fixture
def digest(repository) -> str:
    return open_bundle(repository / "iris" / "1").digest


def push(muelle, repository, *arguments):
    return muelle("push", *arguments, "--repository", repository)


def test_it_prints_one_line_to_paste_and_fetch_takes_it(muelle, repository, digest, tmp_path):
    url = f"file://{tmp_path}/share/iris/1"
    result = push(muelle, repository, "iris@1", url)
    assert result.exit_code == 0
    assert result.stdout == f"{url}@{digest}\n"
    assert result.stderr.startswith("iris 1: pushed, ")
    fetched = muelle("fetch", "--to", tmp_path / "models", result.stdout.strip())
    assert fetched.exit_code == 0
    assert open_bundle(tmp_path / "models/iris/1").digest == digest


def test_the_same_bundle_again_is_fine(muelle, repository, digest, tmp_path):
    url = f"file://{tmp_path}/iris"
    documents = [
        json.loads(push(muelle, repository, repository / "iris" / "1", url, "--output", "json").stdout)
        for _ in range(2)
    ]
    assert [document.pop("state") for document in documents] == ["pushed", "already there"]
    assert documents[0] == documents[1]
    assert documents[0]["source"] == f"{url}@{digest}"
    assert (documents[0]["url"], documents[0]["digest"]) == (url, digest)
    assert (documents[0]["name"], documents[0]["version"]) == ("iris", "1")


def test_another_bundle_is_never_overwritten(muelle, repository, digest, tmp_path):
    url = f"file://{tmp_path}/place"
    assert push(muelle, repository, "iris@1", url).exit_code == 0
    result = push(muelle, repository, "linear", url)
    assert result.exit_code == 1
    assert result.stderr == f"Error: {url} holds another bundle, {digest}; it is not overwritten, choose another URL\n"
    assert open_bundle(tmp_path / "place").digest == digest


def test_a_folder_that_is_no_bundle_is_left_alone(muelle, repository, tmp_path):
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "thesis.txt").write_text("years of work")
    result = push(muelle, repository, "iris@1", f"file://{tmp_path}/place")
    assert result.exit_code == 1
    assert "place exists; a version is never overwritten" in result.stderr
    assert [path.name for path in (tmp_path / "place").iterdir()] == ["thesis.txt"]


def test_a_damaged_bundle_is_not_pushed(muelle, repository, tmp_path):
    copy = shutil.copytree(repository / "iris" / "1", tmp_path / "iris")
    (copy / "model.onnx").write_bytes(b"x")
    result = push(muelle, repository, copy, f"file://{tmp_path}/place")
    assert result.exit_code == 1
    assert "model.onnx: expected" in result.stderr
    assert not (tmp_path / "place").exists()


def test_a_digest_in_the_url_must_be_the_bundles(muelle, repository, digest, tmp_path):
    url = f"file://{tmp_path}/place"
    assert push(muelle, repository, "iris@1", f"{url}@{digest}").exit_code == 0
    result = push(muelle, repository, "linear", f"{url}-2@{digest}")
    assert result.exit_code == 1
    assert f"expected the bundle {digest}, it is sha256:" in result.stderr
    assert not (tmp_path / "place-2").exists()


@pytest.mark.parametrize(("url", "words"), [
    ("https://host.invalid/iris", "can't be pushed to; expected s3://, gs://, az://, oci:// or file://"),
    ("oci://host.invalid/iris", "expected a repository in small letters and a tag behind the host, such as oci://host"),
    ("oci://host.invalid/Iris:1", "expected a repository in small letters and a tag behind the host"),
    ("oci://host.invalid/iris:", "expected a repository in small letters and a tag behind the host"),
    ("s3://bucket/a/../b", "Error parsing Path"),
    ("models", "expected a URL that starts with one of"),
])  # fmt: skip
def test_where_nothing_can_be_pushed(muelle, repository, url, words):
    result = push(muelle, repository, "iris@1", url)
    assert result.exit_code == 1
    assert words in result.stderr


def test_a_model_that_is_not_there(muelle, repository, tmp_path):
    result = push(muelle, repository, "wine", f"file://{tmp_path}/place")
    assert result.exit_code == 1
    assert "no model 'wine'" in result.stderr
