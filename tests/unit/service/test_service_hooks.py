"""gunicorn's hooks: slots, who waits for whom before it listens, and whose folder it is."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import values

from service.board import Board, State
from service.companions import Companions
from service.hooks import Hooks
from service.settings import Settings

# A process that makes hooks as gunicorn does, reads its configuration anew, forks, and ends.
PROCESS = """
import os, sys
from service.hooks import Hooks
from service.settings import Settings
first = Hooks(Settings())
again = Hooks(Settings())
assert first.directory == again.directory
pid = os.fork()
if pid == 0:
    sys.exit(0)
os.waitpid(pid, 0)
print(first.directory, first.directory.is_dir(), os.environ["PROMETHEUS_MULTIPROC_DIR"])
sys.exit(1)
"""

# What happens in a worker, at the end of `Arbiter.spawn_worker`.
LEAVING = """
import atexit, os
from types import SimpleNamespace
from service.hooks import Hooks
from service.settings import Settings
hooks = Hooks(Settings())
hooks._slot = 0
atexit.register(print, "an exit handler")
metrics = SimpleNamespace(close=lambda: print("counts carried over"))
service = SimpleNamespace(metrics=metrics, access_log=None)
worker = SimpleNamespace(pid=os.getpid(), wsgi=SimpleNamespace(extensions={"muelle": service}))
try:
    raise LEAVING
finally:
    hooks.worker_exit(None, worker)
