"""/metrics of a real server with two workers: sums over both, bounded series, processes, both text formats."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from lifecycle import FOUR, LINEAR, Series, scrape, total, wait_loads
from load_client import Load
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_classic
from support import Server

REQUESTS = "muelle_requests_total"
MIB = 1024 * 1024
HOSTILE = [
    "/models/%s/predict",
    "/models/%s/versions/1/predict",
    "/models/linear/versions/%s/predict",
    "/v2/models/%s/infer",
    "/%s",
    "/models/%s/../linear/predict",
]


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(repository, tmp_path_factory.mktemp("metrics-server")) as running:
        running.wait_ready()
        wait_loads(running, 6)
        yield running


def settled(server: Server, **expected: int) -> dict[Series, float]:
    """Return a scrape in which the other worker's last half second is: this many requests by model."""
    wanted = {(key.replace("_", "-"), value) for key, value in expected.items()}
    server.wait_for(
        lambda: all(total(scrape(server), REQUESTS, model=model) == count for model, count in wanted), f"to {expected}"
    )
    return scrape(server)


def test_both_workers_add_up_by_model_protocol_and_code(server: Server) -> None:
    infer = {"inputs": [{"name": "features", "shape": [3, 1], "datatype": "FP64", "data": [1.0, 2.0, 3.0]}]}
    with (
        Load(server.port, LINEAR, FOUR, new=2, kept=2, requests=200) as good,
        Load(server.port, LINEAR, {"features": ["x"]}, new=1, kept=1, requests=70) as bad,
        Load(server.port, "/v2/models/linear/infer", infer, new=1, kept=1, requests=60) as oip,
        Load(server.port, "/models/rose/predict", FOUR, new=1, kept=1, requests=30) as unknown,
    ):
        tallies = [load.join() for load in (good, bad, oip, unknown)]
    assert [dict(tally.statuses) for tally in tallies] == [{200: 200}, {400: 70}, {200: 60}, {404: 30}]
    server.request("POST", LINEAR, "no JSON", {"Content-Type": "text/plain"})
    found = settled(server, linear=331, unknown=30)
    by_labels = {
        (labels["model"], labels["version"], labels["protocol"], labels["code"]): value
        for labels, value in ((dict(key[1]), value) for key, value in found.items() if key[0] == REQUESTS)
        if value
    }
    assert by_labels == {
        ("linear", "1", "simple", "200"): 200,
        ("linear", "1", "simple", "400"): 70,
        ("linear", "1", "simple", "415"): 1,
        ("linear", "1", "oip", "200"): 60,
        ("unknown", "unknown", "simple", "404"): 30,
    }
    assert total(found, "muelle_request_duration_seconds_count", model="linear") == 331
    assert total(found, "muelle_request_duration_seconds_bucket", model="linear", le="+Inf") == 331
    assert total(found, "muelle_batch_rows_count", model="linear") == 260
    assert total(found, "muelle_batch_rows_sum", model="linear") == 200 + 60 * 3
    for stage in ("decode", "validate", "predict", "encode"):
        assert total(found, "muelle_stage_duration_seconds_count", model="linear", stage=stage) == 260
    # At 0 from the start, before anything has gone wrong.
    assert found["muelle_shed_total", (("reason", "concurrency"),)] == 0
    for code in ("200", "400", "500", "503"):
        labels = (("code", code), ("model", "iris"), ("protocol", "simple"), ("version", "1"))
        assert found[REQUESTS, labels] == 0
    assert total(found, "muelle_requests_in_progress") == 0


def test_hostile_callers_make_no_series(server: Server) -> None:
    def wait_for_asks(count: int) -> set[Series]:
        # Four of the paths are predictions.
        server.wait_for(lambda: unknown() == already + 4 * count, "to have counted")
        return set(scrape(server))

    def unknown() -> float:
        return total(scrape(server), REQUESTS, model="unknown", code="404")

    already = unknown()
    # The codes that are about to come have a series from here on.
    ask(server, "first")
    before = wait_for_asks(1)
    for i in range(20):
        ask(server, f"evil-{i}")
    ask(server, "%22%7Bmodel=%22x%22%7D%0A")
    ask(server, "x" * 3000)
    ask(server, "%F0%9F%98%80")
    assert wait_for_asks(24) == before


def ask(server: Server, name: str) -> None:
    """Ask for things of that name, with it in every place where a caller can put it."""
    headers = {"Content-Type": "application/json", "X-Request-Id": name[:100], "User-Agent": name[:100]}
    for path in HOSTILE:
        answer = server.request("POST", path.replace("%s", name), json.dumps(FOUR), headers)
        # The last path is a real one to those who fold it.
        assert answer.status in ({404, 405, 200} if ".." in path else {404, 405})


def test_processes_and_models_are_reported(server: Server) -> None:
    before = scrape(server)
    slots = ("arbiter", "0", "1")
    for slot in slots:
        assert 10 * MIB < total(before, "muelle_worker_memory_bytes", slot=slot) < 4096 * MIB
        assert total(before, "muelle_worker_cpu_seconds_total", slot=slot) > 0
    for model in ("linear", "iris", "breast-cancer"):
        assert total(before, "muelle_model_info", model=model, version="1", engine="onnx") == 1
        assert 0 < total(before, "muelle_model_load_seconds", model=model) < 60
        assert total(before, "muelle_model_load_failures_total", model=model) == 0
    digests = {dict(labels)["digest"] for name, labels in before if name == "muelle_model_info"}
    assert digests == {model["digest"] for model in server.get("/").json["models"]}
    rows = {"features": [[5.1, 3.5, 1.4, 0.2]] * 2000}
    for slot in ("0", "1"):
        used = total(before, "muelle_worker_cpu_seconds_total", slot=slot)
        server.wait_for(
            lambda slot=slot, used=used: (
                server.post("/models/iris/predict", rows).status == 200
                and total(scrape(server), "muelle_worker_cpu_seconds_total", slot=slot) > used
            ),
            f"to have used the CPU in slot {slot}",
        )


@pytest.mark.parametrize("accept", ["", "text/plain", "application/openmetrics-text; version=1.0.0; charset=utf-8"])
def test_the_page_is_what_its_content_type_says(accept: str, server: Server) -> None:
    answer = server.get("/metrics", {"Accept": accept} if accept else None)
    assert answer.status == 200
    page = answer.body.decode()
    openmetrics = "openmetrics" in accept
    expected = "application/openmetrics-text" if openmetrics else "text/plain"
    assert answer.headers["content-type"].startswith(f"{expected}; version=")
    assert page.endswith("# EOF\n") == openmetrics
    families = list((parse_openmetrics if openmetrics else parse_classic)(page))
    assert len(families) >= 10
    assert all(family.documentation for family in families)
    for family in families:
        assert family.name.startswith("muelle_")
        assert all(sample.name.startswith(family.name) for sample in family.samples)
    counters = [family.name for family in families if family.type == "counter"]
    assert {"muelle_requests", "muelle_shed", "muelle_worker_cpu_seconds"} <= set(counters)
