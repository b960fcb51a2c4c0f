"""Metrics: what is counted, and that real worker processes share, lose and keep it as they should."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Histogram, values
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_classic

from service.metrics import (
    CODES,
    PROTOCOLS,
    SECONDS_BUCKETS,
    STAGES,
    Metrics,
)
from service.slots import install_slot_values, lowest_free_slot, mark_slot_dead, prepare_directory

Samples = dict[str, float]

# A worker process as gunicorn makes one, taking orders from its standard input.
WORKER = """
import json, os, sys
from pathlib import Path
from prometheus_client import CollectorRegistry
from service.metrics import Metrics
from service.slots import install_slot_values
directory, slot = Path(sys.argv[1]), int(sys.argv[2])
install_slot_values(directory, lambda: slot)
metrics = Metrics(CollectorRegistry(), directory)
iris = metrics.for_model("iris", "1")
for order in sys.stdin:
    answer = eval(order)
    print(json.dumps(answer if isinstance(answer, str) else None), flush=True)
"""


class Worker:
    """A process in a slot; `do` evaluates an expression there."""

    def __init__(self, directory: Path, slot: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(directory), str(slot)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.do("None")  # it has made its files

    def do(self, order: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        answer: str = json.loads(self.process.stdout.readline())
        return answer

    def samples(self) -> Samples:
        return samples(self.do("metrics.render(None)[0].decode()"))

    def end(self) -> None:
        self.process.communicate()
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    prepare_directory(tmp_path / "metrics")
    return tmp_path / "metrics"


@pytest.fixture
def workers(directory: Path) -> Iterator[list[Worker]]:
    started: list[Worker] = []
    yield started
    for worker in started:
        if worker.process.poll() is None:
            worker.kill()


def samples(page: str | bytes) -> Samples:
    text = page.decode() if isinstance(page, bytes) else page
    return {
        sample.name + "".join(f" {key}={sample.labels[key]}" for key in sorted(sample.labels)): sample.value
        for family in parse_classic(text)
        for sample in family.samples
    }


def openmetrics_names(page: str) -> set[str]:
    return {family.name for family in parse_openmetrics(page)}  # type: ignore[no-untyped-call]


def requests(code: int, model: str = "iris", protocol: str = "simple", version: str = "1") -> str:
    return f"muelle_requests_total code={code} model={model} protocol={protocol} version={version}"


IN_PROGRESS = "muelle_requests_in_progress model=iris version=1"


def test_nothing_is_registered_at_import() -> None:
    assert not [family.name for family in REGISTRY.collect() if "muelle" in family.name]
    assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ


def test_all_series_of_a_model_exist_at_zero() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.for_model("iris", "1")
    found = samples(metrics.render(None)[0])
    for protocol in PROTOCOLS:
        for code in CODES:
            assert found[requests(code, protocol=protocol)] == 0
    for stage in STAGES:
        assert found[f"muelle_stage_duration_seconds_count model=iris stage={stage} version=1"] == 0
    for name in (
        "request_duration_seconds_count",
        "batch_rows_count",
        "requests_in_progress",
        "model_load_failures_total",
        "model_not_loaded",
    ):
        assert found[f"muelle_{name} model=iris version=1"] == 0
    for reason in ("concurrency",):
        assert found[f"muelle_shed_total reason={reason}"] == 0


def test_one_record_counts_everything() -> None:
    metrics = Metrics(CollectorRegistry())
    model = metrics.for_model("iris", "1")
    model.record("oip", 200, 0.007, (0.0004, 0.0002, 0.006, 0.0001), 30)
    model.record("oip", 413, 0.02)
    found = samples(metrics.render(None)[0])
    assert found[requests(200, protocol="oip")] == 1
    assert found[requests(413, protocol="oip")] == 1
    assert found["muelle_request_duration_seconds_count model=iris version=1"] == 2
    assert found["muelle_request_duration_seconds_sum model=iris version=1"] == pytest.approx(0.027)
    assert found["muelle_request_duration_seconds_bucket le=0.01 model=iris version=1"] == 1
    assert found["muelle_stage_duration_seconds_sum model=iris stage=predict version=1"] == pytest.approx(0.006)
    assert found["muelle_stage_duration_seconds_count model=iris stage=encode version=1"] == 1
    assert found["muelle_batch_rows_sum model=iris version=1"] == 30
    assert found["muelle_batch_rows_bucket le=30.0 model=iris version=1"] == 1
    assert found["muelle_batch_rows_bucket le=10.0 model=iris version=1"] == 0


@pytest.mark.parametrize("seconds", [0.0, 0.0005, 0.00051, 0.1, 10.0, 10.1, 1e9])
def test_bins_are_those_of_prometheus_client(seconds: float) -> None:
    reference, metrics = CollectorRegistry(), Metrics(CollectorRegistry())
    Histogram(
        "muelle_request_duration_seconds", "-", ("model", "version"), buckets=SECONDS_BUCKETS, registry=reference
    ).labels("iris", "1").observe(seconds)
    metrics.for_model("iris", "1").record("simple", 200, seconds)
    found = samples(metrics.render(None)[0])
    for family in reference.collect():
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                labels = "".join(f" {key}={sample.labels[key]}" for key in sorted(sample.labels))
                assert found[sample.name + labels] == sample.value


def test_everything_else_goes_to_unknown() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.for_model().record("simple", 404, 0.001)
    assert samples(metrics.render(None)[0])[requests(404, "unknown", version="unknown")] == 1


def test_progress_shedding_and_loading() -> None:
    metrics = Metrics(CollectorRegistry())
    model = metrics.for_model("iris", "1")
    assert metrics.for_model("iris", "1") is model
    model.enter()
    model.enter()
    model.leave()
    metrics.shed("concurrency")
    model.load_failed()
    model.loaded("onnx", "sha256:ab", 0.25)
    found = samples(metrics.render(None)[0])
    assert found[IN_PROGRESS] == 1
    assert found["muelle_shed_total reason=concurrency"] == 1
    assert found["muelle_model_load_failures_total model=iris version=1"] == 1
    assert found["muelle_model_info digest=sha256:ab engine=onnx model=iris version=1"] == 1
    assert found["muelle_model_load_seconds model=iris version=1"] == 0.25


def test_no_count_is_lost_between_threads() -> None:
    metrics = Metrics(CollectorRegistry())
    model = metrics.for_model("iris", "1")

    def work() -> None:
        for _ in range(2000):
            model.enter()
            model.record("simple", 200, 0.001, (0.1, 0.1, 0.1, 0.1), 1)
            model.leave()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        metrics.flush()
    found = samples(metrics.render(None)[0])
    assert found[requests(200)] == 8000
    assert found["muelle_stage_duration_seconds_bucket le=0.1 model=iris stage=encode version=1"] == 8000
    assert found["muelle_batch_rows_sum model=iris version=1"] == 8000
    assert found[IN_PROGRESS] == 0


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        (None, False),
        ("*/*", False),
        ("text/plain;version=0.0.4", False),
        ("text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5", False),
        ("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3", True),
        ("application/openmetrics-text; version=nonsense", True),
        ("application/openmetrics-text; version=1.0.0.<b>", True),
    ],
)
def test_the_format_follows_accept(accept: str | None, openmetrics: bool) -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.for_model("iris", "1").loaded("onnx", "sha256:ab", 0.25)
    page, content_type = metrics.render(accept)
    if openmetrics:
        assert content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        assert openmetrics_names(page.decode())
    else:
        assert content_type == "text/plain; version=0.0.4; charset=utf-8"
        assert list(parse_classic(page.decode()))


def test_workers_add_up_and_a_scrape_of_ones_own_is_current(directory: Path, workers: list[Worker]) -> None:
    workers += [Worker(directory, 0), Worker(directory, 1)]
    first, second = workers
    for worker in workers:
        worker.do("[iris.record('simple', 200, 0.001, None, 1) for _ in range(3)]")
        worker.do("iris.enter()")
        worker.do("iris.loaded('onnx', 'sha256:ab', 0.5)")
    assert first.samples()[requests(200)] == 3
    found = second.samples()
    assert found[requests(200)] == 6
    assert found[IN_PROGRESS] == 2
    assert found["muelle_model_info digest=sha256:ab engine=onnx model=iris version=1"] == 1
    assert found["muelle_model_load_seconds model=iris version=1"] == 0.5
    page = second.do("metrics.render('application/openmetrics-text')[0].decode()")
    assert {"muelle_requests", "muelle_batch_rows"} <= openmetrics_names(page)


def test_a_recycled_worker_counts_on_and_its_gauges_start_anew(directory: Path, workers: list[Worker]) -> None:
    workers += [Worker(directory, 0), Worker(directory, 1)]
    old, other = workers
    old.do("metrics.start()")
    old.do("iris.record('simple', 200, 0.001)")
    old.do("iris.enter()")
    old.do("iris.loaded('onnx', 'sha256:old', 0.5)")
    old.end()  # carries over by itself when the interpreter ends
    files = sorted(path.name for path in directory.glob("*.db"))
    assert other.samples()[IN_PROGRESS] == 1
    mark_slot_dead(directory, 0)
    found = other.samples()
    assert found[requests(200)] == 1
    assert found[IN_PROGRESS] == 0
    assert not [name for name in found if name.startswith("muelle_model_info")]
    workers.append(Worker(directory, 0))
    new = workers[-1]
    new.do("iris.record('simple', 200, 0.001)")
    new.do("iris.loaded('joblib', 'sha256:new', 0.5)")
    found = new.samples()
    assert found[requests(200)] == 2
    assert found[IN_PROGRESS] == 0
    assert [name for name in found if name.startswith("muelle_model_info")] == [
        "muelle_model_info digest=sha256:new engine=joblib model=iris version=1"
    ]
    assert sorted(path.name for path in directory.glob("*.db")) == files


def test_a_kill_loses_only_what_was_not_yet_carried_over(directory: Path, workers: list[Worker]) -> None:
    workers += [Worker(directory, 0), Worker(directory, 1)]
    victim, other = workers
    victim.do("iris.record('simple', 200, 0.001)")
    victim.do("iris.enter()")
    victim.do("metrics.flush()")
    victim.do("iris.record('simple', 200, 0.001)")
    victim.kill()
    assert other.samples()[requests(200)] == 1
    # gunicorn loses track of some workers without calling child_exit: the next holder still starts from nothing.
    workers.append(Worker(directory, 0))
    found = workers[-1].samples()
    assert found[requests(200)] == 1
    assert found[IN_PROGRESS] == 0


def test_counts_reach_other_workers_without_a_scrape(directory: Path, workers: list[Worker]) -> None:
    workers += [Worker(directory, 0), Worker(directory, 1)]
    busy, other = workers
    busy.do("metrics.start()")
    busy.do("iris.record('simple', 200, 0.001)")
    deadline = time.monotonic() + 30
    while other.samples()[requests(200)] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_forked_workers_keep_apart_from_the_arbiter_and_each_other(directory: Path) -> None:
    # As gunicorn does it: values installed in the arbiter, slots given before each fork; three generations, two slots.
    script = """
