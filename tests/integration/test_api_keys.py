"""API keys at a real server: who may ask what, keys replaced while it runs, and no key in any log."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import Answer, Server

from service.auth import new_key

ROW = {"features": [5.1, 3.5, 1.4, 0.2]}
INFER = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP64", "data": [5.1, 3.5, 1.4, 0.2]}]}
PREDICT = "/models/iris/predict"
#: What tells an orchestrator or Prometheus how the server is; it has no keys.
OPEN = ("/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready", "/v2/models/iris/ready")
GUARDED = ("/", "/openapi.json", "/v2", "/v2/models/iris", "/v2/models/iris/versions/1")


@dataclass(frozen=True)
class Guarded:
    """A server that asks for keys, and what a test may do with its file."""

    server: Server
    file: Path
    key: str

    def ask(self, key: str | None, *, header: str = "X-API-Key", path: str = PREDICT) -> Answer:
        value = key if header == "X-API-Key" or key is None else f"Bearer {key}"
        return self.server.post(path, ROW, {} if value is None else {header: value})

    def replace(self, *lines: str) -> None:
        """Replace the file in one step, as an editor or Kubernetes does."""
        fresh = self.file.with_name("fresh")
        fresh.write_text("".join(f"{line}\n" for line in lines))
        os.replace(fresh, self.file)


@pytest.fixture(scope="module")
def guarded(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    key, line = new_key("alice")
    file = folder / "keys"
    file.write_text(f"# who may ask\n\n{line}\n")
    with Server(repository, folder, {"MUELLE_API_KEYS_FILE": str(file), "MUELLE_WORKERS": "2"}) as server:
        server.wait_ready()
        yield Guarded(server, file, key)
    assert server.process is not None
    assert server.process.returncode == 0
    # The last words of dying workers are JSON too.
    assert server.log()[-1]["message"] == "Shutting down: Master"


def refusal(answer: Answer, status: int) -> str:
    assert answer.status == status, answer.body
    assert answer.headers["x-request-id"]
    return str(answer.json["code"])


@pytest.mark.parametrize("header", ["X-API-Key", "Authorization"])
def test_the_right_key_is_answered_in_either_header(guarded: Guarded, header: str) -> None:
    answer = guarded.ask(guarded.key, header=header)
    assert answer.status == 200
    assert answer.json == {"prediction": 0}


def test_no_key_is_401_and_says_how_to_send_one(guarded: Guarded) -> None:
    answer = guarded.ask(None)
    assert refusal(answer, 401) == "missing_key"
    assert "X-API-Key: KEY" in answer.json["error"]
    assert answer.headers["www-authenticate"] == 'Bearer realm="muelle"'


WRONG = {
    "another": "x" * 43,
    "a beginning": "",
    "of another case": "",
    "not ASCII": "é" * 20,
    "a hash": "",
    "very long": "k" * 5000,
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("header", ["X-API-Key", "Authorization"])
def test_a_wrong_key_is_403(guarded: Guarded, header: str, kind: str) -> None:
    near = {
        "a beginning": guarded.key[:-1],
        "of another case": guarded.key.swapcase(),
        "a hash": guarded.file.read_text().split("sha256:")[1].strip(),
    }
    answer = guarded.ask(near.get(kind, WRONG[kind]), header=header)
    assert refusal(answer, 403) == "wrong_key"
    assert guarded.key not in answer.json["error"]


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic YWxpY2U6eA==", "Token abc"])
def test_an_authorization_of_another_kind_is_no_key(guarded: Guarded, value: str) -> None:
    answer = guarded.server.post(PREDICT, ROW, {"Authorization": value})
    assert refusal(answer, 401) == "missing_key"


def test_a_proxys_token_does_not_stand_in_the_keys_way(guarded: Guarded) -> None:
    headers = {"Authorization": "Bearer the-proxys-own", "X-API-Key": guarded.key}
    assert guarded.server.post(PREDICT, ROW, headers).status == 200


@pytest.mark.parametrize("path", OPEN)
def test_health_and_metrics_need_no_key(guarded: Guarded, path: str) -> None:
    assert guarded.server.get(path).status == 200
    assert guarded.server.get(path, {"X-API-Key": "wrong"}).status == 200


@pytest.mark.parametrize("path", GUARDED)
def test_all_other_pages_need_one(guarded: Guarded, path: str) -> None:
    assert guarded.server.get(path).status == 401
    assert guarded.server.get(path, {"X-API-Key": "wrong"}).status == 403
    assert guarded.server.get(path, {"X-API-Key": guarded.key}).status == 200


@pytest.mark.parametrize("path", ["/predict", PREDICT, "/models/iris/versions/1/predict", "/v2/models/iris/infer"])
def test_no_prediction_is_made_without_a_key(guarded: Guarded, path: str) -> None:
    document = INFER if path.startswith("/v2") else ROW
    assert guarded.server.post(path, document).status == 401
    assert guarded.server.post(path, document, {"X-API-Key": "wrong"}).status == 403


def test_without_a_key_one_learns_nothing_of_the_models(guarded: Guarded) -> None:
    """An unknown model, a bad body or a large one must not answer otherwise than a good one does."""
    for path, body in (("/models/rose/predict", b"{}"), (PREDICT, b"no"), (PREDICT, b"x" * 100_000)):
        answer = guarded.server.request("POST", path, body, {"Content-Type": "application/json"})
        assert answer.status == 401
        assert "iris" not in answer.json["error"]
    assert set(guarded.server.get("/v2/models/iris").json) == {"error"}


def complaints(guarded: Guarded, key: str) -> int:
    """How often the file was found bad; a worker looks only when it is asked, and goes on answering."""
    assert all(guarded.ask(key).status == 200 for _ in range(20))
    return guarded.server.log_path.read_text().count("the last good ones stay in force")


def test_keys_are_replaced_while_the_server_runs(guarded: Guarded) -> None:
    workers = guarded.server.workers()
    original = guarded.file.read_text().splitlines()
    old, new = guarded.key, new_key("bob")
    try:
        # Both for a while, as one rotates keys; every worker must have read the file.
        guarded.replace(*original, new[1])
        guarded.server.wait_for(lambda: all(guarded.ask(new[0]).status == 200 for _ in range(20)), "the new key", 20)
        assert guarded.ask(old).status == 200
        guarded.replace(new[1])
        guarded.server.wait_for(lambda: all(guarded.ask(old).status == 403 for _ in range(20)), "the old key", 20)
        assert guarded.ask(new[0]).status == 200
        # A slip in an editor locks nobody out.
        guarded.replace("bob sha256:oops")
        guarded.server.wait_for(lambda: complaints(guarded, new[0]) >= len(workers), "the complaint", 20)
        guarded.file.unlink()
        guarded.server.wait_for(lambda: complaints(guarded, new[0]) >= 2 * len(workers), "the second one", 20)
    finally:
        guarded.replace(*original)
        guarded.server.wait_for(lambda: all(guarded.ask(old).status == 200 for _ in range(20)), "as before", 20)
    assert guarded.server.workers() == workers


def test_no_key_is_ever_logged_but_its_name_is(guarded: Guarded) -> None:
    wrong = "a-wrong-key-that-nobody-has"
    guarded.ask(guarded.key)
    guarded.ask(wrong)
    guarded.ask(wrong, header="Authorization")
    guarded.server.get(f"/?key={guarded.key}", {"X-API-Key": guarded.key})
    # A request that the parser refuses, with the key in it.
    guarded.server.request("GET", "/", headers={"X-API-Key": guarded.key, "Transfer-Encoding": "zip"})
    guarded.server.get("/", {"X-API-Key": guarded.key, "X-Request-Id": "the-last"})
    log = guarded.server.log_path
    guarded.server.wait_for(lambda: "the-last" in log.read_text(), "the last line", 10)
    text = log.read_text()
    assert guarded.key not in text
    assert wrong not in text
    digest = guarded.file.read_text().split("sha256:")[1].strip()
    assert digest not in text
    callers = {line.get("caller") for line in guarded.server.log() if line.get("status") == 200}
    assert "alice" in callers


BAD_FILES = {"missing": None, "a key in the clear": "alice s3cret-in-the-clear\n"}


@pytest.mark.parametrize("text", BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_stops_start_up_and_is_named(repository: Path, tmp_path: Path, text: str | None) -> None:
    """Rather than a server that everybody or nobody may ask."""
    file = tmp_path / "keys"
    if text is not None:
        file.write_text(text)
    with Server(repository, tmp_path, {"MUELLE_API_KEYS_FILE": str(file), "MUELLE_WORKERS": "1"}) as server:
        assert server.process is not None
        assert server.process.wait(40) != 0
    log = server.log_path.read_text()
    assert str(file) in log
    assert "s3cret" not in log
