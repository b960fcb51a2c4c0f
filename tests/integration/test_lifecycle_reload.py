"""SIGHUP: new, removed and broken versions, without a failed request."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from lifecycle import EIGHT, FOUR, OPERATOR, Watch, factor_bundle, scrape, total, wait_loads, wait_workers
from load_client import Load
from support import Server

TWELVE = {"prediction": 12.0}


def reload(server: Server) -> None:
    """Load the repository anew, and wait until no worker of before is left."""
    old = set(server.workers())
    os.kill(server.pid, signal.SIGHUP)
    wait_workers(server, 2, without=old)


def test_a_reload_serves_what_is_in_the_folder_now(tmp_path: Path) -> None:
    models, metrics = tmp_path / "models", tmp_path / "metrics"
    factor_bundle(models, version="9", factor=2.0)
    factor_bundle(models, name="other")
    settings = OPERATOR | {"MUELLE_DEFAULT_MODEL": "double", "MUELLE_METRICS_DIR": str(metrics)}
    with Server(models, tmp_path, settings) as server:
        server.wait_ready()
        wait_loads(server, 4)
        assert server.post("/predict", FOUR).json == EIGHT

        # 10 is newer than 9.
        factor_bundle(models, version="10", factor=3.0)
        with (
            Load(server.port, "/predict", FOUR, new=2, kept=2, expected=[EIGHT, TWELVE], pause_seconds=0.02) as load,
            Watch(server, metrics) as watch,
        ):
            load.wait_ok(20)
            reload(server)
            load.wait_ok(50)
            tally = load.stop()
        assert (tally.failures, tally.refused, tally.dropped, watch.failures, watch.falls) == ({}, 0, 0, [], [])
        assert server.post("/predict", FOUR).json == TWELVE
        assert server.post("/models/double/versions/9/predict", FOUR).json == EIGHT
        assert server.get("/v2/models/double").json["versions"] == ["9", "10"]
        loaded = {dict(labels)["version"] for (name, labels) in scrape(server) if name == "muelle_model_info"}
        assert loaded == {"1", "9", "10"}

        # A version that was taken away is unknown, and no more reported as loaded.
        shutil.rmtree(models / "double" / "9")
        # A newer one that is broken makes its model, and the server as a whole, not ready; the others are served.
        broken = factor_bundle(models, version="11", factor=4.0) / "model.joblib"
        broken.write_bytes(broken.read_bytes()[:-1] + b"?")
        reload(server)
        server.wait_for(lambda: server.post("/models/other/predict", FOUR).status == 200, "to serve the other model")
        unready = server.get("/readyz")
        assert (unready.status, unready.json["code"]) == (503, "not_ready")
        (reason,) = unready.json["reasons"]
        assert reason.startswith("double 11: ")
        assert "model.joblib" in reason
        for path in ("/predict", "/models/double/predict", "/models/double/versions/11/predict"):
            answer = server.post(path, FOUR)
            assert (answer.status, answer.json["code"], answer.headers["retry-after"]) == (503, "not_ready", "1")
            assert "model.joblib" in answer.json["error"]
        assert server.post("/models/double/versions/10/predict", FOUR).json == TWELVE
        gone = server.post("/models/double/versions/9/predict", FOUR)
        assert (gone.status, gone.json["code"]) == (404, "not_found")
        assert gone.json["error"] == "no version '9' of double; there is 10, 11"
        assert server.get("/v2/models/double/versions/11/ready").status == 503
        assert server.get("/v2/models/double/versions/10/ready").status == 200
        assert server.get("/livez").status == 200
        found = scrape(server)
        assert total(found, "muelle_model_load_failures_total", model="double", version="11") >= 1
        assert total(found, "muelle_model_not_loaded") == total(found, "muelle_model_not_loaded", version="11") == 1
        assert total(found, "muelle_model_info", version="9") == 0
        # The counters of a version that is gone stay, or a sum over versions would fall.
        assert total(found, "muelle_requests_total", model="double", version="9") > 0

        # Once it is right, the next reload makes all well.
        shutil.rmtree(models / "double" / "11")
        reload(server)
        server.wait_ready()
        assert server.post("/predict", FOUR).json == TWELVE
        assert total(scrape(server), "muelle_model_not_loaded") == 0
        assert server.stop() == 0
