"""gunicorn's hooks: slots, who waits for whom before it listens, and whose folder it is."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import values

from service.board import Board, State
from service.companions import Companions
from service.hooks import Hooks, _remove_left_behind, _temporary_folder
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

# A server with one worker, as far as its folder is concerned; the worker ends when its standard input does.
SERVER = """
import os, sys
from service.hooks import Hooks
from service.settings import Settings
hooks = Hooks(Settings())
hooks.on_starting(None)
pid = os.fork()
if pid == 0:
    sys.stdin.read()
    os._exit(0)
print(hooks.directory, pid, flush=True)
os.waitpid(pid, 0)
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


class Started:
    """A process that runs `SERVER`."""

    def __init__(self, temporary: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            env=os.environ | {"TMPDIR": str(temporary)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        folder, worker = self.process.stdout.readline().split()
        self.folder, self.worker = Path(folder), int(worker)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def end(self) -> None:
        self.process.communicate(timeout=30)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Started]]:
    started: list[Started] = []

    def begin() -> Started:
        started.append(Started(tmp_path))
        return started[-1]

    yield begin
    for one in started:
        one.end()


def test_a_killed_servers_folder_is_removed_once_its_last_worker_is_gone(
    start: Callable[[], Started], tmp_path: Path
) -> None:
    killed = start()
    killed.kill()
    # Its worker lives, and counts in there.
    second = start()
    assert set(tmp_path.iterdir()) == {killed.folder, second.folder}
    os.kill(killed.worker, signal.SIGKILL)
    until(lambda: not is_locked(killed.folder))
    third = start()
    assert set(tmp_path.iterdir()) == {second.folder, third.folder}
    second.end()
    assert set(tmp_path.iterdir()) == {third.folder}


def is_locked(folder: Path) -> bool:
    with (folder / "server.lock").open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def left_behind(folder: Path) -> Path:
    """Make the folder of a server that was killed."""
    folder.mkdir()
    for name in ("server.lock", "counter_w0.db"):
        (folder / name).touch()
    return folder


def test_only_what_a_dead_server_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gone = left_behind(tmp_path / "muelle-metrics-gone")
    shipped = left_behind(tmp_path / "muelle-metrics-shipped")
    (shipped / "prediction-log").mkdir()
    unshipped = left_behind(tmp_path / "muelle-metrics-unshipped")
    (unshipped / "prediction-log").mkdir()
    (unshipped / "prediction-log" / "rows.jsonl").write_text("{}")
    theirs = left_behind(tmp_path / "theirs")
    link = tmp_path / "muelle-metrics-link"
    link.symlink_to(theirs)
    older = tmp_path / "muelle-metrics-older"
    older.mkdir()
    (tmp_path / "muelle-metrics-file").touch()
    starting = left_behind(tmp_path / "muelle-starting-now")
    _remove_left_behind(tmp_path)
    assert not gone.exists()
    assert not shipped.exists()
    for kept in (unshipped, theirs, older, starting):
        assert kept.is_dir()
        assert kept == older or (kept / "counter_w0.db").exists()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(unshipped) in caplog.text
    other = left_behind(tmp_path / "muelle-metrics-other")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    _remove_left_behind(tmp_path)
    assert other.is_dir()


def test_without_locks_a_folder_is_never_taken_for_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = _temporary_folder.__wrapped__()
    monkeypatch.undo()
    _remove_left_behind(tmp_path)
    assert folder.is_dir()
