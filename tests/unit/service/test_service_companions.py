"""Companions of a real arbiter: a process that forks them, reaps whatever ends, and is killed itself."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from service.companions import Companion, Companions
from service.metrics import exposed
from service.slots import SlotValues

# What the arbiter does about companions. Each line of its standard input is evaluated there.
ARBITER = """
import json, logging, os, select, signal, socket, sys, threading, time
from pathlib import Path
from prometheus_client import CollectorRegistry, Counter
import service.companions as module
from muelle.errors import StoreError
from service.slots import install_slot_values, prepare_directory

directory = Path(sys.argv[1])
logging.basicConfig(filename=directory.parent / "log", format="%(message)s")
module._FIRST_PAUSE_SECONDS = 0.01
module._LAST_SECONDS = float(os.environ.get("LAST_SECONDS", "30"))
prepare_directory(directory)
install_slot_values(directory, lambda: None)
listener = socket.create_server(("127.0.0.1", 0))

def say(word):
    with open(directory.parent / "said", "a") as file:
        file.write(f"{word} {os.getpid()}\\n")

def wait(stop):
    say("began")
    stop.wait()
    say("ended")

def deaf(stop):
    say("began")
    time.sleep(60)

def fail(stop):
    raise ValueError("why it failed")

def refuse(stop):
    raise StoreError("what it was refused")

def leave(stop):
    pass

def count(stop):
    counter = Counter("muelle_tried_total", "Tries.", registry=CollectorRegistry())
    counter.inc()
    for _ in range(200_000):
        pass
    wait(stop)

def accept(stop):
    say("began")
    listener.settimeout(0.05)
    while not stop.is_set():
        try:
            listener.accept()[0].sendall(b"hello")
        except TimeoutError:
            pass

jobs = [module.Companion(name, globals()[name], (listener,) if name == "accept" else ()) for name in sys.argv[2:]]
companions = module.Companions(jobs, directory)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, lambda *_: None)
while True:
    companions.keep(lambda: None)
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            companions.bury(pid, status)
    except ChildProcessError:
        pass
    if select.select([sys.stdin], [], [], 0.01)[0]:
        order = sys.stdin.readline()
        print(json.dumps(eval(order)), flush=True)
