"""Start-up: alive before ready, nobody answered too early, settings that stop it, ports, Kubernetes' variables."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest
from lifecycle import EIGHT, FOUR, OPERATOR, gated_bundle, wait_loads, wait_workers
from load_client import Load
from support import Server, free_port


def test_a_server_is_alive_while_it_loads_and_never_unready_after_it_was_ready(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gated_bundle(tmp_path / "models", gate)
    with Server(tmp_path / "models", tmp_path, OPERATOR) as server:
        server.wait_answering()
        # Alive before it has looked which models there are.
        server.wait_for(lambda: "loading" not in server.get("/readyz").json["reasons"], "to know its models")
        for path in ("/readyz", "/v2/health/ready", "/v2/models/double/ready"):
            unready = server.get(path)
            assert (unready.status, unready.headers["retry-after"]) == (503, "1")
            assert unready.json["reasons"] == ["double 1: loading"]
        assert server.get("/v2/health/live").status == 200
        assert server.get("/").json["models"] == [
            {"name": "double", "version": "1", "state": "loading", "reason": "loading"}
        ]
        early = server.post("/predict", FOUR)
        assert (early.status, early.json["code"]) == (503, "not_ready")
        assert "loading" in early.json["error"]
        # The worker that listens and the one that doesn't yet race to be loaded; either may be first.
        with Load(server.port, "/predict", FOUR, expected=[EIGHT], pause_seconds=0.002) as load:
            load.wait_failed(10)
            gate.touch()
            server.wait_ready()
            ready_at = time.monotonic()
            wait_loads(server, 2)
            load.wait_ok(100)
        assert (load.tally.failures.keys(), load.tally.refused) == ({"status 503"}, 0)
        # By when they were sent: one that was on its way when the server got ready may come into the list at any time.
        late = [outcome for outcome in load.tally.outcomes if outcome.sent is not None and outcome.sent > ready_at]
        assert late
        assert all(outcome.status == 200 for outcome in late)


def test_both_workers_are_ready_before_either_says_so(repository: Path, tmp_path: Path) -> None:
    # Several starts, since what could go wrong is a race between two processes that load.
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        with Server(repository, folder, {"MUELLE_DEFAULT_MODEL": "linear"}) as server:
            server.wait_ready()
            with Load(server.port, "/predict", {"features": [6.0]}, new=3, kept=3) as load:
                wait_loads(server, 6)
                load.wait_ok(50)
            assert load.tally.failures == {}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"MUELLE_MAX_ROW": "5"}, "MUELLE_MAX_ROW: no such setting; did you mean MUELLE_MAX_ROWS?"),
        ({"MUELLE_WORKERS": "many"}, "MUELLE_WORKERS: expected a whole number of processes, 1 or more, got 'many'"),
        ({"MUELLE_REQUEST_TIMEOUT_SECONDS": "0"}, "MUELLE_REQUEST_TIMEOUT_SECONDS: expected a number of seconds above"),
        ({"MUELLE_API_KEYS_FILE": "/nowhere/keys"}, "/nowhere/keys can't be read"),
    ],
)
def test_a_bad_setting_stops_the_start_by_name(
    settings: dict[str, str], expected: str, repository: Path, tmp_path: Path
) -> None:
    with Server(repository, tmp_path, settings) as server:
        assert server.process is not None
        assert server.process.wait(60) != 0
    assert expected in server.log_path.read_text()


def test_a_port_in_use_is_a_clear_error(repository: Path, tmp_path: Path) -> None:
    server = Server(repository, tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", server.port))
        taken.listen()
        with server:
            assert server.process is not None
            assert server.process.wait(60) != 0
    lines = [line for line in server.log() if line["level"] == "error"]
    assert any("in use" in line["message"] and str(server.port) in line["message"] for line in lines)


@pytest.mark.parametrize("there", [True, False])
def test_without_models_it_is_alive_and_says_why_it_is_not_ready(there: bool, tmp_path: Path) -> None:
    models = tmp_path / "models"
    if there:
        models.mkdir()
    with Server(models, tmp_path) as server:
        server.wait_for(lambda: "loading" not in str(server.get("/readyz").json["reasons"]), "a reason")
        unready = server.get("/readyz")
        expected = "holds no models; make one with `muelle bundle`" if there else "no such folder of models"
        assert (unready.status, unready.json["code"]) == (503, "not_ready")
        assert str(models) in unready.json["error"]
        assert expected in unready.json["error"]
        answer = server.post("/predict", FOUR)
        assert (answer.status, answer.json["error"]) == (503, unready.json["error"])
        assert server.get("/livez").status == 200
        assert server.get("/openapi.json").status == 200


def test_kubernetes_service_links_are_no_settings(repository: Path, tmp_path: Path) -> None:
    links = {
        "MUELLE_SERVICE_HOST": "10.0.0.1",
        "MUELLE_SERVICE_PORT": "80",
        "MUELLE_SERVICE_PORT_HTTP": "80",
        "MUELLE_PORT": "tcp://10.0.0.1:80",
        "MUELLE_PORT_80_TCP": "tcp://10.0.0.1:80",
        "MUELLE_PORT_80_TCP_ADDR": "10.0.0.1",
        "MUELLE_STABLE_PORT": "tcp://10.0.0.2:9090",
        "MUELLE_STABLE_SERVICE_HOST": "10.0.0.2",
    }
    server = Server(repository, tmp_path, links)
    with Server(repository, tmp_path, links | {"PORT": str(server.port)}) as linked:
        # MUELLE_PORT is not the port here, so the platform's PORT is.
        linked.port = server.port
        linked.wait_ready()
        assert linked.post("/models/iris/predict", {"features": [5.1, 3.5, 1.4, 0.2]}).json == {"prediction": 0}


def test_the_metrics_folder_is_removed_only_when_it_is_its_own(repository: Path, tmp_path: Path) -> None:
    theirs, temporary = tmp_path / "theirs", tmp_path / "temporary"
    theirs.mkdir()
    temporary.mkdir()
    (theirs / "notes.txt").write_text("not ours")
    settings = {"PROMETHEUS_MULTIPROC_DIR": str(theirs), "TMPDIR": str(temporary)}
    with Server(repository, tmp_path, settings) as server:
        server.wait_ready()
        assert [path.name[:15] for path in temporary.iterdir()] == ["muelle-metrics-"]
        old = set(server.workers())
        os.kill(server.pid, signal.SIGHUP)
        wait_workers(server, 2, without=old)
        assert len(list(temporary.iterdir())) == 1
        assert server.stop() == 0
    assert list(temporary.iterdir()) == []
    assert [path.name for path in theirs.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("host", ["::", "::1", "[::1]"])
def test_an_ipv6_address_is_listened_on_at_both_ports(host: str, repository: Path, tmp_path: Path) -> None:
    port = free_port()
    settings = {"MUELLE_HOST": host, "MUELLE_METRICS_PORT": str(port), "MUELLE_SERVE": "linear"}
    made = Server(repository, tmp_path, settings)
    made.host = host.strip("[]")
    with made as server:
        server.wait_ready()
        assert server.get("/livez").status == 200
        assert "muelle_worker_memory_bytes" in server.request("GET", "/metrics", port=port).body.decode()
        assert server.stop() == 0
