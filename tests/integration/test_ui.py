"""The numbers behind /ui at a real server: all workers together, and nothing of anybody's rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lifecycle import kill, scrape, total, wait_workers
from support import Server

ROW = {"features": [5.1, 3.5, 1.4, 0.2]}


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"MUELLE_UI": "true", "MUELLE_WORKERS": "2"}
    with Server(repository, tmp_path_factory.mktemp("ui"), settings) as server:
        server.wait_ready()
        yield server


def iris(server: Server) -> dict[str, Any]:
    (found,) = (model for model in server.get("/ui/state").json["models"] if model["model"] == "iris")
    return dict(found)


def test_both_workers_counts_are_in_it_and_equal_the_metrics_page(server: Server) -> None:
    before = iris(server)["rows"]
    for number in range(40):
        server.post("/models/iris/predict", ROW if number % 2 else {"features": [ROW["features"]] * 3})
    server.post("/models/iris/predict", {"features": ["a text", 0, 0, 0]})
    server.wait_for(lambda: iris(server)["rows"] == before + 80, "all rows in /ui/state", 10)
    server.wait_for(lambda: sum(iris(server)["bins"]["predict"]) == before + 80, "all rows counted", 10)
    server.wait_for(lambda: iris(server)["requests"]["400"] == 1, "the refused one counted", 10)
    found, page = iris(server), scrape(server)
    assert found["requests"]["400"] == total(page, "muelle_requests_total", model="iris", code="400") == 1
    assert found["requests"]["200"] == total(page, "muelle_requests_total", model="iris", code="200")
    assert sum(found["seconds"]) == total(page, "muelle_request_duration_seconds_count", model="iris")
    assert all(sum(counts) == before + 80 for name, counts in found["bins"].items() if name != "confidence")
    document = server.get("/ui/state").json
    assert {process["slot"] for process in document["processes"]} >= {"0", "1", "arbiter"}
    assert all(process["memory_bytes"] > 1e6 for process in document["processes"])


def test_it_goes_on_when_a_worker_is_replaced(server: Server) -> None:
    server.post("/models/iris/predict", ROW)
    server.wait_for(lambda: iris(server)["rows"] > 0, "a row", 10)
    before = server.get("/ui/state").json
    workers = wait_workers(server, 2)
    kill(workers[0])
    wait_workers(server, 2, without={workers[0]})
    server.wait_ready()
    after = server.get("/ui/state").json
    assert (after["instance"], after["started_at"]) == (before["instance"], before["started_at"])
    assert before["now"] < after["now"]
    for old, new in zip(before["models"], after["models"], strict=True):
        assert new["rows"] >= old["rows"]
        assert all(new["requests"][code] >= count for code, count in old["requests"].items())


def test_a_callers_texts_are_not_told_to_others(server: Server) -> None:
    secret = "somebodys-own-words"
    server.post("/models/iris/predict", {"features": [secret, 1, 1, 1]}, {"X-Request-Id": secret})
    server.post(f"/models/{secret}/predict", ROW)
    for path in ("/ui", "/ui/state", "/ui/models"):
        answer = server.get(path)
        assert answer.status == 200
        assert secret.encode() not in answer.body


def test_the_state_is_a_few_kilobytes(server: Server) -> None:
    assert len(server.get("/ui/state").body) < 8_000