import os, sys
from pathlib import Path
from prometheus_client import CollectorRegistry
from service.metrics import Metrics
from service.slots import install_slot_values, lowest_free_slot, mark_slot_dead, prepare_directory
from service.procfs import ProcessGroup, claim_slot
directory, slot = Path(sys.argv[1]), [None]
install_slot_values(directory, lambda: slot[0])
prepare_directory(directory)
arbiter = os.getpid()
for generation in range(3):
    used = {}
    for _ in range(2):
        number = lowest_free_slot(used.values())
        pid = os.fork()
        if pid == 0:
            slot[0] = number
            claim_slot(directory, number, os.getpid())
            metrics = Metrics(CollectorRegistry(), directory, ProcessGroup(directory, arbiter))
            model = metrics.for_model("iris", "1")
            model.enter()
            model.record("simple", 200, 0.001)
            metrics.close()
            if generation == 2 and number == 1:
                sys.stdout.buffer.write(metrics.render(None)[0])
            sys.exit(0)
        used[pid] = number
        os.waitpid(pid, 0)
    for number in used.values():
        mark_slot_dead(directory, number)
"""
    done = subprocess.run([sys.executable, "-c", script, str(directory)], capture_output=True, text=True, check=True)
    found = samples(done.stdout)
    assert found[requests(200)] == 6
    assert found[IN_PROGRESS] == 2  # both of the last generation, as none of them was declared dead yet
    assert {name for name in found if name.startswith("muelle_worker_cpu")} >= {
        "muelle_worker_cpu_seconds_total slot=1",
        "muelle_worker_cpu_seconds_total slot=arbiter",
    }
    assert {path.name for path in directory.glob("counter_*")} == {"counter_w0.db", "counter_w1.db"}


def test_a_file_that_has_just_been_made_does_not_break_a_scrape(directory: Path, workers: list[Worker]) -> None:
    workers.append(Worker(directory, 0))
    (directory / "counter_w1.db").touch()
    workers[0].do("iris.record('simple', 200, 0.001)")
    assert workers[0].samples()[requests(200)] == 1


def test_preparing_removes_ours_and_nothing_else(tmp_path: Path) -> None:
    for name in ("counter_w0.db", "gauge_livesum_w3.db", "slot_0.txt", "slots.csv", "notes.txt"):
        (tmp_path / name).write_text("x")
    prepare_directory(tmp_path)
    prepare_directory(tmp_path / "not" / "yet" / "there")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["not", "notes.txt", "slot_arbiter.txt", "slots.csv"]


def test_a_dead_slot_that_cannot_be_cleared_does_not_end_the_arbiter(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "gauge_livesum_w0.db").mkdir()
    with caplog.at_level(logging.ERROR):
        mark_slot_dead(tmp_path, 0)
    assert "its gauges could not be removed" in caplog.text


def test_the_lowest_free_slot() -> None:
    assert lowest_free_slot([]) == 0
    assert lowest_free_slot([0, 1, None]) == 2
    assert lowest_free_slot(iter([2, 0])) == 1


@pytest.fixture
def shared(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Metrics]:
    """Metrics in files, in this process."""
    # What is set for the whole process is put back at the end.
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setattr(values, "MmapedDict", values.MmapedDict)  # type: ignore[attr-defined]
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "elsewhere")
    install_slot_values(directory, lambda: 0)
    yield Metrics(CollectorRegistry(), directory)
    values.ValueClass.close_all_files()  # type: ignore[union-attr]


def no_room(*_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fill(metrics: Metrics) -> None:
    """Make series of requests until their file would have to grow; others of the same length don't fit either."""
    for number in range(1000):
        metrics.requests.labels("m", str(number), "simple", "415")