"""


class Arbiter:
    """The process; `do` evaluates an expression there."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder = folder
        self.directory = folder / "metrics"
        self.directory.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-c", ARBITER, str(self.directory), *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # A group of its own, as a terminal gives it.
            start_new_session=True,
        )

    def do(self, expression: str) -> object:
        """Return what the expression is there."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{expression}\n")
        self.process.stdin.flush()
        answer: object = json.loads(self.process.stdout.readline())
        return answer

    def said(self, word: str) -> list[int]:
        """Return the process ids of the companions that said this."""
        path = self.folder / "said"
        lines = path.read_text().splitlines() if path.exists() else []
        return [int(line.split()[1]) for line in lines if line.startswith(word)]

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def began(self, count: int = 1) -> int:
        """Wait for the companion to begin for that time, and return its process id."""
        until(lambda: len(self.said("began")) >= count)
        return self.said("began")[count - 1]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Arbiter]]:
    made: list[Arbiter] = []

    def begin(*names: str) -> Arbiter:
        made.append(Arbiter(tmp_path, *names))
        return made[-1]

    yield begin
    for arbiter in made:
        arbiter.process.kill()
        with arbiter.process:
            pass


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def gone(pid: int) -> bool:
    """Whether the process has ended; what is left of an orphan is reaped by whoever adopted it."""
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True


def test_one_runs_until_the_arbiter_lets_it_go(start: Callable[..., Arbiter]) -> None:
    arbiter = start("wait")
    pid = arbiter.began()
    assert arbiter.said("ended") == []
    arbiter.do("companions.stop(30)")
    # stop() returned when it had gone, and starts no other.
    assert arbiter.said("ended") == [pid]
    assert gone(pid)
    assert arbiter.do("companions.stop(30)") is None
    assert arbiter.do("companions.keep(lambda: None)") is None
    assert len(arbiter.said("began")) == 1
    assert arbiter.log() == ""


def test_it_ends_when_the_arbiter_was_killed(start: Callable[..., Arbiter], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAST_SECONDS", "0.3")
    arbiter = start("wait", "deaf")
    until(lambda: len(arbiter.said("began")) == 2)
    arbiter.process.kill()
    until(lambda: len(arbiter.said("ended")) == 1)
    # Also the one that doesn't look at its event.
    until(lambda: all(gone(pid) for pid in arbiter.said("began")))


def test_signals_to_the_whole_group_are_not_for_companions(start: Callable[..., Arbiter]) -> None:
    arbiter = start("wait")
    pid = arbiter.began()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.killpg(arbiter.process.pid, number)
    for number in (signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(pid, number)
    arbiter.do("companions.stop(30)")
    assert (arbiter.said("began"), arbiter.said("ended")) == ([pid], [pid])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("fail", "companion fail failed\nTraceback"),
        ("refuse", "companion refuse failed: what it was refused\n"),
        ("leave", "companion leave ended by itself with exit code 0; the next start is in 0 s\n"),
    ],
)
def test_one_that_ends_is_started_anew_and_the_reason_is_logged_once(
    name: str, reason: str, start: Callable[..., Arbiter]
) -> None:
    arbiter = start(name)
    until(lambda: (arbiter.folder / "log").exists() and arbiter.log().count(f"companion {name}") >= 3)
    arbiter.do("companions.stop(30)")
    assert arbiter.log().startswith(reason)
    assert arbiter.log().count(f"companion {name}") == arbiter.log().count(reason.splitlines()[0])


def test_one_that_is_killed_is_started_anew_and_counts_on(start: Callable[..., Arbiter]) -> None:
    arbiter = start("count")
    for life in (1, 2, 3):
        pid = arbiter.began(life)
        account = arbiter.directory / "slot_count.txt"
        assert int(account.read_text().split()[0]) == pid
        os.kill(pid, signal.SIGKILL)
        until(lambda life=life: arbiter.log().count("was killed by SIGKILL") == life)
    arbiter.began(4)
    page, _ = exposed([SlotValues(arbiter.directory)], None)
    samples = {sample.name: sample.value for family in parse(page.decode()) for sample in family.samples}
    assert samples["muelle_tried_total"] == 4
    # What the dead ones used of the CPU is booked to their slot.
    assert int(account.read_text().split()[1]) > 0


def test_one_that_dies_again_and_again_is_started_later_and_later(tmp_path: Path) -> None:
    companions = Companions([Companion("never", lambda stop: None)], tmp_path)
    (post,) = companions._posts
    pauses = []
    for _ in range(9):
        post.pid, post.started = 999_999_999, time.monotonic()
        assert companions.bury(post.pid, signal.SIGKILL)
        pauses.append(round(post.next_start - time.monotonic()))
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    # One that had lived for long starts from the beginning.
    post.pid, post.started = 999_999_999, time.monotonic() - 61
    companions.bury(post.pid, signal.SIGKILL)
    assert round(post.next_start - time.monotonic()) == 1
    assert not companions.bury(1, 0)
    companions.stop(0)


def test_one_that_does_not_end_is_killed(start: Callable[..., Arbiter]) -> None:
    arbiter = start("deaf")
    pid = arbiter.began()
    arbiter.do("companions.stop(0.1)")
    assert gone(pid)
    assert "companion deaf" in arbiter.log()
    assert "not done after 0 s, killed" in arbiter.log()


def test_a_socket_is_its_companions_alone_and_survives_its_death(start: Callable[..., Arbiter]) -> None:
    arbiter = start("accept", "wait")
    until(lambda: len(arbiter.said("began")) == 2)
    port = arbiter.do("listener.getsockname()[1]")
    assert isinstance(port, int)

    def ask() -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            return connection.recv(5, socket.MSG_WAITALL)

    assert ask() == b"hello"
    os.kill(next(pid for pid in arbiter.said("began") if _listens(pid, port)), signal.SIGKILL)
    # Who connects now waits for the next one.
    assert ask() == b"hello"
    assert [_listens(pid, port) for pid in arbiter.said("began")[1:] if not gone(pid)].count(True) == 1
    # A worker gives back what is not its own.
    assert arbiter.do("companions.let_go()") is None
    assert arbiter.do("listener.fileno()") == -1


def _listens(pid: int, port: int) -> bool:
    """Whether the process holds the listening socket of that port."""
    inode = next(
        line.split()[9]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
    )
    links = (os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir())
    return f"socket:[{inode}]" in links


def test_without_companions_nothing_is_held() -> None:
    before = len(os.listdir("/proc/self/fd"))
    companions = Companions()
    assert len(os.listdir("/proc/self/fd")) == before
    companions.keep(lambda: None)
    companions.let_go()
    companions.stop(0)
