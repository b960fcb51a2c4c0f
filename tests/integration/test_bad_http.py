"""HTTP itself gone wrong, at a real server: any bytes get an answer of the contract's form, or a closed connection."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from support import Answer, Server

LIMIT = 2_000_000  # demo_server's
BODY = b'{"features":[5.1,3.5,1.4,0.2]}'
PATH = "/models/iris/predict"
JSON = {"Content-Type": "application/json"}
#: Over this size the service reads the socket itself, past gunicorn's buffers.
LARGE_BODY = b'{"features":[' + b",".join([b"[5.1,3.5,1.4,0.2]"] * 3000) + b"]}"


def request_bytes(body: bytes = BODY, *headers: str, path: str = PATH, length: int | None = None) -> bytes:
    """One POST as it goes over the wire; its Content-Length may lie."""
    length = len(body) if length is None else length
    head = [f"POST {path} HTTP/1.1", "Host: muelle", "Content-Type: application/json", f"Content-Length: {length}"]
    return "\r\n".join([*head, *headers, "", ""]).encode() + body


def chunked_bytes(chunks: bytes, *headers: str) -> bytes:
    """One POST whose chunks are given as they go over the wire."""
    head = [f"POST {PATH} HTTP/1.1", "Host: muelle", "Content-Type: application/json", "Transfer-Encoding: chunked"]
    return "\r\n".join([*head, *headers, "", ""]).encode() + chunks


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def parsed(data: bytes) -> list[Answer]:
    """Take a stream of answers apart."""
    answers = []
    while data:
        head, separator, data = data.partition(b"\r\n\r\n")
        assert separator, head
        status_line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        answers.append(Answer(int(status_line.split()[1]), headers, data[:length]))
        assert len(data) >= length
        data = data[length:]
    return answers


def talk(server: Server, data: bytes, *, finish: bool = True, timeout: float = 20.0) -> list[Answer]:
    """Send bytes, say that no more will come (or don't), and return all answers until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=timeout) as connection:
        connection.sendall(data)
        if finish:
            connection.shutdown(socket.SHUT_WR)
        received = bytearray()
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                received += part
    return parsed(bytes(received))


def one(answers: list[Answer]) -> Answer:
    assert len(answers) == 1, answers
    return answers[0]


def refusal(answer: Answer, status: int) -> tuple[str, str]:
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert set(answer.json) == {"error", "code"}
    return answer.json["code"], answer.json["error"]


@pytest.fixture(scope="module", autouse=True)
def nothing_breaks(demo_server: Server) -> Iterator[None]:
    """Over all tests here no worker dies, nothing is logged as our own fault, and every line of the log is JSON."""
    workers, lines = demo_server.workers(), len(demo_server.log())
    yield
    assert demo_server.workers() == workers
    assert [line for line in demo_server.log()[lines:] if line["level"] in ("error", "critical")] == []


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json", None],
)
def test_json_by_any_of_its_names_is_read(demo_server: Server, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    assert demo_server.request("POST", PATH, BODY, headers).status == 200


OTHER_TYPES = (
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/xml",
    "application/jsonp",
    "application/octet-stream",
    "application/json, text/html",
    "text/json",
    "json",
    "é",
    "x" * 500,
)


@pytest.mark.parametrize("content_type", OTHER_TYPES)
def test_another_content_type_is_415(demo_server: Server, content_type: str) -> None:
    answer = demo_server.request("POST", PATH, BODY, {"Content-Type": content_type})
    code, error = refusal(answer, 415)
    assert code == "unsupported_media_type"
    assert error.startswith("expected Content-Type: application/json, got ")
    assert len(error) < 120


def test_a_body_over_the_limit_is_413_before_it_is_read(demo_server: Server) -> None:
    for length in (LIMIT + 1, 10**12, 10**30):
        code, error = refusal(one(talk(demo_server, request_bytes(b"{", length=length))), 413)
        assert code == "body_too_large"
        assert f"at most {LIMIT} bytes, got {length}" in error


def test_a_caller_who_sends_all_of_a_body_over_the_limit_is_told(demo_server: Server) -> None:
    answer = demo_server.request("POST", PATH, b" " * (LIMIT + 20_000), JSON)
    assert refusal(answer, 413)[0] == "body_too_large"


def test_a_body_at_the_limit_is_read(demo_server: Server) -> None:
    assert demo_server.request("POST", PATH, BODY.ljust(LIMIT), JSON).status == 200


def test_a_chunked_body_over_the_limit_is_413(demo_server: Server) -> None:
    pieces = chunk(b" " * 100_000) * 21
    code, error = refusal(one(talk(demo_server, chunked_bytes(pieces + b"0\r\n\r\n"))), 413)
    assert code == "body_too_large"
    assert f"at most {LIMIT} bytes" in error


CHUNKS = {
    "one chunk": chunk(BODY) + b"0\r\n\r\n",
    "a byte a chunk": b"".join(chunk(BODY[i : i + 1]) for i in range(len(BODY))) + b"0\r\n\r\n",
    "an extension": b"%x;name=value\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n",
    "a trailer": chunk(BODY) + b"0\r\nX-Check: 1\r\n\r\n",
    "large": chunk(LARGE_BODY) + b"0\r\n\r\n",
}


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
def test_a_chunked_body_is_answered_like_any_other(demo_server: Server, chunks: bytes) -> None:
    assert one(talk(demo_server, chunked_bytes(chunks))).status == 200


DAMAGED_CHUNKS = {
    "size of no number": b"zz\r\n" + BODY + b"\r\n0\r\n\r\n",
    "negative size": b"-1\r\n" + BODY + b"\r\n0\r\n\r\n",
    "size too small": b"5\r\n" + BODY + b"\r\n0\r\n\r\n",
    "size too large": b"ff\r\n" + BODY + b"\r\n0\r\n\r\n",
    "no end": chunk(BODY),
    "no size": BODY,
    "nothing": b"",
    "ends in the size": b"1",
    "ends in the chunk": b"ff\r\n" + BODY,
    "endless size": b"0" * 20_000,
}


@pytest.mark.parametrize("chunks", DAMAGED_CHUNKS.values(), ids=DAMAGED_CHUNKS)
def test_damaged_chunks_are_400(demo_server: Server, chunks: bytes) -> None:
    assert refusal(one(talk(demo_server, chunked_bytes(chunks))), 400)[0] == "truncated_body"


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", " gzip ", "identity", ""])
@pytest.mark.parametrize("body", [BODY, LARGE_BODY], ids=["small", "large"])
def test_gzip_and_nothing_are_the_encodings_there_are(demo_server: Server, body: bytes, encoding: str) -> None:
    sent = gzip.compress(body) if "gzip" in encoding.lower() else body
    assert demo_server.request("POST", PATH, sent, JSON | {"Content-Encoding": encoding}).status == 200


def test_a_chunked_gzip_body_is_answered(demo_server: Server) -> None:
    chunks = chunk(gzip.compress(LARGE_BODY)) + b"0\r\n\r\n"
    assert one(talk(demo_server, chunked_bytes(chunks, "Content-Encoding: gzip"))).status == 200


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip", "x" * 500])
def test_another_encoding_is_415(demo_server: Server, encoding: str) -> None:
    code, error = refusal(demo_server.request("POST", PATH, BODY, JSON | {"Content-Encoding": encoding}), 415)
    assert code == "unsupported_media_type"
    assert error.startswith("expected no Content-Encoding, or gzip, got ")


PACKED = gzip.compress(BODY)
DAMAGED_GZIP = {
    "not gzip": (BODY, "invalid_gzip"),
    "empty": (b"", "truncated_body"),
    "cut off": (PACKED[:-9], "truncated_body"),
    "cut off in the checksum": (PACKED[:-1], "truncated_body"),
    "cut off in the header": (PACKED[:5], "truncated_body"),
    "wrong checksum": (PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:], "invalid_gzip"),
    "wrong length": (PACKED[:-4] + b"\0\0\0\0", "invalid_gzip"),
    "damaged in the middle": (PACKED[:12] + b"\xff\xff\xff" + PACKED[15:], "invalid_gzip"),
    "something behind it": (PACKED + b"more", "invalid_gzip"),
    "a second member behind it": (PACKED + gzip.compress(b" "), "invalid_gzip"),
}


