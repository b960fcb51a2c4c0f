"""Docker's config.json: whose login counts for which registry."""

from __future__ import annotations

import base64
import json
import stat

import pytest

from muelle.errors import StoreError
from muelle.store.docker_config import Login, find_login


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.fixture
def config(tmp_path):
    """Write a config.json."""

    def write(document):
        path = tmp_path / "config.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    return write


@pytest.fixture
def helper(tmp_path, monkeypatch):
    """Put a real credential helper on the PATH: a script that prints what it is told to."""

    def install(answer: str, code: int = 0) -> None:
        programs = tmp_path / "bin"
        programs.mkdir()
        program = programs / "docker-credential-testing"
        program.write_text(
            f"#!/bin/sh\n[ \"$1\" = get ] && cat >'{tmp_path}/asked'\nprintf '%s' '{answer}'\nexit {code}\n"
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")

    return install


@pytest.mark.parametrize(
    "entry", ["registry.example.com:5000", "https://registry.example.com:5000/v1/", "registry.example.com:5000/team"]
)
def test_user_and_password(config, entry):
    path = config({"auths": {"other.example.com": {"auth": encoded("x:y")}, entry: {"auth": encoded("me:a:b")}}})
    assert find_login(path, "registry.example.com:5000") == Login("me", "a:b")
    assert find_login(path, "registry.example.com") is None


def test_a_pull_secret_with_plain_fields(config):
    path = config({"auths": {"r.example.com": {"username": "me", "password": "pw", "email": "x"}}})
    assert find_login(path, "r.example.com") == Login("me", "pw")


def test_a_refresh_token_goes_before_the_password(config):
    path = config({"auths": {"r.example.com": {"auth": encoded("00000000:"), "identitytoken": "abc"}}})
    assert find_login(path, "r.example.com") == Login(refresh_token="abc")


def test_docker_hub_has_another_name_there(config):
    path = config({"auths": {"https://index.docker.io/v1/": {"auth": encoded("me:pw")}}})
    assert find_login(path, "registry-1.docker.io") == Login("me", "pw")


@pytest.mark.parametrize(
    "document", [{}, {"auths": {}}, {"auths": None}, {"auths": {"r.example.com": {}}}, {"credHelpers": {}}]
)
def test_nothing_is_known(config, document):
    assert find_login(config(document), "r.example.com") is None


def test_no_file_is_nobody(tmp_path):
    assert find_login(tmp_path / "none" / "config.json", "r.example.com") is None


@pytest.mark.parametrize(("document", "words"), [
    ("{", "expected JSON as docker login writes it"),
    ("[]", "expected a JSON object"),
    ({"auths": {"r.example.com": 1}}, r"auths\.r\.example\.com: expected an object"),
    ({"auths": {"r.example.com": {"auth": "?"}}}, "expected base64 of USER:PASSWORD"),
    ({"auths": {"r.example.com": {"auth": encoded("me")}}}, "expected base64 of USER:PASSWORD"),
    ({"credsStore": "../evil"}, "expected the name of a credential helper, got '../evil'"),
    ({"credsStore": "no-such-helper"}, "names docker-credential-no-such-helper, which is not on the PATH"),
])  # fmt: skip
def test_a_broken_file_is_said(config, document, words):
    with pytest.raises(StoreError, match=words):
        find_login(config(document), "r.example.com")


@pytest.mark.parametrize("document", [{"credsStore": "testing"}, {"credHelpers": {"r.example.com": "testing"}}])
def test_a_helper_is_asked(config, helper, tmp_path, document):
    helper('{"ServerURL": "r.example.com", "Username": "me", "Secret": "pw"}')
    assert find_login(config(document), "r.example.com") == Login("me", "pw")
    assert (tmp_path / "asked").read_text() == "r.example.com"


def test_a_helper_may_give_a_refresh_token(config, helper):
    helper('{"Username": "<token>", "Secret": "abc"}')
    assert find_login(config({"credsStore": "testing"}), "r.example.com") == Login(refresh_token="abc")


def test_docker_hub_is_asked_for_by_its_key(config, helper, tmp_path):
    helper('{"Username": "me", "Secret": "pw"}')
    assert find_login(config({"credsStore": "testing"}), "registry-1.docker.io") == Login("me", "pw")
    assert (tmp_path / "asked").read_text() == "https://index.docker.io/v1/"


def test_a_helper_that_knows_nothing_is_nobody(config, helper):
    helper("credentials not found in native keychain", code=1)
    assert find_login(config({"credsStore": "testing"}), "r.example.com") is None


def test_a_helper_that_talks_nonsense(config, helper):
    helper("hello")
    with pytest.raises(StoreError, match="docker-credential-testing: expected JSON with Username and Secret"):
        find_login(config({"credsStore": "testing"}), "r.example.com")


def test_a_login_does_not_show_its_secrets():
    assert "pw" not in repr(Login("me", "pw", "pw"))
