"""The metrics' own port of a real server: answered whatever the workers do, and all there is is in it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from lifecycle import (
    EIGHT,
    FOUR,
    LINEAR,
    OPERATOR,
    Watch,
    factor_bundle,
    holders,
    scrape,
    total,
    wait_loads,
)
from load_client import Load
from operator_models import FATAL
from raw_client import RawClient
from support import Server, free_port

REQUESTS = "muelle_requests_total"
FAILURES = "muelle_worker_failures_total"
BINS = "muelle_feature_bin_total"


def with_port(models: Path, folder: Path, **settings: str) -> tuple[Server, int, Path]:
    """Return a server that is yet to be started, its metrics port, and its metrics folder."""
    port, metrics = free_port(), folder / "metrics"
    chosen = {"MUELLE_METRICS_PORT": str(port), "MUELLE_METRICS_DIR": str(metrics)}
    return Server(models, folder, OPERATOR | chosen | settings), port, metrics


def workers(metrics: Path) -> set[int]:
    """Return the process ids of the workers."""
    return {pid for slot, pid in holders(metrics).items() if slot.isdigit()}


def test_it_answers_while_all_workers_are_busy_or_stand_still(tmp_path: Path) -> None:
    models, gate = tmp_path / "models", tmp_path / "gate"
    factor_bundle(models, predict_gate=str(gate))
    server, port, metrics = with_port(models, tmp_path, MUELLE_WORKERS="1", MUELLE_THREADS="2")
    with server:
        server.wait_ready()
        body = b'{"features": [1000]}'
        request = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        # As many as there are threads.
        clients = [RawClient(server.port, request) for _ in range(2)]
        server.wait_for(lambda: total(scrape(server, port), "muelle_requests_in_progress") == 2, "busy")
        with pytest.raises(TimeoutError):
            server.request("GET", "/metrics", timeout=1)
        assert total(scrape(server, port), "muelle_model_info", model="double") == 1
        gate.touch()
        for client in clients:
            client.read_until(b"}")
            client.socket.close()
        for pid in workers(metrics):
            os.kill(pid, signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            server.request("GET", "/metrics", timeout=1)
        found = scrape(server, port)
        for slot in ("arbiter", "0", "metrics"):
            assert total(found, "muelle_worker_cpu_seconds_total", slot=slot) > 0
            assert total(found, "muelle_worker_memory_bytes", slot=slot) > 1e6
        for pid in workers(metrics):
            os.kill(pid, signal.SIGCONT)
        server.wait_for(lambda: total(scrape(server, port), REQUESTS, code="200") == 2, "to have counted")
        assert server.stop() == 0


def test_both_ports_say_the_same(repository: Path, tmp_path: Path) -> None:
    server, port, _ = with_port(repository, tmp_path)
    with server:
        server.wait_ready()
        wait_loads(server, 6)
        for _ in range(5):
            server.post(LINEAR, FOUR)
        server.wait_for(lambda: total(scrape(server, port), REQUESTS, model="linear") == 5, "to have counted")
        # Another thread counts what was in them.
        bins = {"model": "linear", "feature": "predict"}
        server.wait_for(lambda: total(scrape(server, port), BINS, **bins) == 5, "to have counted all of them")
        # CPU and memory change from one look to the next.
        one, other = (
            {key: value for key, value in scrape(server, where).items() if not key[0].startswith("muelle_worker_")}
            for where in (None, port)
        )
        assert one == other
        assert {key for key, _ in scrape(server)} == {key for key, _ in scrape(server, port)}
        openmetrics = {"Accept": "application/openmetrics-text"}
        answers = [server.request("GET", "/metrics", headers=openmetrics, port=where) for where in (None, port)]
        assert answers[0].headers["content-type"] == answers[1].headers["content-type"]
        assert all(answer.body.endswith(b"# EOF\n") for answer in answers)
        for path in ("/", "/predict", "/readyz", "/ui"):
            assert server.request("GET", path, port=port).status == 404
        assert server.stop() == 0


def test_counters_never_fall_through_recycling_kills_and_reloads(repository: Path, tmp_path: Path) -> None:
    server, port, metrics = with_port(repository, tmp_path, MUELLE_MAX_REQUESTS="60", MUELLE_MAX_REQUESTS_JITTER="10")
    with server:
        server.wait_ready()
        wait_loads(server, 6)
        (companion,) = (pid for slot, pid in holders(metrics).items() if slot == "metrics")
        killed: list[int] = []
        seen = workers(metrics)
        with Load(server.port, LINEAR, FOUR, new=2, kept=2) as load, Watch(server, metrics, port) as watch:
            for turn in range(4):
                load.wait_ok(120)
                before = workers(metrics)
                # First the oldest, who may be on its way out by then, and later the youngest, whom nobody tells to go.
                by_age = [pid for pid in server.workers() if pid in before]
                going = by_age[-1 if turn == 2 else 0]
                if turn % 2:
                    os.kill(server.pid, signal.SIGHUP)
                else:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(going, signal.SIGKILL)
                    killed.append(going)
                server.wait_for(lambda going=going: going not in workers(metrics), "rid of it")
                # However slow the machine, each turn is looked at.
                looked = watch.scrapes
                server.wait_for(lambda looked=looked: watch.scrapes > looked + 2, "scraped")
                seen |= workers(metrics)
            load.wait_ok(120)
            tally = load.stop()
        assert watch.falls == []
        # However the workers go, this port is never without an answer.
        assert watch.failures == []
        assert watch.scrapes > 10
        assert len(seen) >= 6
        assert {code for code in tally.statuses if code not in (None, 200)} == set()
        server.wait_for(lambda: total(scrape(server, port), "muelle_requests_in_progress") == 0, "idle")
        found = scrape(server, port)
        # What the killed ones had counted in their last half second is lost; nothing is counted twice.
        assert 0 < total(found, REQUESTS) <= tally.sent
        ends = [line["message"] for line in server.log() if "was killed by SIGKILL" in line["message"]]
        # The oldest may just have ended by itself.
        assert [int(re.findall(r"pid (\d+)", end)[0]) for end in ends] in (killed, killed[1:])
        # Who had been told to go has not failed.
        untold = [end for end in ends if not end.endswith(", told to stop")]
        assert ends[-1] in untold
        assert total(found, FAILURES, reason="signal") == total(found, FAILURES) == len(untold)
        assert holders(metrics)["metrics"] == companion
        assert server.stop() == 0


def test_it_outlives_its_own_death_and_ends_with_the_server(repository: Path, tmp_path: Path) -> None:
    server, port, metrics = with_port(repository, tmp_path)
    with server:
        server.wait_ready()
        wait_loads(server, 6)
        before = scrape(server, port)
        pid = holders(metrics)["metrics"]
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(pid, number)
        os.kill(pid, signal.SIGKILL)
        # Who asks meanwhile waits for the next one, whose CPU time is counted on.
        after = scrape(server, port)
        slot = {"slot": "metrics"}
        cpu = "muelle_worker_cpu_seconds_total"
        assert total(after, cpu, **slot) >= total(before, cpu, **slot) > 0
        assert holders(metrics)["metrics"] != pid
        # It is no worker.
        assert total(after, FAILURES) == 0
        assert server.post(LINEAR, FOUR).json == EIGHT
        assert server.stop() == 0
        assert [line["message"] for line in server.log() if "companion" in line["message"]] == [
            "companion metrics was killed by SIGKILL; the next start is in 1 s"
        ]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)


def test_it_ends_when_the_arbiter_is_killed(repository: Path, tmp_path: Path) -> None:
    server, _, metrics = with_port(repository, tmp_path)
    with server:
        server.wait_ready()
        everybody = holders(metrics)
        os.kill(server.pid, signal.SIGKILL)
        assert server.process is not None
        server.process.wait(30)
    # A second server can have both ports at once when all have gone; whoever adopted them reaps them.
    with Server(repository, tmp_path, {"MUELLE_METRICS_DIR": str(tmp_path / "other")}) as other:
        other.wait_for(lambda: not any(map(_runs, everybody.values())), "rid of the old ones")


def _runs(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_workers_that_nobody_told_to_go_are_counted_by_reason(tmp_path: Path) -> None:
    models = tmp_path / "models"
    factor_bundle(models)
    server, port, metrics = with_port(models, tmp_path)
    with server:
        server.wait_ready()
        wait_loads(server, 2)
        assert sorted(dict(labels)["reason"] for name, labels in scrape(server, port) if name == FAILURES) == [
            "boot",
            "exit",
            "signal",
            "timeout",
        ]
        with RawClient(server.port, _post({"features": [FATAL]})) as client:
            assert client.read_to_end() == b""
        server.wait_for(lambda: total(scrape(server, port), FAILURES, reason="exit") == 1, "to have counted")
        wait_loads(server, 3)
        before = workers(metrics)
        os.kill(min(before), signal.SIGSEGV)
        server.wait_for(lambda: total(scrape(server, port), FAILURES, reason="signal") == 1, "to have counted")
        wait_loads(server, 4)
        # Told to go: by hand, by a reload, one too many.
        first = min(workers(metrics))
        os.kill(first, signal.SIGTERM)
        server.wait_for(lambda: first not in workers(metrics), "rid of one")
        wait_loads(server, 5)
        for number, count in ((signal.SIGHUP, 2), (signal.SIGTTIN, 3), (signal.SIGTTOU, 2)):
            before = workers(metrics)
            os.kill(server.pid, number)
            server.wait_for(
                lambda before=before, count=count: len(workers(metrics)) == count and workers(metrics) != before,
                f"{count} workers",
            )
        assert total(scrape(server, port), FAILURES) == 2
        assert server.stop() == 0
        ends = [line for line in server.log() if re.match(r"worker \d+ \(pid", line["message"])]
        assert [(line["level"], line["message"].partition(") ")[2]) for line in ends] == [
            ("error", "exited with code 5"),
            ("error", "was killed by SIGSEGV"),
            ("info", "exited with code 0"),
        ]


def _post(document: object) -> bytes:
    body = json.dumps(document).encode()
    return b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def test_a_port_that_is_taken_ends_the_start_with_one_sentence(repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        settings = {"MUELLE_HOST": "127.0.0.1", "MUELLE_PORT": str(free_port()), "MUELLE_METRICS_PORT": str(number)}
        done = subprocess.run(
            [sys.executable, "-m", "muelle.cli", "serve", "--models", str(repository)],
            env={key: value for key, value in os.environ.items() if not key.startswith("MUELLE_")} | settings,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"Error: MUELLE_METRICS_PORT: expected a port that is free on 127.0.0.1, got {number}: Address already in use\n"
    )
