"""Labels at real servers: many workers, workers that are replaced or killed, reloads, and other replicas."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from lifecycle import LINEAR, kill, scrape, total, wait_loads, wait_workers
from support import Answer, Server, free_port

from service.auth import new_key

IRIS = "/models/iris/predict"
ROW = [5.1, 3.5, 1.4, 0.2]


def predict(
    server: Server, number: int, *, rows: int = 1, headers: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """Ask so often, each time on a connection of its own, and return a label for each row."""
    labels = []
    for _ in range(number):
        answer = server.post(IRIS, {"features": [ROW] * rows}, headers)
        assert answer.status == 200, answer.body
        labels += [{"request_id": answer.headers["x-request-id"], "row": row, "label": 0} for row in range(rows)]
    return labels


def tell(server: Server, labels: Any, headers: dict[str, str] | None = None) -> dict[str, int]:
    """Send labels; the counts."""
    answer = server.post("/feedback", labels, headers)
    assert answer.status == 200, answer.body
    found: dict[str, int] = answer.json
    return found


def counts(matched: int = 0, duplicate: int = 0, unmatched: int = 0) -> dict[str, int]:
    return {"matched": matched, "duplicate": duplicate, "unmatched": unmatched}


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Three workers of two threads."""
    with Server(repository, tmp_path_factory.mktemp("feedback"), {"MUELLE_WORKERS": "3"}) as running:
        running.wait_ready()
        wait_loads(running, 9)
        yield running


def test_labels_find_their_predictions_whichever_workers_take_part(server: Server) -> None:
    labels = predict(server, 60, rows=3)
    assert tell(server, labels) == counts(matched=180)
    for _ in range(6):
        assert tell(server, labels) == counts(duplicate=180)