@pytest.mark.parametrize(("body", "code"), DAMAGED_GZIP.values(), ids=DAMAGED_GZIP)
def test_damaged_gzip_is_400(demo_server: Server, body: bytes, code: str) -> None:
    answer = demo_server.request("POST", PATH, body, JSON | {"Content-Encoding": "gzip"})
    assert refusal(answer, 400)[0] == code


def test_a_gzip_bomb_is_413(demo_server: Server) -> None:
    bomb = gzip.compress(bytes(100_000_000), compresslevel=1)
    assert len(bomb) < LIMIT
    code, error = refusal(demo_server.request("POST", PATH, bomb, JSON | {"Content-Encoding": "gzip"}), 413)
    assert code == "body_too_large"
    assert "after decompression" in error


TRUNCATED = {
    "a byte short": request_bytes(BODY, length=len(BODY) + 1),
    "nothing came": request_bytes(b"", length=100),
    "large, a byte short": request_bytes(LARGE_BODY, length=len(LARGE_BODY) + 1),
    "large, nothing came": request_bytes(b"", length=len(LARGE_BODY)),
    "large, the first bytes came": request_bytes(LARGE_BODY[:100], length=len(LARGE_BODY)),
}


@pytest.mark.parametrize("data", TRUNCATED.values(), ids=TRUNCATED)
def test_a_body_that_ends_early_is_400(demo_server: Server, data: bytes) -> None:
    assert refusal(one(talk(demo_server, data)), 400)[0] == "truncated_body"


