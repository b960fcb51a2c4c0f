"""The arbiter's way to hold off new connections, on real sockets; what it does with workers is tested with servers."""

from __future__ import annotations

import errno
import logging
import signal
import socket
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.errors import HaltServer

from service.arbiter import Arbiter, hold_off_new_connections
from service.board import Board, State


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.create_server((request.param, 0), family=family) as made:
        yield made


def test_who_is_connected_is_served_and_who_comes_later_is_held_off(listener: socket.socket) -> None:
    address = listener.getsockname()[:2]
    with socket.create_connection(address, timeout=5) as waiting:
        waiting.sendall(b"before")
        hold_off_new_connections(listener)
        with pytest.raises(TimeoutError):
            socket.create_connection(address, timeout=0.2)
        # Nobody has slipped in: this one is all that there is to take.
        taken, _ = listener.accept()
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
        with taken:
            listener.close()
            waiting.sendall(b" and after")
            taken.settimeout(5)
            assert taken.recv(16, socket.MSG_WAITALL) == b"before and after"
            taken.sendall(b"answer")
            assert waiting.recv(64) == b"answer"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)


def test_where_it_is_not_possible_nothing_happens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.close()
        # A closed socket stands for a kernel that doesn't know the option.
        hold_off_new_connections(listener)


class Forking(Arbiter):
    """An arbiter with two workers, of which a test says how far they are."""

    def __init__(self, *states: State) -> None:
        self.board = Board()
        self.WORKERS = {100 + slot: worker(slot) for slot in range(len(states))}
        for slot, state in enumerate(states):
            self.board[slot] = state
        self._num_workers = 3
        self.app = SimpleNamespace(look_at_keys=lambda: None)
        self.companions = SimpleNamespace(keep=lambda leave: None)  # type: ignore[assignment]
        self.cfg = SimpleNamespace(child_exit=lambda arbiter, gone: None)
        self.log = logging.getLogger("test")
        self._deaths = None
        self._reloaded_age = self._next_fork = 0
        self._stopping = False
        self.forks = 0
        self.told: list[int] = []

    def spawn_worker(self) -> Any:
        self.forks += 1
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    def kill_worker(self, pid: int, sig: int) -> None:
        self.told.append(pid)


def worker(slot: int) -> Any:
    tmp = SimpleNamespace(close=lambda: None)
    return SimpleNamespace(slot=slot, age=slot + 1, told_to_stop=False, aborted=False, tmp=tmp)


def test_where_no_process_is_to_be_had_those_that_serve_go_on_and_it_is_tried_later() -> None:
    arbiter = Forking(State.LOADED, State.LOADED)
    for _ in range(2):
        arbiter.manage_workers()
    assert (arbiter.forks, arbiter.told) == (1, [])
    arbiter._next_fork = time.monotonic()
    arbiter.manage_workers()
    assert arbiter.forks == 2


@pytest.mark.parametrize(("state", "waits"), [(State.LOADED, False), (State.LOADING, True), (State.FIRST, True)])
def test_whoever_dies_before_it_answers_is_not_replaced_at_once(state: State, waits: bool) -> None:
    arbiter = Forking(State.LOADED, state)
    arbiter._bury_worker(101, signal.SIGKILL)
    arbiter.manage_workers()
    assert arbiter.forks == (0 if waits else 1)


def test_a_worker_that_could_not_start_ends_the_server_where_nobody_serves() -> None:
    arbiter = Forking(State.LOADED, State.LOADING)
    # What gunicorn's workers exit with.
    arbiter._bury_worker(101, Arbiter.WORKER_BOOT_ERROR << 8)
    arbiter.board[0] = State.LOADING
    arbiter.WORKERS[102] = worker(2)
    with pytest.raises(HaltServer, match="No worker could start"):
        arbiter._bury_worker(102, Arbiter.WORKER_BOOT_ERROR << 8)
