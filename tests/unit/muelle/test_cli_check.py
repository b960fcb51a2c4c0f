"""``muelle check`` against servers that behave, and servers that don't."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support import free_port


def operation(row):
    example = {"row": {"value": {"features": row}}}
    return {"post": {"requestBody": {"content": {"application/json": {"examples": example}}}}}


OPENAPI = {
    "paths": {
        "/": {"get": {}},
        "/models/iris/predict": operation([5.1, 3.5, 1.4, 0.2]),
        "/models/iris/versions/1/predict": operation([5.1, 3.5, 1.4, 0.2]),
        "/models/linear/predict": operation([6.0]),
        "/predict": operation([5.1, 3.5, 1.4, 0.2]),
        "/v2/models/iris/infer": operation([1]),
    }
}
WIDTHS = {"/predict": 4, "/models/iris/predict": 4, "/models/linear/predict": 1}


class Handler(BaseHTTPRequestHandler):
    """Answers as the service does."""

    seen: list
    changes: dict
    key = None

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        answers = {
            "/livez": (200, {"status": "live"}),
            "/readyz": (200, {"status": "ready"}),
            "/": (200, {"name": "muelle", "models": [{"name": "iris", "version": "1"}]}),
            "/openapi.json": (200, OPENAPI),
        }
        self.answer(answers.get(self.path, (404, {"error": "no such path"})))

    def do_POST(self):
        document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append((self.path, self.headers.get("X-API-Key"), document))
        row = document["features"]
        if len(row) == WIDTHS.get(self.path):
            self.answer((200, {"prediction": 0}))
        else:
            self.answer((400, {"error": f"features: expected {WIDTHS.get(self.path)} features, got {len(row)}"}))

    def answer(self, reply):
        method = self.command
        status, document = self.changes.get((method, self.path, reply[0])) or reply
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(changes=None) -> Iterator[tuple[str, list]]:
    handler = type("Handler", (Handler,), {"seen": [], "changes": changes or {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def checked(muelle, *arguments, env=None):
    result = muelle("check", *arguments, "--output", "json", env=env)
    document = json.loads(result.stdout)
    assert result.exit_code == (0 if document["ok"] else 1)
    return document["checks"]


def test_a_good_server(muelle):
    with serving() as (url, seen):
        checks = checked(muelle, url)
    assert all(check["ok"] for check in checks)
    assert [(check["request"], check["status"]) for check in checks] == [
        ("GET /livez", 200),
        ("GET /readyz", 200),
        ("GET /", 200),
        ("GET /openapi.json", 200),
        ("POST /predict", 200),
        ("POST /predict", 400),
        ("POST /models/iris/predict", 200),
        ("POST /models/iris/predict", 400),
        ("POST /models/linear/predict", 200),
        ("POST /models/linear/predict", 400),
    ]
    assert checks[4]["result"] == "prediction 0"
    assert checks[5]["result"] == "features: expected 4 features, got 3"
    assert seen[0] == ("/predict", None, {"features": [5.1, 3.5, 1.4, 0.2]})


def test_the_table(muelle):
    with serving() as (url, _):
        result = muelle("check", url)
    assert result.exit_code == 0
    assert f"{url}: fine" in result.stdout
    assert "expected 4 features, got 3" in result.stdout


def test_one_model_with_the_key_from_the_variable(muelle):
    with serving() as (url, seen):
        checks = checked(muelle, url, "--model", "linear", env={"MUELLE_API_KEY": "secret-key"})
    assert all(check["ok"] for check in checks)
    assert [(path, key) for path, key, _ in seen] == [("/models/linear/predict", "secret-key")] * 2


def test_a_row_of_ones_own(muelle):
    with serving({("GET", "/openapi.json", 200): (404, {})}) as (url, seen):
        assert all(check["ok"] for check in checked(muelle, url, "--features", '{"a":1,"b":2,"c":3,"d":4}'))
    assert [document["features"] for _, _, document in seen] == [
        {"a": 1, "b": 2, "c": 3, "d": 4},
        {"a": 1, "b": 2, "c": 3},
    ]


@pytest.mark.parametrize(
    ("change", "failed", "text"),
    [
        ({("GET", "/readyz", 200): (503, {"error": "iris 1: loading"})}, "GET /readyz", "iris 1: loading"),
        ({("POST", "/predict", 200): (500, b"<h1>oops</h1>")}, "POST /predict", "<h1>oops</h1>"),
        ({("POST", "/predict", 200): (200, {"answer": 0})}, "POST /predict", "expected a prediction"),
        ({("POST", "/predict", 400): (500, {"error": "internal"})}, "POST /predict", "internal"),
        ({("POST", "/predict", 400): (400, b"")}, "POST /predict", "an empty body"),
        ({("POST", "/predict", 400): (200, {"prediction": 1})}, "POST /predict", '{"prediction": 1}'),
        ({("GET", "/", 200): (401, {"error": "expected a key"})}, "GET /", "expected a key"),
        ({("GET", "/openapi.json", 200): (200, b"[]")}, "GET /openapi.json", "describes no model"),
        ({("GET", "/livez", 200): (200, b"")}, None, ""),
    ],
)
def test_a_server_with_a_fault(muelle, change, failed, text):
    with serving(change) as (url, _):
        bad = [check for check in checked(muelle, url) if not check["ok"]]
    assert [check["request"] for check in bad] == ([] if failed is None else [failed])
    assert all(text in check["result"] for check in bad)


def test_an_unknown_model(muelle):
    with serving() as (url, seen):
        checks = checked(muelle, url, "--model", "tulip")
    assert [check["result"] for check in checks if not check["ok"]] == ["describes no model tulip"]
    assert seen == []


def test_a_model_whose_name_is_no_part_of_a_url(muelle):
    with serving() as (url, seen):
        checks = checked(muelle, url, "--model", "é/1", "--features", "[1]")
    assert "expected None features, got 1" in checks[3]["result"]
    assert seen[0][0] == "/models/%C3%A9%2F1/predict"


def test_no_server(muelle):
    result = muelle("check", f"127.0.0.1:{free_port()}", "--wait", "0.3")
    assert result.exit_code == 1
    assert "no answer: Connection refused" in result.stdout
    assert "Traceback" not in result.output


def test_a_server_that_speaks_something_else(muelle):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        (check,) = checked(muelle, f"http://127.0.0.1:{port}")
        thread.join()
    assert check["result"].startswith("no answer: ")


def test_wait_ends_when_the_server_is_ready(muelle):
    with serving() as (url, _):
        assert all(check["ok"] for check in checked(muelle, url, "--wait", "30"))


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["ftp://x"], 1, "expected a URL such as http://localhost:8080"),
        (["http://"], 1, "expected a URL"),
        (["http://x:99999"], 1, "Port out of range"),
        (["http://[::1"], 1, "Error: http://[::1: not a URL: Invalid IPv6 URL"),
        (["http://a..b"], 1, "Error: http://a..b: not a URL: "),
        ([f"http://{64 * 'a'}.b"], 1, "not a URL: "),
        (["http://host/é"], 1, "Error: http://host/é: expected a path of ASCII characters, others as %XX"),
        (["http://x", "--api-key", "a\nb"], 1, "the API key: expected printable ASCII characters"),
        (["http://x", "--features", "[[1]]"], 2, "expected one row as JSON"),
        (["http://x", "--features", "oops"], 2, "expected one row as JSON"),
        (["http://x", "--timeout", "0"], 2, "--timeout"),
    ],
)
def test_wrong_arguments(muelle, arguments, code, text):
    result = muelle("check", *arguments)
    assert result.exit_code == code
    assert text in result.stderr
