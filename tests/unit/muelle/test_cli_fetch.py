"""``muelle fetch`` as a command: its sources, its output, its usage errors. What stores do wrong is in integration."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from muelle.bundle import open_bundle

WITHOUT_OBSTORE = """
import sys
sys.modules["obstore"] = None
from muelle.cli import main
main(sys.argv[1:])
"""


@pytest.fixture
def iris(repository, tmp_path) -> str:
    """The URL of a bundle in a folder with an unusual name."""
    shutil.copytree(repository / "iris" / "1", tmp_path / "a share" / "iris")
    return f"file://{tmp_path}/a%20share/iris"


@pytest.fixture
def digest(repository) -> str:
    return open_bundle(repository / "iris" / "1").digest


def test_a_bundle_goes_to_its_name_and_version(muelle, iris, digest, repository, tmp_path):
    result = muelle("fetch", "--to", tmp_path / "models", f"{iris}@{digest}")
    assert result.exit_code == 0
    assert result.stderr == ""
    for word in ("iris", "fetched", digest, str(tmp_path / "models" / "iris" / "1")):
        assert word in result.stdout
    assert {path.name: path.read_bytes() for path in (tmp_path / "models/iris/1").iterdir()} == {
        path.name: path.read_bytes() for path in (repository / "iris/1").iterdir()
    }
    assert muelle("verify", "iris@1", "--repository", tmp_path / "models").exit_code == 0


def test_json_says_what_is_where(muelle, iris, digest, tmp_path):
    arguments = ("fetch", "--to", tmp_path / "models", f"{iris}@{digest}", "--output", "json")
    (facts,) = json.loads(muelle(*arguments).stdout)
    assert facts == {
        "source": iris,
        "name": "iris",
        "version": "1",
        "digest": digest,
        "path": str(tmp_path / "models" / "iris" / "1"),
        "state": "fetched",
        "size_bytes": facts["size_bytes"],
    }
    assert json.loads(muelle(*arguments).stdout) == [facts | {"state": "already there"}]


def test_the_same_bundle_under_another_name_is_not_taken_for_it(muelle, iris, digest, tmp_path):
    """A server would refuse it there: its folder's name is not the manifest's."""
    result = muelle("fetch", "--to", tmp_path, f"{iris}@{digest}", "--output", "json")
    assert json.loads(result.stdout)[0]["path"] == str(tmp_path / "iris" / "1")


def test_without_a_digest_it_says_how_to_pin_it(muelle, iris, digest, tmp_path):
    result = muelle("fetch", "--to", tmp_path, iris)
    assert result.stderr == f"{iris}: taken as it is; to take only this very bundle, write {iris}@{digest}\n"


def test_sources_come_from_the_environment_unless_some_are_given(muelle, iris, digest, repository, tmp_path):
    linear = repository / "linear" / "1"
    env = {"MUELLE_FETCH": f"{iris} {digest}\nfile://{linear} {open_bundle(linear).digest}\n"}
    found = json.loads(muelle("fetch", "--to", tmp_path / "a", "--output", "json", env=env).stdout)
    assert [item["name"] for item in found] == ["iris", "linear"]
    found = json.loads(muelle("fetch", "--to", tmp_path / "b", iris, "--output", "json", env=env).stdout)
    assert [item["name"] for item in found] == ["iris"]


@pytest.mark.parametrize("env", [{}, {"MUELLE_FETCH": ""}, {"MUELLE_FETCH": " \n"}])
def test_no_source_is_wrong_usage(muelle, tmp_path, env):
    result = muelle("fetch", "--to", tmp_path, env=env)
    assert result.exit_code == 2
    assert "no SOURCE is given, and MUELLE_FETCH names none" in result.stderr


def test_every_source_is_looked_at_before_any_is_fetched(muelle, iris, tmp_path):
    result = muelle("fetch", "--to", tmp_path / "models", iris, "ftp://host/iris")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ftp://host/iris: expected a URL that starts with one of s3://, ")
    assert not (tmp_path / "models").exists()


def test_nothing_of_a_bundle_is_loaded(muelle, repository, tmp_path):
    """A pickle that would do harm arrives as any other: looking into it is for ``verify`` and ``serve``."""
    copy = shutil.copytree(repository / "linear" / "1", tmp_path / "evil")
    marker = tmp_path / "marker"
    evil = f"cos\nsystem\n(S'touch {marker}'\ntR.".encode()
    from muelle.bundle.files import sha256

    manifest = json.loads((copy / "manifest.json").read_bytes())
    manifest["files"]["model.joblib"] = {"sha256": sha256(evil), "size_bytes": len(evil)}
    (copy / "model.joblib").write_bytes(evil)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert muelle("fetch", "--to", tmp_path / "models", f"file://{copy}").exit_code == 0
    assert (tmp_path / "models/linear/1/model.joblib").read_bytes() == evil
    assert not marker.exists()


@pytest.mark.parametrize(
    "url", ["s3://bucket/iris", "gs://bucket/iris", "az://bucket/iris", "https://host.invalid/iris"]
)
def test_without_the_library_it_says_what_to_install(tmp_path, url):
    command = [sys.executable, "-c", WITHOUT_OBSTORE, "fetch", "--to", str(tmp_path), url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == "Error: this needs obstore, which is not installed: pip install 'muelle[store]'\n"


def test_a_folder_needs_no_library(iris, tmp_path):
    command = [sys.executable, "-c", WITHOUT_OBSTORE, "fetch", "--to", str(tmp_path / "models"), iris]
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


def test_a_person_at_a_terminal_sees_a_bar(iris, tmp_path):
    watcher, terminal = pty.openpty()
    command = [sys.executable, "-m", "muelle.cli", "fetch", "--to", str(tmp_path / "models"), iris]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal, timeout=60, check=False)
    os.close(terminal)
    seen = os.read(watcher, 65536).decode()
    os.close(watcher)
    assert done.returncode == 0
    assert "\x1b[" in seen
    assert iris in seen.replace("\r\n", "")


def test_credentials_of_the_environment_are_not_shown(monkeypatch):
    from muelle.store.remote import Access

    environ = {
        "HOME": "/home/me",
        "MUELLE_FETCH_AUTHORIZATION": "Bearer s3cr3t",
        "MUELLE_REGISTRY_USERNAME": "me",
        "MUELLE_REGISTRY_PASSWORD": "s3cr3t",
        "AWS_ALLOW_HTTP": "true",
    }
    access = Access.from_environ(environ, insecure=False, retry_seconds=1)
    assert (access.registry_username, access.s3_allow_http, access.insecure) == ("me", True, False)
    assert access.docker_config == Path("/home/me/.docker/config.json")
    assert "s3cr3t" not in repr(access)
    elsewhere = Access.from_environ({"DOCKER_CONFIG": "/secret"}, insecure=False, retry_seconds=1)
    assert elsewhere.docker_config == Path("/secret/config.json")
    assert (elsewhere.authorization, elsewhere.s3_allow_http) == (None, False)
