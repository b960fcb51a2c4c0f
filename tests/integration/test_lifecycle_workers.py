"""Workers that are killed, recycled, or stuck are replaced; counters never fall, and hardly anybody notices."""

from __future__ import annotations

import time
from pathlib import Path

from lifecycle import EIGHT, FOUR, LINEAR, OPERATOR, Watch, factor_bundle, kill, scrape, total, wait_loads, wait_workers
from load_client import Load
from operator_models import STUCK
from raw_client import RawClient
from support import Server

REQUESTS = "muelle_requests_total"
FAILURES = "muelle_worker_failures_total"
#: Between a client's connection and its first bytes, on a busy machine.
MOMENT_SECONDS = 0.5


def test_a_killed_worker_costs_only_the_requests_in_its_hands(repository: Path, tmp_path: Path) -> None:
    metrics = tmp_path / "metrics"
    with Server(repository, tmp_path, {"MUELLE_METRICS_DIR": str(metrics)}) as server:
        server.wait_ready()
        wait_loads(server, 6)
        gone: list[float] = []
        with Load(server.port, LINEAR, FOUR, new=3, kept=3) as load, Watch(server, metrics) as watch:
            for _ in range(3):
                load.wait_ok(100)
                before = server.workers()
                kill(before[0])
                gone.append(time.monotonic())
                assert before[1] in wait_workers(server, 2, without={before[0]})
                # So far apart that each loss belongs to one of them.
                time.sleep(2 * MOMENT_SECONDS)
                load.wait_ok(100)
            tally = load.stop()
        failed = [outcome for outcome in tally.outcomes if outcome.failure or outcome.status != 200]
        assert tally.refused == 0
        assert all(outcome.status is None for outcome in failed), tally.failures
        # A client has one request on its way at a time. Who had connected before the worker was gone may write to it a
        # moment later; who connects after that never meets it.
        ends = [end + MOMENT_SECONDS for end in gone]
        for start, end, dead in zip([0.0, *ends], ends, gone, strict=False):
            lost = [outcome for outcome in failed if outcome.sent is not None and start < outcome.sent <= end]
            assert len(lost) <= 6
            assert all(outcome.connected is not None and outcome.connected <= dead for outcome in lost)
        late = [outcome for outcome in failed if outcome.sent is None or outcome.sent > ends[-1]]
        assert late == []
        assert watch.falls == []
        assert len(watch.failures) <= len(gone)
        server.wait_for(lambda: total(scrape(server), "muelle_requests_in_progress") == 0, "idle")
        assert total(scrape(server), FAILURES, reason="signal") == total(scrape(server), FAILURES) == len(gone)
        # What the killed ones had counted in their last half second is lost; nothing is counted twice.
        counted = total(scrape(server), REQUESTS, model="linear", code="200")
        assert 0 < counted <= tally.ok + len(failed)


def test_recycled_workers_fail_nobody_and_count_everything(repository: Path, tmp_path: Path) -> None:
    metrics = tmp_path / "metrics"
    settings = {
        "MUELLE_MAX_REQUESTS": "50",
        "MUELLE_MAX_REQUESTS_JITTER": "10",
        "MUELLE_METRICS_DIR": str(metrics),
    }
    with Server(repository, tmp_path, settings) as server:
        server.wait_ready()
        wait_loads(server, 6)
        seen = set(server.workers())
        with Load(server.port, LINEAR, FOUR, new=3, kept=3) as load:
            with Watch(server, metrics) as watch:
                while load.busy and (len(seen) < 6 or watch.scrapes <= 5):
                    seen |= set(server.workers())
                    time.sleep(0.02)
            tally = load.stop()
        assert tally.failures == {}
        assert (tally.refused, tally.dropped, tally.ok) == (0, 0, tally.sent)
        assert watch.falls == []
        assert watch.failures == []
        assert watch.scrapes > 5
        # Each slot has a counter, a histogram, two gauges, an account (for an instant two) and a memory; the arbiter
        # has two of these. There are three slots, as one worker is replaced at a time; what all of them serve, for an
        # instant twice; and the lock of those who count labels.
        assert watch.files <= 3 * 7 + 3 + 2 + 1
        assert len(seen) >= 6
        server.wait_for(lambda: total(scrape(server), REQUESTS, code="200") == tally.ok, "to have counted everything")
        found = scrape(server)
        assert total(found, REQUESTS) == tally.ok
        for histogram in ("muelle_request_duration_seconds", "muelle_batch_rows"):
            assert total(found, f"{histogram}_count") == tally.ok
        assert total(found, "muelle_requests_in_progress") == 0
        assert total(found, FAILURES) == 0
        assert server.stop() == 0
        assert not [line for line in server.log() if line["level"] in ("warning", "error", "critical")]


def test_a_worker_whose_threads_are_stuck_in_a_model_is_replaced(tmp_path: Path) -> None:
    factor_bundle(tmp_path / "models")
    settings = {"MUELLE_REQUEST_TIMEOUT_SECONDS": "1", "MUELLE_WORKERS": "1"}
    with Server(tmp_path / "models", tmp_path, OPERATOR | settings) as server:
        server.wait_ready()
        old = set(server.workers())
        body = b'{"features": [%d]}' % STUCK
        request = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        # As many as there are threads, so that nobody is served any more.
        with RawClient(server.port, request) as first, RawClient(server.port, request) as second:
            wait_workers(server, 1, without=old)
            assert (first.read_to_end(), second.read_to_end()) == (b"", b"")
            # Where loading takes long, the next one says so after five seconds.
            server.wait_ready()
            assert server.post("/predict", FOUR).json == EIGHT
        assert total(scrape(server), FAILURES, reason="timeout") == total(scrape(server), FAILURES) == 1
        assert server.stop() == 0
        assert [line["level"] for line in server.log() if "WORKER TIMEOUT" in line["message"]] == ["critical"]
