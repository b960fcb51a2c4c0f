"""Which requests may be answered in a worker's main thread."""

import contextlib
import socket

import pytest

from service.quick import Quickness, is_whole_and_small

BODY = b'{"features":[1,2]}'
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
REQUEST = HEAD % len(BODY) + BODY


@pytest.fixture
def pair():
    """A client's and a server's end of one TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        with client, server:
            yield client, server


def looked_at(pair, data):
    client, server = pair
    client.sendall(data)
    if data:
        server.recv(1, socket.MSG_PEEK)  # waits until something has come
    return is_whole_and_small(server)


def test_a_whole_small_post_is_seen_and_stays_where_it_is(pair):
    assert looked_at(pair, REQUEST)
    assert pair[1].recv(10_000) == REQUEST


def test_the_header_counts_in_any_spelling(pair):
    assert looked_at(pair, REQUEST.replace(b"Content-Length: ", b"content-length:"))


@pytest.mark.parametrize(
    "data",
    [
        REQUEST[:-1],
        REQUEST[: REQUEST.index(b"\r\n\r\n") + 2],
        REQUEST + b"P",
        REQUEST + REQUEST,
        REQUEST.replace(b"POST", b"GET "),
        HEAD.replace(b"Content-Length: %d", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
        REQUEST.replace(b"Content-Length: ", b"X-Content-Length: "),
        HEAD % 20_000 + b" " * 20_000,
        b"POST",
    ],
    ids=[
        "body not whole",
        "head not whole",
        "a byte too many",
        "pipelined",
        "another method",
        "chunked",
        "no length",
        "too large",
        "a beginning",
    ],
)
def test_anything_else_is_left_to_the_threads(pair, data):
    assert not looked_at(pair, data)


def test_silence_and_a_closed_connection_are_left_to_the_threads(pair):
    client, server = pair
    assert not is_whole_and_small(server)
    client.close()
    assert not is_whole_and_small(server)


def test_a_client_that_does_not_read_its_answers_is_left_to_the_threads(pair):
    client, server = pair
    server.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        for _ in range(10_000):
            server.send(b"x" * 65536)
    server.setblocking(True)
    assert not looked_at((client, server), REQUEST)


def test_nothing_is_expected_to_be_quick_before_some_were():
    quickness = Quickness()
    assert not quickness.expected
    for _ in range(101):
        quickness.add(0.001)
    assert quickness.expected


def test_one_slow_request_changes_nothing_and_some_change_all():
    quickness = Quickness()
    for _ in range(300):
        quickness.add(0.001)
    quickness.add(1.0)
    assert quickness.expected
    for _ in range(4):
        quickness.add(1.0)
    assert not quickness.expected
