"""Reading bodies past gunicorn's buffers."""

import contextlib
import gzip
import io
import socket
import threading

import pytest
from gunicorn.http.body import Body, LengthReader
from gunicorn.http.unreader import SocketUnreader
from hypothesis import given, settings
from hypothesis import strategies as st

from muelle.errors import InputError
from service.body import BodyTooLargeError, ContentTypeError, check_json_type, read_body
from service.exchange import KEY, Exchange

LIMIT = 200_000


def environ_of(stream, length=None, **headers):
    environ = {"wsgi.input": stream, KEY: Exchange(None), **headers}
    return environ if length is None else environ | {"CONTENT_LENGTH": str(length)}


def over_a_socket(data, length, ahead=0):
    """Send data to a stream as gunicorn makes it, of which it has read the first bytes with the header already."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        unreader = SocketUnreader(ours)
        unreader.unread(data[:ahead])

        def send():
            # What nobody wants to read any more can't be sent.
            with contextlib.suppress(BrokenPipeError):
                theirs.sendall(data[ahead:])
                theirs.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        reader = LengthReader(unreader, length)
        try:
            return read_body(environ_of(Body(reader), length), LIMIT), unreader.read(), reader.length
        finally:
            ours.shutdown(socket.SHUT_RD)
            sender.join()


@settings(max_examples=60)
@given(st.integers(0, 100_000), st.integers(0, 9000), st.binary(max_size=50))
def test_a_body_is_read_whole_and_what_follows_is_kept(size, ahead, behind):
    data = bytes(i % 251 for i in range(size))
    body, rest, left = over_a_socket(data + behind, size, min(ahead, size + len(behind)))
    assert body == data
    assert behind.startswith(rest)
    assert left == 0


@pytest.mark.parametrize("length", [1000, 100_000])
def test_a_body_that_ends_early_is_refused_with_both_sizes(length):
    with pytest.raises(InputError, match=f"expected a body of {length} bytes, it ended after 700") as caught:
        over_a_socket(b"x" * 700, length, ahead=300)
    assert caught.value.code == "truncated_body"


def test_a_declared_size_over_the_limit_is_refused_unread():
    stream = io.BytesIO(b"x" * 10)
    with pytest.raises(BodyTooLargeError, match=f"at most {LIMIT} bytes, got {LIMIT + 1}"):
        read_body(environ_of(stream, LIMIT + 1), LIMIT)
    assert stream.tell() == 0


def test_a_chunked_body_over_the_limit_is_refused():
    with pytest.raises(BodyTooLargeError):
        read_body(environ_of(io.BytesIO(b"x" * (LIMIT + 1))), LIMIT)


def test_gzip_is_read():
    data = gzip.compress(b"hello" * 100)
    environ = environ_of(io.BytesIO(data), len(data), HTTP_CONTENT_ENCODING="gzip")
    assert read_body(environ, LIMIT) == b"hello" * 100
    assert environ[KEY].bytes_in == len(data)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (gzip.compress(b"x" * (LIMIT + 1)), BodyTooLargeError),
        (gzip.compress(b"x" * 1000)[:-5], InputError),
        (b"no gzip at all", InputError),
    ],
    ids=["larger than the limit", "cut", "not gzip"],
)
def test_bad_gzip_is_refused(data, error):
    with pytest.raises(error):
        read_body(environ_of(io.BytesIO(data), len(data), HTTP_CONTENT_ENCODING="gzip"), LIMIT)


def test_another_encoding_is_refused_by_name():
    with pytest.raises(ContentTypeError, match="got br"):
        read_body(environ_of(io.BytesIO(b"x"), 1, HTTP_CONTENT_ENCODING="br"), LIMIT)


@pytest.mark.parametrize(
    "given_type", ["", "application/json", "Application/JSON; charset=utf-8", "application/x+json"]
)
def test_json_types_are_taken(given_type):
    check_json_type({"CONTENT_TYPE": given_type})


@pytest.mark.parametrize("given_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonl", "json"])
def test_other_types_are_refused_by_name(given_type):
    with pytest.raises(ContentTypeError, match=given_type):
        check_json_type({"CONTENT_TYPE": given_type})
