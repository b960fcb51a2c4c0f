"""The routes of /ui: off unless asked for, strict headers, open page and guarded numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from prometheus_client import CollectorRegistry

from service.app import create_app
from service.auth import new_key
from service.metrics import Metrics
from service.models import Models
from service.settings import Settings

FOLDER = Path(__file__).resolve().parents[3] / "service" / "ui"
DOCUMENTS = ("/ui/state", "/ui/models")
FILES = sorted(path.name for path in FOLDER.iterdir() if path.name != "index.html")


def client(repository: Path, keys: Path | None = None, *, ui: bool = True) -> FlaskClient:
    settings = Settings(models=(repository,), access_log=False, ui=ui, api_keys_file=keys)
    metrics = Metrics(CollectorRegistry())
    models = Models(settings, metrics)
    models.load()
    return create_app(settings, models, metrics).test_client()


@pytest.fixture(scope="module")
def page(repository: Path) -> FlaskClient:
    return client(repository)


@pytest.mark.parametrize("path", ["/ui", "/ui/ui.js", *DOCUMENTS])
def test_off_there_is_nothing(repository: Path, path: str) -> None:
    off = client(repository, ui=False)
    answer = off.get(path)
    assert (answer.status_code, answer.get_json()["code"]) == (404, "not_found")
    assert "ui" not in off.get("/").get_json()["links"]


def test_on_the_status_page_links_to_it(page: FlaskClient) -> None:
    link = page.get("/").get_json()["links"]["ui"]
    assert page.get(link).content_type == "text/html; charset=utf-8"


@pytest.mark.parametrize("path", ["/ui", "/ui/nothing", *DOCUMENTS, *(f"/ui/{name}" for name in FILES)])
def test_nothing_may_come_from_elsewhere_or_be_guessed(page: FlaskClient, path: str) -> None:
    answer = page.get(path)
    policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("path", DOCUMENTS)
def test_the_numbers_are_never_kept(page: FlaskClient, path: str) -> None:
    assert page.get(path).headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_served_and_asked_for_again_cheaply(page: FlaskClient, name: str) -> None:
    first = page.get(f"/ui/{name}")
    assert (first.status_code, first.data) == (200, (FOLDER / name).read_bytes())
    again = page.get(f"/ui/{name}", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


@pytest.mark.parametrize("name", ["index.html", "..%2Fsettings.py", "%2e%2e%2fapp.py", "state.json"])
def test_no_other_file_is(page: FlaskClient, name: str) -> None:
    assert page.get(f"/ui/{name}").status_code == 404


def test_the_page_names_only_files_of_its_own_and_has_no_script_or_style_in_it(page: FlaskClient) -> None:
    text = page.get("/ui").text
    assert set(re.findall(r'(?:src|href)="(?!#)([^"]*)"', text)) == {
        *("ui/ui.css", "ui/ui.js", "ui/icon.svg"),
        *("metrics", "openapi.json"),
    }
    assert not re.search(r"<style|<script(?![^>]*src=)|\sstyle=|\son\w+=|javascript:", text)
    for name in FILES:
        assert "//" not in re.sub(
            r"^\s*//.*$|http://www\.w3\.org/2000/svg", "", (FOLDER / name).read_text(), flags=re.M
        )


def test_without_keys_everybody_may_look(page: FlaskClient) -> None:
    assert 'data-keys="no"' in page.get("/ui").text
    assert page.get("/ui/state").get_json()["status"] == "ready"
    assert [form["model"] for form in page.get("/ui/models").get_json()["models"]] == [
        "breast-cancer",
        "iris",
        "linear",
    ]


def test_with_keys_the_page_is_open_and_the_numbers_are_not(repository: Path, tmp_path: Path) -> None:
    key, line = new_key("alice")
    (tmp_path / "keys").write_text(f"{line}\n")
    guarded = client(repository, tmp_path / "keys")
    assert 'data-keys="yes"' in guarded.get("/ui").text
    assert guarded.get("/ui/ui.js").status_code == 200
    for path in DOCUMENTS:
        refused = guarded.get(path)
        assert (refused.status_code, refused.get_json()["code"]) == (401, "missing_key")
        assert refused.headers["Cache-Control"] == "no-store"
        assert guarded.get(path, headers={"X-API-Key": "wrong"}).status_code == 403
        assert guarded.get(path, headers={"Authorization": f"Bearer {key}"}).status_code == 200
        answer = guarded.get(path, headers={"X-API-Key": key})
        assert answer.status_code == 200
        assert "alice" not in answer.text
        assert key not in answer.text