@pytest.mark.parametrize("data", [TRUNCATED["a byte short"], TRUNCATED["large, a byte short"]], ids=["small", "large"])
def test_a_body_that_never_comes_is_cut_off(demo_server: Server, data: bytes) -> None:
    """The client neither sends the rest nor closes; demo_server's requests may take four seconds."""
    assert refusal(one(talk(demo_server, data, finish=False)), 400)[0] == "truncated_body"


def test_a_body_that_dribbles_is_cut_off(demo_server: Server) -> None:
    with socket.create_connection(("127.0.0.1", demo_server.port), timeout=0.2) as connection:
        connection.sendall(request_bytes(b"", length=1000))
        received = b""
        deadline = time.monotonic() + 30
        while b"}" not in received and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                connection.sendall(b" ")
            with contextlib.suppress(TimeoutError, ConnectionResetError):
                received += connection.recv(65536)
    assert refusal(one(parsed(received)), 400)[0] == "truncated_body"


@pytest.mark.parametrize("body", [BODY, LARGE_BODY], ids=["small", "large"])
def test_a_content_length_too_small_ends_the_body_there(demo_server: Server, body: bytes) -> None:
    """What is behind it is taken for a next request: one that never becomes whole, or is none at all."""
    lying = request_bytes(body, length=len(body) - 1)
    assert refusal(one(talk(demo_server, lying)), 400)[0] == "invalid_json"
    first, second = talk(demo_server, lying + b"\r\n\r\n")
    assert refusal(first, 400)[0] == "invalid_json"
    assert refusal(second, 400)[0] == "invalid_http"


def test_what_stands_behind_a_whole_body_does_not_change_its_answer(demo_server: Server) -> None:
    first, second = talk(demo_server, request_bytes(BODY + b"garbage\r\n\r\n", length=len(BODY)))
    assert first.status == 200
    assert refusal(second, 400)[0] == "invalid_http"


def test_requests_one_behind_the_other_are_answered_in_order(demo_server: Server) -> None:
    sent = [BODY, b"no", LARGE_BODY, BODY]
    data = b"".join(request_bytes(body, f"X-Request-Id: r{i}") for i, body in enumerate(sent))
    answers = talk(demo_server, data)
    assert [answer.status for answer in answers] == [200, 400, 200, 200]
    assert [answer.headers["x-request-id"] for answer in answers] == ["r0", "r1", "r2", "r3"]