def test_no_file_has_a_hole(shared: Metrics, directory: Path) -> None:
    shared.for_model("iris", "1")
    fill(shared)
    files = {path.name: path.stat() for path in directory.glob("*.db")}
    assert len(files) == 4
    assert files["counter_w0.db"].st_size > 65536
    for name, status in files.items():
        assert status.st_blocks * 512 >= status.st_size, name


def test_without_room_for_a_new_series_it_is_an_error_and_the_worker_counts_on(
    shared: Metrics, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    iris = shared.for_model("iris", "1")
    with monkeypatch.context() as full:
        full.setattr(os, "posix_fallocate", no_room)
        with pytest.raises(OSError, match="No space left"):
            fill(shared)
        iris.record("simple", 415, 0.001)
        iris.record("simple", 200, 0.001)
        shared.render(None)
        found = samples(shared.render(None)[0])
        assert requests(415) not in found
        assert found[requests(200)] == 1
        assert caplog.text.count("metrics could not be carried over") == 1
    found = samples(shared.render(None)[0])
    assert (found[requests(415)], found[requests(200)]) == (1, 1)


def test_without_room_for_the_first_file_there_is_none_and_a_later_attempt_finds_room(
    shared: Metrics, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        full.setattr(os, "posix_fallocate", no_room)
        with pytest.raises(OSError, match="No space left"):
            shared.duration.labels("iris", "1")
        assert samples(shared.render(None)[0])
    shared.duration.labels("iris", "1")
    assert (directory / "histogram_w0.db").stat().st_size == 65536


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EBADF])
def test_a_file_system_that_can_not_allocate_is_used_all_the_same(
    number: int, shared: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    shared.for_model("iris", "1")
    assert samples(shared.render(None)[0])[requests(200)] == 0


def test_a_model_without_room_for_its_series_is_served_and_gets_them_later(
    shared: Metrics, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rose = shared.for_model("rose", "1")
    with monkeypatch.context() as full:
        full.setattr(os, "posix_fallocate", no_room)
        with pytest.raises(OSError, match="No space left"):
            fill(shared)
        iris = shared.for_model("iris", "1")
        iris.load_failed()
        shared.for_model("lily", "1").loaded("onnx", "sha256:aa" * 9000, 1.0)
        for model in (iris, rose):
            model.record("simple", 200, 0.001, rows=2)
        assert "iris 1: no room for its metrics yet: [Errno 28]" in caplog.text
        assert "lily 1: no room yet to say that it is loaded: [Errno 28]" in caplog.text
        found = samples(shared.render(None)[0])
        # Those of the others are carried over all the same.
        assert found[requests(200, "rose")] == 1
        assert requests(200) not in found
    found = samples(shared.render(None)[0])
    assert (found[requests(200)], found[requests(500)]) == (1, 0)
    assert found["muelle_batch_rows_sum model=iris version=1"] == 2
    assert found["muelle_model_load_failures_total model=iris version=1"] == 1
    assert found["muelle_model_not_loaded model=iris version=1"] == 1
    assert found["muelle_model_not_loaded model=lily version=1"] == 0
    assert found["muelle_model_load_seconds model=lily version=1"] == 1