def test_of_many_who_bring_the_same_labels_at_once_one_counts_each(server: Server) -> None:
    before = total(scrape(server), "muelle_feedback_total", result="matched")
    labels = predict(server, 30, rows=5)
    answers: list[dict[str, int]] = []
    start = threading.Barrier(12)

    def bring() -> None:
        start.wait(60)
        answers.append(tell(server, labels))

    threads = [threading.Thread(target=bring) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(answers) == 12
    assert sum(answer["matched"] for answer in answers) == 150
    assert sum(answer["duplicate"] for answer in answers) == 11 * 150
    assert total(scrape(server), "muelle_feedback_total", result="matched") == before + 150


def test_a_batch_of_a_thousand_rows_is_matched_in_one_request(server: Server) -> None:
    assert tell(server, predict(server, 1, rows=1_000)) == counts(matched=1_000)


def test_what_killed_workers_answered_is_remembered_by_those_that_come_after(repository: Path, tmp_path: Path) -> None:
    settings = {"MUELLE_WORKERS": "2", "MUELLE_METRICS_DIR": str(tmp_path / "metrics")}
    with Server(repository, tmp_path, settings) as server:
        server.wait_ready()
        wait_loads(server, 6)
        labels = predict(server, 30, rows=2)
        tell(server, labels[:10])
        old = server.workers()
        for pid in old:
            kill(pid)
        wait_workers(server, 2, without=set(old))
        server.wait_ready()
        assert tell(server, labels) == counts(matched=50, duplicate=10)
        assert total(scrape(server), "muelle_feedback_total", result="matched") == 60
        # Slots, and with them files, are taken over.
        assert len(list((tmp_path / "metrics").glob("memory-w*.ring"))) == 2


def test_workers_that_are_recycled_forget_nothing(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository / "iris", tmp_path / "models" / "iris")
    settings = {"MUELLE_WORKERS": "2", "MUELLE_MAX_REQUESTS": "25"}
    with Server(tmp_path / "models", tmp_path, settings) as server:
        server.wait_ready()
        first = set(server.workers())
        labels: list[dict[str, Any]] = []

        def replaced() -> bool:
            # Chance may give one of them nearly all requests.
            labels.extend(predict(server, 10))
            return not first & set(server.workers())

        server.wait_for(replaced, "other workers")
        for start in range(0, len(labels), 1_000):
            chunk = labels[start : start + 1_000]
            assert tell(server, chunk) == counts(matched=len(chunk))


def test_a_reload_forgets_nothing_but_versions_that_it_takes_away(repository: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(repository / "iris", models / "iris")
    settings = {"MUELLE_WORKERS": "2"}
    with Server(models, tmp_path, settings) as server:
        server.wait_ready()
        kept = predict(server, 20)
        shutil.copytree(repository / "linear", models / "linear")
        _reload(server)
        assert tell(server, kept) == counts(matched=20)
        gone = predict(server, 20)
        shutil.rmtree(models / "iris")
        _reload(server)
        assert server.post(LINEAR, {"features": [1.0]}).status == 200
        assert tell(server, gone) == counts(unmatched=20)


def _reload(server: Server) -> None:
    old = set(server.workers())
    os.kill(server.pid, signal.SIGHUP)
    wait_workers(server, 2, without=old)
    server.wait_ready()


def test_a_new_server_in_the_same_folder_knows_nothing_of_the_last_ones_answers(
    repository: Path, tmp_path: Path
) -> None:
    # With one salt for both, keys of the last server's would be found.
    settings = {"MUELLE_METRICS_DIR": str(tmp_path / "metrics"), "PYTHONHASHSEED": "1"}
    with Server(repository, tmp_path, settings) as server:
        server.wait_ready()
        labels = predict(server, 5)
    with Server(repository, tmp_path, settings) as server:
        server.wait_ready()
        assert tell(server, labels) == counts(unmatched=5)


def test_without_room_for_memory_answers_go_on(repository: Path, tmp_path: Path) -> None:
    """A limit on files' sizes stands for a full disk."""
    settings = {"MUELLE_FEEDBACK_ROWS": "10000000", "MUELLE_WORKERS": "1"}
    prefix = ["/bin/sh", "-c", 'ulimit -f 100000; exec "$@"', "sh"]
    with Server(repository, tmp_path, settings, prefix) as server:
        server.wait_ready()
        assert tell(server, predict(server, 3)) == counts(unmatched=3)
        assert any("remembers no answers" in line["message"] for line in server.log())


class Replicas:
    """Two servers that are replicas of one another, as pods are: two addresses, one port."""

    def __init__(self, repository: Path, folder: Path, settings: dict[str, str] | None = None) -> None:
        port = free_port()
        addresses = ("127.0.0.1", "127.0.0.2")
        self.servers = []
        for address, other in (addresses, addresses[::-1]):
            (folder / address).mkdir()
            more = {
                "MUELLE_HOST": address,
                "MUELLE_PORT": str(port),
                "MUELLE_FEEDBACK_PEERS": f"{other}:{port}",
                **(settings or {}),
            }
            self.servers.append(Server(repository, folder / address, more))

    def __enter__(self) -> Sequence[Server]:
        for server in self.servers:
            server.__enter__()
        try:
            for server in self.servers:
                server.wait_ready()
                wait_loads(server, 6)
        except BaseException:
            self.__exit__()
            raise
        return self.servers

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            server.stop()


def test_a_label_goes_to_the_replica_that_answered(repository: Path, tmp_path: Path) -> None:
    with Replicas(repository, tmp_path) as (first, second):
        labels = predict(first, 10) + predict(second, 10)
        assert tell(first, [*labels, {"request_id": "nobodys", "label": 1}]) == counts(20, 0, 1)
        assert tell(second, labels) == counts(duplicate=20)
        # One object goes the same way, and its faults have no number.
        (label,) = predict(second, 1)
        refused = first.post("/feedback", {**label, "label": 9})
        assert (refused.status, refused.json["code"]) == (400, "unknown_class")
        assert refused.json["error"].startswith("label: expected one of the classes 0, 1, 2, got 9")
        refused = first.post("/feedback", [*labels[:3], {**label, "label": 9}])
        assert refused.json["error"].startswith("[3].label: expected one of the classes")
        assert tell(first, label) == counts(matched=1)
        # Labels are counted at once, so that any worker's page has them.
        pages = [scrape(server) for server in (first, second)]
        assert [total(page, "muelle_feedback_total", result="matched") for page in pages] == [10, 11]
        # Each unmatched label is counted by whom it was brought to.
        assert [total(page, "muelle_feedback_total", result="unmatched") for page in pages] == [1, 0]
        assert total(pages[0], "muelle_feedback_peer_requests_total", result="failed") == 0


def test_the_callers_key_goes_with_it(repository: Path, tmp_path: Path) -> None:
    key, line = new_key("clinic")
    (tmp_path / "keys").write_text(line)
    with Replicas(repository, tmp_path, {"MUELLE_API_KEYS_FILE": str(tmp_path / "keys")}) as (first, second):
        for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}):
            assert tell(first, predict(second, 5, headers=headers), headers) == counts(matched=5)
        assert first.post("/feedback", {"request_id": "a", "label": 1}).status == 401


def test_a_replica_that_hangs_or_is_down_costs_a_moment_and_its_labels_can_come_again(
    repository: Path, tmp_path: Path
) -> None:
    with Replicas(repository, tmp_path) as (first, second):
        own, others = predict(first, 5), predict(second, 5)
        stopped = [second.pid, *second.workers()]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            assert tell(first, own + others) == {**counts(matched=5, unmatched=5), "unreachable": 1}
            assert time.monotonic() - began < 10
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        second.wait_for(lambda: all(second.get("/livez").status == 200 for _ in range(10)), "awake")
        # It may have got round to those that were not waited for; in any case each counts once.
        again = tell(first, own + others)
        assert (again["matched"] + again["duplicate"], again["unmatched"]) == (10, 0)
        assert total(scrape(second), "muelle_feedback_total", result="matched") == 5
        second.stop()
        answer: Answer = first.post("/feedback", others)
        assert answer.json == {**counts(unmatched=5), "unreachable": 1}
        page = scrape(first)
        assert total(page, "muelle_feedback_peer_requests_total", result="failed") == 2
        assert total(page, "muelle_feedback_peer_requests_total", result="answered") == 1