def test_no_body_at_all_is_400(demo_server: Server) -> None:
    data = f"POST {PATH} HTTP/1.1\r\nHost: muelle\r\n\r\n".encode()
    code, error = refusal(one(talk(demo_server, data)), 400)
    assert code == "invalid_json"
    assert "the body is empty" in error


METHODS = {
    "GET /predict": "POST",
    "PUT /predict": "POST",
    f"GET {PATH}": "POST",
    f"DELETE {PATH}": "POST",
    f"PATCH {PATH}": "POST",
    "GET /models/iris/versions/1/predict": "POST",
    "POST /": "GET",
    "POST /livez": "GET",
    "PUT /readyz": "GET",
    "POST /metrics": "GET",
    "POST /openapi.json": "GET",
    "BREW /predict": "POST",
    "TRACE /": "GET",
}


@pytest.mark.parametrize("request_line", METHODS)
def test_a_wrong_method_is_405_and_says_the_right_one(demo_server: Server, request_line: str) -> None:
    method, path = request_line.split()
    answer = demo_server.request(method, path)
    code, error = refusal(answer, 405)
    assert code == "method_not_allowed"
    assert method in error
    assert METHODS[request_line] in answer.headers["allow"].replace(" ", "").split(",")


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz", "/metrics", "/openapi.json", "/v2"])
def test_head_is_get_without_its_body(demo_server: Server, path: str) -> None:
    answer = demo_server.request("HEAD", path)
    assert answer.status == 200
    assert answer.body == b""


@pytest.mark.parametrize("path", ["/", "/predict", PATH, "/livez"])
def test_options_says_what_there_is(demo_server: Server, path: str) -> None:
    answer = demo_server.request("OPTIONS", path)
    assert answer.status == 200
    assert "OPTIONS" in answer.headers["allow"]


UNKNOWN_PATHS = (
    "/nope",
    "/predict/",
    "/models",
    "/models/iris",
    "/models/iris/predict/",
    "/models//predict",
    "/models/iris/versions//predict",
    "/livez/",
    "/favicon.ico",
    "/.env",
    "/%00",
    "/%ff",
    "/../../etc/passwd",
    "/" + "a" * 3000,
)


@pytest.mark.parametrize("path", UNKNOWN_PATHS, ids=[path[:40] for path in UNKNOWN_PATHS])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_unknown_paths_are_404(demo_server: Server, method: str, path: str) -> None:
    answer = demo_server.request(method, path, BODY if method == "POST" else None, JSON)
    code, error = refusal(answer, 404)
    assert code == "not_found"
    assert error.startswith("no such path: /")
    assert len(error) < 300


