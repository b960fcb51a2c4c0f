"""The prediction log in a real S3 server that fails in between, and ``muelle quality`` on it. No cluster is needed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from lifecycle import scrape, total
from sklearn.datasets import load_breast_cancer
from store_servers import S3, make_s3
from support import Server

from muelle.cli import main
from muelle.store.remote import Access
from muelle.store.tree import Tree, open_tree

DATA = load_breast_cancer()
URL = "s3://predictions/team/log"
_FOREIGN = ("AWS_", "AZURE_", "GOOGLE_", "MUELLE_", "SSL_CERT")


@pytest.fixture
def store(tmp_path: Path) -> S3:
    found = make_s3(tmp_path)
    found.bucket("predictions")
    return found


def quality(store: S3) -> dict[str, object]:
    clean: dict[str, str | None] = {key: None for key in os.environ if key.startswith(_FOREIGN)}
    arguments = ["quality", "--log", URL, "--by", "version", "--output", "json"]
    result = CliRunner().invoke(main, arguments, env=clean | store.environ)
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["rows"]
    return dict(row)


def tree(store: S3, monkeypatch: pytest.MonkeyPatch) -> Tree:
    for key in [key for key in os.environ if key.startswith(_FOREIGN)]:
        monkeypatch.delenv(key)
    for key, value in store.environ.items():
        monkeypatch.setenv(key, value)
    return open_tree(URL, Access.from_environ(os.environ, insecure=False, retry_seconds=10, push=True))


def test_rows_and_labels_reach_the_bucket_once_though_it_was_away(store: S3, repository: Path, tmp_path: Path) -> None:
    settings = {
        "MUELLE_PREDICTION_LOG": URL,
        "MUELLE_PREDICTION_LOG_SECONDS": "0.5",
        "MUELLE_SERVE": "breast-cancer",
        **store.environ,
    }
    with Server(repository, tmp_path, settings) as server:
        server.wait_ready()
        shipped = {"name": "muelle_prediction_log_shipped_rows_total", "model": "breast-cancer"}

        def send(start: int, end: int) -> None:
            for number in range(start, end):
                sent = {"features": DATA.data[number].tolist(), "probabilities": True}
                headers = {"X-Request-Id": f"row-{number}"}
                assert server.post("/models/breast-cancer/predict", sent, headers).status == 200
                label = {"request_id": f"row-{number}", "label": int(DATA.target[number])}
                assert server.post("/feedback", label).status == 200

        with store.running():
            send(0, 100)
            server.wait_for(lambda: total(scrape(server), **shipped) == 100, "to 100 shipped rows")
        send(100, 200)
        server.wait_for(lambda: total(scrape(server), "muelle_prediction_log_failures_total") >= 2, "failures")
        with store.running():
            server.wait_for(lambda: total(scrape(server), **shipped) == 200, "to 200 shipped rows", 90)
            send(200, 300)
            # The last of it goes out while the server stops.
            assert server.stop() == 0
            found = quality(store)
    assert found["predictions"] == found["labelled"] == 300
    assert found["repeated"] == 0
    scores = found["scores"]
    assert isinstance(scores, dict)
    assert scores["accuracy"]["value"] > 0.9
    assert scores["log_loss"]["rows"] == 300


def test_large_objects_are_read_in_parts(store: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(9 * 1024 * 1024)
    with store.running():
        place = tree(store, monkeypatch)
        place.put("a/large", data)
        place.put("a/small", b"small")
        place.put("a/small", b"again")
        sizes = dict(place.files())
        assert sizes == {"a/large": len(data), "a/small": 5}
        with place.open("a/small", 5) as file:
            assert file.read() == b"again"
        with place.open("a/large", len(data)) as file:
            assert file.seek(-100, os.SEEK_END) == len(data) - 100
            assert file.read() == data[-100:]
            assert file.read() == b""
            assert file.seek(12_345) == 12_345
            assert file.read(2_000_000) == data[12_345:2_012_345]
            file.seek(0)
            assert file.read() == data
