"""A registry's tag that holds something else than a bundle, in a registry of our own; ``tests/e2e`` has real ones."""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from sklearn.linear_model import LinearRegression

from muelle.bundle import open_bundle, save
from muelle.cli import main

_OCI = "application/vnd.oci.image"
_DOCKER = "application/vnd.docker.distribution"


def descriptor(kind: str, title: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"mediaType": kind, "digest": f"sha256:{64 * 'b'}", "size": 5}
    return found if title is None else found | {"annotations": {"org.opencontainers.image.title": title}}


def manifest(kind: str, **fields: Any) -> tuple[str, bytes]:
    return kind, json.dumps({"schemaVersion": 2, "mediaType": kind, **fields}).encode()


IMAGE = manifest(
    f"{_OCI}.manifest.v1+json",
    config=descriptor(f"{_OCI}.config.v1+json"),
    layers=[descriptor(f"{_OCI}.layer.v1.tar+gzip")],
)
OTHERS = {
    "image": IMAGE,
    "docker image": manifest(f"{_DOCKER}.manifest.v2+json", layers=[descriptor(f"{_DOCKER}.layer")]),
    "index": manifest(f"{_OCI}.index.v1+json", manifests=[descriptor(f"{_OCI}.manifest.v1+json")]),
    "docker list": manifest(f"{_DOCKER}.manifest.list.v2+json", manifests=[]),
    "artefact": manifest(f"{_OCI}.manifest.v1+json", layers=[descriptor("text/plain", "thesis.txt")]),
    "artefact without blobs": manifest(f"{_OCI}.manifest.v1+json", layers=[descriptor("text/plain", "manifest.json")]),
    "endless size": (
        f"{_OCI}.manifest.v1+json",
        json.dumps({"layers": [descriptor("a", "b") | {"size": float("inf")}]}).encode(),
    ),
}


class Registry:
    """One repository in memory, which answers 404 where a request's Accept doesn't name the tag's type."""

    def __init__(self) -> None:
        self.tags: dict[str, tuple[str, bytes]] = {}
        self.blobs: dict[str, bytes] = {}
        self.resets = False
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments: object) -> None:
                pass

            def answer(self, code: int, body: bytes = b"", **headers: str) -> None:
                self.send_response(code)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def do_GET(self) -> None:
                last = self.path.rpartition("/")[2]
                if owner.resets:
                    self.reset()
                elif "/manifests/" in self.path:
                    kind, body = owner.tags.get(last, ("", b""))
                    there = kind and kind in self.headers.get("Accept", "")
                    self.answer(200, body) if there else self.answer(404)
                elif "/blobs/" in self.path:
                    self.answer(200, owner.blobs[last]) if last in owner.blobs else self.answer(404)
                else:
                    self.answer(200)

            do_HEAD = do_GET

            def reset(self) -> None:
                """Announce an explanation, and break the connection in the middle of it."""
                self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 1000\r\n\r\n{")
                self.wfile.flush()
                time.sleep(0.2)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True

            def do_POST(self) -> None:
                self.answer(202, Location="/v2/x/blobs/uploads/1")

            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if "/manifests/" in self.path:
                    owner.tags[self.path.rpartition("/")[2]] = (self.headers["Content-Type"], body)
                else:
                    owner.blobs[f"sha256:{hashlib.sha256(body).hexdigest()}"] = body
                self.answer(201)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"oci://127.0.0.1:{self.http.server_port}/models"


@pytest.fixture
def registry() -> Iterator[Registry]:
    found = Registry()
    thread = threading.Thread(target=found.http.serve_forever)
    thread.start()
    yield found
    found.http.shutdown()
    thread.join()
    found.http.server_close()


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = np.arange(20.0).reshape(-1, 1)
    model = LinearRegression().fit(rows, rows[:, 0])
    return save(model, rows, name="line", version="1", repository=tmp_path_factory.mktemp("models"), onnx=False)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments), "--insecure", "--retry-seconds", "0"])


def refused(result: Result) -> str:
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    return result.stderr.splitlines()[-1]


def test_a_free_tag_is_pushed_to_and_fetched_from(registry: Registry, line: Path, tmp_path: Path) -> None:
    for state in ("pushed", "already there"):
        result = run("push", line, f"{registry.url}/line:1")
        assert result.exit_code == 0, result.output
        assert f"line 1: {state}" in result.stderr
    assert run("fetch", "--to", tmp_path, f"{registry.url}/line:1").exit_code == 0
    assert open_bundle(tmp_path / "line/1").digest == open_bundle(line).digest


@pytest.mark.parametrize("name", OTHERS)
def test_a_tag_that_holds_something_else_is_neither_overwritten_nor_fetched(
    registry: Registry, line: Path, tmp_path: Path, name: str
) -> None:
    registry.tags["1"] = OTHERS[name]
    said = "lists manifest.json and does not have it" if "without" in name else "holds something that is no bundle"
    assert said in refused(run("push", line, f"{registry.url}/line:1"))
    assert registry.tags == {"1": OTHERS[name]}
    assert said in refused(run("fetch", "--to", tmp_path, f"{registry.url}/line:1"))


def test_no_such_tag(registry: Registry, tmp_path: Path) -> None:
    assert "no such repository or tag" in refused(run("fetch", "--to", tmp_path, f"{registry.url}/line:1"))


def test_a_registry_that_breaks_off_its_explanation(registry: Registry, line: Path, tmp_path: Path) -> None:
    registry.resets = True
    assert "answers 403 Forbidden; there are no credentials for" in refused(run("push", line, f"{registry.url}/line:1"))
    assert "answers 403 Forbidden" in refused(run("fetch", "--to", tmp_path, f"{registry.url}/line:1"))


@pytest.mark.parametrize("host", ["registry..example.com", f"{64 * 'a'}.example.com"])
def test_a_host_that_can_not_be_one(line: Path, tmp_path: Path, host: str) -> None:
    said = f"Error: oci://{host}/m/x:1: https://{host}: not a URL that can be asked: "
    assert refused(run("push", line, f"oci://{host}/m/x:1")).startswith(said)
    assert refused(run("fetch", "--to", tmp_path, f"oci://{host}/m/x:1")).startswith(said)
