"""The arbiter's way to hold off new connections, on real sockets; what it does with workers is tested with servers."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from service.arbiter import hold_off_new_connections


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