BAD_REQUESTS = {
    "words": (b"hello there\r\n\r\n", 400),
    "no version": (b"GET /livez\r\n\r\n", 400),
    "another protocol": (b"GET /livez FTP/1.1\r\n\r\n", 505),
    "HTTP 9": (b"GET /livez HTTP/9.9\r\n\r\n", 505),
    "a word too many": (b"GET /livez HTTP/1.1 now\r\n\r\n", 505),
    "small letters": (b"get /livez HTTP/1.1\r\n\r\n", 400),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) + b"\r\n\r\n", 400),
    "zeros": (bytes(100) + b"\r\n\r\n", 400),
    "a long path": (b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\n\r\n", 414),
    "a header without a colon": (b"GET /livez HTTP/1.1\r\nHost\r\n\r\n", 400),
    "a header with a space in its name": (b"GET /livez HTTP/1.1\r\nX Y: 1\r\n\r\n", 400),
    "a header of no name": (b"GET /livez HTTP/1.1\r\n: 1\r\n\r\n", 400),
    "a header with a zero": (b"GET /livez HTTP/1.1\r\nX: a\x00b\r\n\r\n", 400),
    "a folded header": (b"GET /livez HTTP/1.1\r\nX: a\r\n b\r\n\r\n", 400),
    "a long header": (b"GET /livez HTTP/1.1\r\nX: " + b"a" * 10_000 + b"\r\n\r\n", 431),
    "many headers": (b"GET /livez HTTP/1.1\r\n" + b"X: a\r\n" * 1000 + b"\r\n", 431),
    "an expectation of its own": (b"GET /livez HTTP/1.1\r\nExpect: cake\r\n\r\n", 417),
    "Content-Length of no number": (request_bytes().replace(b"Content-Length: ", b"Content-Length: x"), 400),
    "Content-Length below nought": (request_bytes(length=-1), 400),
    "Content-Length with a sign": (request_bytes().replace(b"Content-Length: ", b"Content-Length: +"), 400),
    "Content-Length of 5,000 digits": (request_bytes().replace(b"th: ", b"th: " + b"1" * 5000), 400),
    "two Content-Lengths": (request_bytes(BODY, "Content-Length: 3"), 400),
    "Content-Length and chunks": (request_bytes(BODY, "Transfer-Encoding: chunked"), 400),
    "chunked twice": (chunked_bytes(chunk(BODY) + b"0\r\n\r\n", "Transfer-Encoding: chunked"), 400),
    "another Transfer-Encoding": (b"POST /predict HTTP/1.1\r\nTransfer-Encoding: zip\r\n\r\n", 501),
}


@pytest.mark.parametrize(("data", "status"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_what_is_not_http_is_told_so(demo_server: Server, data: bytes, status: int) -> None:
    answer = one(talk(demo_server, data))
    code, error = refusal(answer, status)
    assert code == "invalid_http"
    assert error.startswith("not a valid HTTP request: ")
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    "data", [b"", b"\r\n", b"GET", b"GET / HTTP/1.1\r\nHost: mue"], ids=["none", "line", "word", "head"]
)
def test_a_connection_that_closes_before_its_request_gets_nothing(demo_server: Server, data: bytes) -> None:
    assert talk(demo_server, data) == []


def test_a_request_of_http_1_0_is_answered_and_closed(demo_server: Server) -> None:
    answer = one(talk(demo_server, b"GET /livez HTTP/1.0\r\n\r\n", finish=False))
    assert answer.status == 200


def test_expect_continue_is_answered_twice(demo_server: Server) -> None:
    interim, answer = talk(demo_server, request_bytes(LARGE_BODY, "Expect: 100-continue"))
    assert interim.status == 100
    assert answer.status == 200


def test_a_connection_survives_what_was_refused_on_it(demo_server: Server) -> None:
    """One kept-alive connection, good and bad in turn: no answer is ever that of another request."""
    connection = http.client.HTTPConnection("127.0.0.1", demo_server.port, timeout=20)
    with contextlib.closing(connection):
        connection.connect()
        opened = connection.sock
        for i in range(40):
            body, status = [(BODY, 200), (b"no", 400), (LARGE_BODY, 200), (LARGE_BODY[:-1], 400)][i % 4]
            path = PATH if i % 3 else "/models/rose/predict"
            connection.request("POST", path, body, JSON | {"X-Request-Id": f"turn-{i}"})
            response = connection.getresponse()
            data = response.read()
            assert response.headers["X-Request-Id"] == f"turn-{i}"
            # The body of a request for an unknown model is not read; a large one then ends the connection.
            assert (response.status, bool(data)) == (status if i % 3 else 404, True)
            if i % 3 and i > 1 and (i - 1) % 3:
                assert connection.sock is opened
            opened = connection.sock


@pytest.mark.parametrize(
    "given", ["a", "7f3e-42", "Root=1-67891233-abcdef012345678912345678", "a" * 128, "a:b/c+d=@._"]
)
def test_a_plain_request_id_comes_back(demo_server: Server, given: str) -> None:
    for answer in (
        demo_server.request("POST", PATH, BODY, JSON | {"X-Request-Id": given}),
        demo_server.request("POST", PATH, b"no", JSON | {"X-Request-Id": given}),
        demo_server.get("/livez", {"X-Request-Id": given}),
        demo_server.get("/nope", {"X-Request-Id": given}),
    ):
        assert answer.headers["x-request-id"] == given


@pytest.mark.parametrize(
    "given",
    ["", "a b", "a" * 129, 'a"b', "a\tb", "<script>", "{a}", "é", "a,b", "a;b", "a\\nb"],
    ids=["empty", "space", "long", "quote", "tab", "tag", "braces", "not ASCII", "comma", "semicolon", "backslash"],
)
def test_any_other_request_id_is_replaced(demo_server: Server, given: str) -> None:
    answer = demo_server.request("POST", PATH, BODY, JSON | {"X-Request-Id": given})
    assert answer.status == 200
    assert answer.headers["x-request-id"] != given
    assert UUID(answer.headers["x-request-id"]).version == 7


def test_every_answer_has_a_request_id_of_its_own(demo_server: Server) -> None:
    paths = ["/", "/livez", "/readyz", "/metrics", "/openapi.json", "/v2", "/v2/models/iris", "/nope", "/predict", PATH]
    answers = [demo_server.get(path) for path in paths for _ in range(3)]
    identities = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(identities)) == len(answers)


