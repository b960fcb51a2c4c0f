"""One worker after another: who answers while new ones load, which versions they serve, what can't end the server."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from lifecycle import EIGHT, FOUR, LINEAR, OPERATOR, factor_bundle, kill, scrape, total, wait_loads, wait_workers
from load_client import Load
from raw_client import RawClient
from support import Server

from service.auth import new_key

TWELVE = {"prediction": 12.0}
LIVE = b'{"status":"live"}'


def test_old_workers_serve_until_new_ones_have_loaded(tmp_path: Path) -> None:
    models, gate = tmp_path / "models", tmp_path / "gate"
    gate.touch()
    factor_bundle(models, version="1", load_gate=str(gate))
    with Server(models, tmp_path, OPERATOR) as server:
        server.wait_ready()
        wait_loads(server, 2)
        factor_bundle(models, version="2", factor=3.0, load_gate=str(gate))
        gate.unlink()
        old = set(server.workers())
        with (
            Load(server.port, "/predict", FOUR, new=2, kept=2, expected=[EIGHT, TWELVE], pause_seconds=0.02) as load,
            RawClient(server.port, b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n") as kept,
        ):
            kept.read_until(LIVE)
            load.wait_ok(20)
            os.kill(server.pid, signal.SIGHUP)
            server.wait_for(lambda: len(server.workers()) == 4, "four workers")
            # They can't load yet; meanwhile all is as it was.
            load.wait_ok(100)
            assert old < set(server.workers())
            assert server.post("/predict", FOUR).json == EIGHT
            # Again, while the first ones have not come far: those are no longer needed.
            second = set(server.workers()) - old
            os.kill(server.pid, signal.SIGHUP)
            server.wait_for(lambda: len(set(server.workers()) - old - second) == 2, "two newer ones")
            server.wait_for(lambda: not second & set(server.workers()), "rid of the superseded ones")
            load.wait_ok(20)
            gate.touch()
            server.wait_for(lambda: server.post("/predict", FOUR).json == TWELVE, "to the new version")
            wait_workers(server, 2, without=old | second)
            load.wait_ok(50)
            # This one had asked nothing for as long as its worker gave it.
            assert kept.read_to_end() == b""
            tally = load.stop()
        assert (tally.failures, tally.refused, tally.dropped) == ({}, 0, 0)
        assert server.stop() == 0


def test_a_stop_does_not_wait_for_workers_that_load(tmp_path: Path) -> None:
    models, gate = tmp_path / "models", tmp_path / "gate"
    gate.touch()
    factor_bundle(models, load_gate=str(gate))
    # Longer than the test waits for the end.
    with Server(models, tmp_path, OPERATOR | {"MUELLE_GRACEFUL_TIMEOUT_SECONDS": "60"}) as server:
        server.wait_ready()
        wait_loads(server, 2)
        gate.unlink()
        os.kill(server.pid, signal.SIGHUP)
        server.wait_for(lambda: len(server.workers()) == 4, "four workers")
        assert server.stop() == 0


def test_a_worker_that_takes_anothers_place_serves_the_same_versions(tmp_path: Path) -> None:
    models = tmp_path / "models"
    factor_bundle(models, version="1")
    with Server(models, tmp_path, OPERATOR) as server:
        server.wait_ready()
        wait_loads(server, 2)
        factor_bundle(models, version="2", factor=3.0)
        old = server.workers()
        kill(old[0])
        wait_loads(server, 3)
        kill(old[1])
        wait_loads(server, 4)
        # None of those who looked first is left, and still.
        assert all(server.post("/predict", FOUR).json == EIGHT for _ in range(20))
        assert server.get("/v2/models/double").json["versions"] == ["1"]

        # Asked before: the arbiter may have forked new ones by the time at which the signal is sent.
        before = set(server.workers())
        os.kill(server.pid, signal.SIGHUP)
        wait_workers(server, 2, without=before)
        assert all(server.post("/predict", FOUR).json == TWELVE for _ in range(20))

        # What has changed or gone under the server's feet is not served, in the worker that finds it so.
        shutil.rmtree(models / "double" / "1")
        shutil.rmtree(models / "double" / "2")
        factor_bundle(models, version="2", factor=4.0)
        kill(server.workers()[0])
        server.wait_for(lambda: server.get("/readyz").status == 503, "to say that it is not ready")
        reasons: list[str] = []
        server.wait_for(lambda: reasons.extend(server.get("/readyz").json.get("reasons", [])) or reasons, "a reason")
        assert reasons[0].startswith(f"double 1: {models}/double/1")
        assert reasons[1].startswith(f"double 2: {models}/double/2 has changed: expected sha256:")
        answers = [server.post("/predict", FOUR) for _ in range(20)]
        assert all(answer.json == TWELVE for answer in answers if answer.status != 503)
        assert server.stop() == 0


def test_when_all_workers_die_new_connections_wait_for_the_next_ones(repository: Path, tmp_path: Path) -> None:
    # Of one small model: after five seconds of loading the next one would answer 503 to those that wait.
    with Server(repository, tmp_path, {"MUELLE_WORKERS": "1", "MUELLE_SERVE": "linear"}) as server:
        server.wait_ready()
        with Load(server.port, LINEAR, FOUR, new=3, kept=0) as load:
            load.wait_ok(50)
            kill(server.workers()[0])
            load.wait_ok(50)
            tally = load.stop()
        # Each client may have had one request in the hands of the one that was killed, or in its queue.
        assert tally.failures.total() <= 3
        assert (tally.refused, tally.statuses.keys()) == (0, {200})


def test_when_all_workers_die_and_load_for_long_probes_are_answered(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    factor_bundle(tmp_path / "models", load_gate=str(gate))
    with Server(tmp_path / "models", tmp_path, OPERATOR) as server:
        server.wait_ready()
        wait_loads(server, 2)
        gate.unlink()
        for pid in server.workers():
            kill(pid)
        server.wait_answering()
        assert server.get("/readyz").json["reasons"] == ["double 1: loading"]
        gate.touch()
        server.wait_ready()
        wait_loads(server, 4)
        assert all(server.post("/predict", FOUR).json == EIGHT for _ in range(20))


def test_a_broken_keys_file_keeps_no_worker_from_starting(repository: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    (old, old_line), (new, new_line) = new_key("old"), new_key("new")
    keys.write_text(f"{old_line}\n")
    with Server(repository, tmp_path, {"MUELLE_API_KEYS_FILE": str(keys)}) as server:
        server.wait_ready()
        wait_loads(server, 6)

        def status(key: str) -> int:
            return server.post(LINEAR, FOUR, {"X-API-Key": key}).status

        keys.write_text(f"{new_line}\n")
        server.wait_for(lambda: "read again, 1 in force" in server.log_path.read_text(), "to see the new key")
        keys.write_text("broken")
        server.wait_for(lambda: "last good ones stay in force" in server.log_path.read_text(), "to see the broken file")
        kill(server.workers()[0])
        wait_loads(server, 9)
        before = set(server.workers())
        os.kill(server.pid, signal.SIGHUP)
        wait_workers(server, 2, without=before)
        # The last good ones, not those of the start: the old key was taken away.
        assert [status(new) for _ in range(10)] == [200] * 10
        assert [status(old) for _ in range(10)] == [403] * 10
        assert server.stop() == 0


def test_a_worker_that_can_not_start_does_not_end_the_server(repository: Path, tmp_path: Path) -> None:
    metrics = tmp_path / "metrics"
    with Server(repository, tmp_path, {"MUELLE_METRICS_DIR": str(metrics)}) as server:
        server.wait_ready()
        wait_loads(server, 6)
        # Without its folder no worker can make its metrics.
        away = metrics.rename(tmp_path / "away")
        killed, left = server.workers()
        kill(killed)
        server.wait_for(lambda: "the next try is in 5 s" in server.log_path.read_text(), "to have tried")
        assert server.workers() == [left]
        assert [server.post(LINEAR, FOUR).status for _ in range(10)] == [200] * 10
        away.rename(metrics)
        wait_workers(server, 2)
        wait_loads(server, 9)
        found = scrape(server)
        assert total(found, "muelle_worker_failures_total", reason="signal") == 1
        assert total(found, "muelle_worker_failures_total", reason="boot") >= 1
        assert server.stop() == 0
