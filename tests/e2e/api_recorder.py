"""A way to the API server that notes which rights each request needs."""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cluster import Kube

#: Group, resource, verb, and the object's name, or "*" where it does not matter.
Right = tuple[str, str, str, str]


@dataclass
class Recorder:
    """Rights that were used, and a kube config for the way that notes them."""

    config: Path
    used: set[Right] = field(default_factory=set)


@contextlib.contextmanager
def recording(kube: Kube, folder: Path, token: str, namespace: str) -> Iterator[Recorder]:
    """Give a kube config with a token, through which requests are noted."""
    cluster = json.loads(kube.run("config", "view", "--raw", "--minify", "-o", "json"))["clusters"][0]["cluster"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    recorder = Recorder(folder / "config")
    handler = type("Handler", (_Handler,), {})
    handler.server_url, handler.recorder = cluster["server"], recorder
    handler.trusting = ssl.create_default_context(cadata=authority)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        write_config(recorder.config, f"http://127.0.0.1:{server.server_port}", token, namespace)
        yield recorder
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def write_config(path: Path, url: str, token: str, namespace: str) -> None:
    """Write a kube config with one context."""
    context = {"cluster": "c", "user": "u", "namespace": namespace}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "operator", "context": context}],
        "current-context": "operator",
    }
    path.write_text(json.dumps(document))


def rights_of(role: Any) -> set[Right]:
    """Return what a Role grants."""
    return {
        (group, resource, verb, name)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames") or ["*"]
    }


def right_of(method: str, path: str) -> Right:
    """Return the right that a request needs."""
    parts = path.partition("?")[0].strip("/").split("/")
    group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
    resource, name, subresource = [*rest[2:], "", "", ""][:3]
    verbs = {"POST": "create", "PUT": "update", "PATCH": "patch", "GET": "get" if name else "list"}
    if subresource:
        # Of a pod whose name nobody knows beforehand.
        return group, f"{resource}/{subresource}", verbs[method], "*"
    return group, resource, verbs[method], name or "*"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_url: str
    recorder: Recorder
    trusting: ssl.SSLContext

    def log_message(self, *arguments: object) -> None:
        pass

    def _forward(self) -> None:
        self.recorder.used.add(right_of(self.command, self.path))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
        kept = {name: self.headers[name] for name in ("Authorization", "Content-Type", "Accept") if self.headers[name]}
        # The client leaves it out for JSON, where urllib would say it was a form.
        kept.setdefault("Content-Type", "application/json")
        request = urllib.request.Request(self.server_url + self.path, body, kept, method=self.command)
        try:
            with urllib.request.urlopen(request, context=self.trusting, timeout=30) as response:
                status, answer, kind = response.status, response.read(), response.headers.get("Content-Type")
        except urllib.error.HTTPError as error:
            status, answer, kind = error.code, error.read(), error.headers.get("Content-Type")
        self.send_response(status)
        self.send_header("Content-Type", kind or "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = do_PATCH = _forward