def test_the_log_has_the_request_id_and_never_the_query(demo_server: Server) -> None:
    secret = "token-in-a-query"
    answer = demo_server.request("POST", f"{PATH}?key={secret}", BODY, JSON | {"X-Request-Id": "found-in-the-log"})
    assert answer.status == 200
    demo_server.wait_for(
        lambda: any(line.get("request_id") == "found-in-the-log" for line in demo_server.log()), "logged", 10
    )
    (line,) = [line for line in demo_server.log() if line.get("request_id") == "found-in-the-log"]
    assert (line["path"], line["status"], line["model"], line["rows"]) == (PATH, 200, "iris", 1)
    assert secret not in demo_server.log_path.read_text()


@pytest.mark.parametrize("query", ["?", "?a=1&b=2", "?%ff", "?" + "x" * 3000, "?a=%00"])
def test_a_query_string_changes_nothing(demo_server: Server, query: str) -> None:
    assert demo_server.request("POST", PATH + query, BODY, JSON).json == {"prediction": 0}
    assert demo_server.get(f"/readyz{query}").status == 200


def test_clients_that_never_close_hold_up_nobody(demo_server: Server) -> None:
    """Each was answered with "Connection: close", and neither reads it nor goes away."""
    with contextlib.ExitStack() as open_for_long:
        for data in [b"hello there\r\n\r\n", b"GET /livez HTTP/1.0\r\n\r\n"] * 10:
            connection = socket.create_connection(("127.0.0.1", demo_server.port), timeout=20)
            open_for_long.enter_context(connection)
            connection.sendall(data)
        for _ in range(10):
            assert demo_server.request("POST", PATH, BODY, JSON, timeout=5).status == 200


@pytest.fixture(scope="module")
def usual_server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with all limits as they are by default."""
    with Server(repository, tmp_path_factory.mktemp("usual-server"), {"MUELLE_WORKERS": "1"}) as server:
        server.wait_ready()
        yield server


@pytest.mark.parametrize("row", ["[1]", '{"x":1}', "[null]"], ids=["numbers", "names", "nulls"])
def test_a_million_rows_are_413(usual_server: Server, row: str) -> None:
    body = f'{{"input":[{",".join([row] * 1_000_000)}]}}'
    answer = usual_server.request("POST", "/models/linear/predict", body, JSON)
    code, error = refusal(answer, 413)
    assert code == "too_many_rows"
    assert error == "input: expected at most 100000 rows, got 1000000"
    small = usual_server.post("/models/linear/predict", {"input": [6]})
    assert json.loads(small.body)["output"] == pytest.approx([12.0])


def test_a_million_rows_over_the_limit_of_bytes_are_413(demo_server: Server) -> None:
    body = b'{"input":[' + b"[1]," * 1_000_000 + b"[1]]}"
    assert refusal(one(talk(demo_server, request_bytes(body[:1000], length=len(body)))), 413)[0] == "body_too_large"