"""


class Models:
    """Models that load for as long as a test wants."""

    def __init__(self) -> None:
        self.loaded = threading.Event()
        self.looks = 0

    @property
    def loading(self) -> bool:
        self.looks += 1
        return not self.loaded.is_set()

    def wait(self) -> None:
        assert self.loaded.wait(30)


def make_worker(age: int) -> Any:
    """Return what the hooks know of a gunicorn worker; its `notify` counts."""
    notified: list[float] = []
    app = SimpleNamespace(extensions={"muelle": SimpleNamespace(models=Models())})
    return SimpleNamespace(
        age=age,
        alive=True,
        is_parent_alive=lambda: True,
        wsgi=app,
        notified=notified,
        notify=lambda: notified.append(time.monotonic()),
    )


def run_process(code: str, temporary: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"TMPDIR": str(temporary)} | environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def models_of(worker: Any) -> Models:
    models: Models = worker.wsgi.extensions["muelle"].models
    return models


@pytest.fixture
def hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hooks:
    # What they set for the whole process is put back at the end.
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "elsewhere")
    return Hooks(Settings(metrics_dir=tmp_path / "metrics"))


@pytest.fixture
def server(hooks: Hooks) -> Any:
    arbiter = SimpleNamespace(WORKERS={}, board=Board(), companions=Companions())
    hooks.on_starting(arbiter)
    return arbiter


def fork(hooks: Hooks, server: Any, age: int) -> Any:
    """Do what happens in the arbiter when a worker is forked."""
    worker = make_worker(age)
    hooks.pre_fork(server, worker)
    server.WORKERS[1000 + age] = worker
    return worker


def until(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_each_worker_has_the_lowest_free_slot(hooks: Hooks, server: Any) -> None:
    workers = [fork(hooks, server, age) for age in (1, 2, 3)]
    assert [worker.slot for worker in workers] == [0, 1, 2]
    del server.WORKERS[1002]
    assert fork(hooks, server, 4).slot == 1


def test_a_start_forgets_what_an_earlier_server_counted(hooks: Hooks) -> None:
    hooks.directory.mkdir()
    for name in ("counter_w0.db", "slot_0.txt", "selection-0.json"):
        (hooks.directory / name).write_bytes(b"old")
    hooks.on_starting(SimpleNamespace(WORKERS={}))
    assert [path.name for path in hooks.directory.iterdir()] == ["slot_arbiter.txt"]


def test_a_worker_claims_its_slot_and_the_arbiter_retires_it(hooks: Hooks, server: Any) -> None:
    worker = fork(hooks, server, 1)
    hooks.post_fork(server, worker)
    assert (hooks.directory / "slot_0.txt").read_text().split()[0] == str(os.getpid())
    gauge = hooks.directory / "gauge_livesum_w0.db"
    counter = hooks.directory / "counter_w0.db"
    gauge.touch()
    counter.touch()
    hooks.child_exit(server, worker)
    assert (hooks.directory / "slot_0.txt").read_text().split()[0] == "0"
    assert (gauge.exists(), counter.exists()) == (False, True)


def test_the_first_worker_listens_at_once_and_tells_when_it_has_loaded(hooks: Hooks, server: Any) -> None:
    worker = fork(hooks, server, 1)
    assert server.board[0] == State.FIRST
    hooks.post_worker_init(worker)
    assert server.board[0] == State.FIRST
    models_of(worker).loaded.set()
    until(lambda: server.board[0] == State.LOADED)


def wait_in_a_thread(hooks: Hooks, worker: Any) -> threading.Thread:
    waiting = threading.Thread(target=hooks.post_worker_init, args=[worker], daemon=True)
    waiting.start()
    return waiting


@pytest.mark.parametrize("order", ["first before second", "second before first"])
def test_the_second_worker_waits_for_itself_and_for_the_first(order: str, hooks: Hooks, server: Any) -> None:
    first, second = fork(hooks, server, 1), fork(hooks, server, 2)
    assert server.board[1] == State.LOADING
    hooks.post_worker_init(first)
    waiting = wait_in_a_thread(hooks, second)
    earlier, later = (first, second) if order == "first before second" else (second, first)
    models_of(earlier).loaded.set()
    until(lambda: server.board[earlier.slot] == State.LOADED)
    told = len(second.notified)
    until(lambda: len(second.notified) > told + 3)
    # The arbiter is told all the time that it lives.
    assert waiting.is_alive()
    models_of(later).loaded.set()
    waiting.join(30)
    assert not waiting.is_alive()
    assert server.board[1] == State.LOADED


def test_nobody_waits_for_a_first_worker_that_is_gone(hooks: Hooks, server: Any) -> None:
    first, second = fork(hooks, server, 1), fork(hooks, server, 2)
    hooks.post_fork(server, first)
    waiting = wait_in_a_thread(hooks, second)
    models_of(second).loaded.set()
    until(lambda: server.board[1] == State.LOADED)
    assert waiting.is_alive()
    hooks.child_exit(server, first)
    waiting.join(30)
    assert not waiting.is_alive()


def test_a_worker_is_the_first_again_when_no_other_serves(hooks: Hooks, server: Any) -> None:
    first = fork(hooks, server, 1)
    hooks.post_fork(server, first)
    del server.WORKERS[1001]
    hooks.child_exit(server, first)
    second = fork(hooks, server, 2)
    assert server.board[0] == State.FIRST
    # New connections wait for it a little, as it may be soon done.
    waiting = wait_in_a_thread(hooks, second)
    until(lambda: len(second.notified) > 3)
    assert waiting.is_alive()
    models_of(second).loaded.set()
    waiting.join(30)
    until(lambda: server.board[0] == State.LOADED)


def test_the_first_worker_again_listens_before_clients_lose_patience(
    hooks: Hooks, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.hooks._PATIENCE_SECONDS", 0.1)
    worker = fork(hooks, server, 2)
    hooks.post_worker_init(worker)
    assert server.board[0] == State.FIRST
    models_of(worker).loaded.set()
    until(lambda: server.board[0] == State.LOADED)


@pytest.mark.parametrize("why", ["told to stop", "the arbiter is gone"])
def test_a_worker_that_must_not_listen_any_more_ends(why: str, hooks: Hooks, server: Any) -> None:
    fork(hooks, server, 1)
    second = fork(hooks, server, 2)
    second.alive = why != "told to stop"
    second.is_parent_alive = lambda: why != "the arbiter is gone"
    second.notify = lambda: pytest.fail("it waits on")
    with pytest.raises(SystemExit) as raised:
        hooks.post_worker_init(second)
    assert raised.value.code == 0


@pytest.mark.parametrize(
    ("leaving", "status"),
    [("SystemExit()", 0), ("SystemExit(0)", 0), ("SystemExit(3)", 3), ("SystemExit('why')", 1), ("OSError('x')", 1)],
)
def test_a_worker_ends_with_its_status_and_past_all_exit_handlers(leaving: str, status: int, tmp_path: Path) -> None:
    done = run_process(LEAVING.replace("LEAVING", leaving), tmp_path)
    assert (done.returncode, done.stdout) == (status, "counts carried over\n"), done.stderr


def test_the_arbiter_goes_on_when_a_worker_was_gone_before(hooks: Hooks, server: Any) -> None:
    hooks.worker_exit(server, SimpleNamespace(pid=os.getpid() + 1))


def test_a_temporary_folder_is_one_for_all_reloads_and_removed_at_the_end(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    done = run_process(PROCESS, tmp_path, PROMETHEUS_MULTIPROC_DIR=str(theirs))
    assert done.returncode == 1, done.stderr
    directory, existed, told = done.stdout.split()
    assert Path(directory).parent == tmp_path
    # The child that ended before left it alone.
    assert (existed, told) == ("True", directory)
    assert not Path(directory).exists()
    assert theirs.is_dir()
