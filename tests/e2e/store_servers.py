"""Real stores as processes on this machine: an S3 server and an OCI registry.

Each program is, in this order, what ``MUELLE_E2E_VERSITYGW`` or ``MUELLE_E2E_REGISTRY`` names, what is on the PATH, or
what was built earlier; else it is built with Go, once, into ``MUELLE_TOOLS`` (``~/.cache/muelle-tools`` if unset).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from certificates import Certificates
from support import free_port

#: Program → its package and version.
PROGRAMS = {
    "versitygw": "github.com/versity/versitygw/cmd/versitygw@v1.8.0",
    "registry": "github.com/distribution/distribution/v3/cmd/registry@v3.1.1",
}
_BUILD_SECONDS = 900
_START_SECONDS = 30
ACCESS_KEY, SECRET_KEY = "muelle-tests", "correct-horse"
#: What `htpasswd -B` makes of SECRET_KEY.
_HTPASSWD = "me:$2a$04$iDpcwqgVdvxppfdLIyvrperomfJSZAF4YzgFJflstpAC9lsMufnpO\n"


def program(name: str) -> str:
    """Return a program's path, building it if need be; the test fails when that can't be done."""
    key = f"MUELLE_E2E_{name.upper()}"
    if named := os.environ.get(key):
        return named
    if found := shutil.which(name):
        return found
    package, _, version = PROGRAMS[name].partition("@")
    tools = Path(os.environ.get("MUELLE_TOOLS") or Path.home() / ".cache" / "muelle-tools")
    built = tools / f"{name}-{version}"
    if not built.exists():
        if shutil.which("go") is None:
            pytest.fail(f"{name} is needed: put it on the PATH, name it in {key}, or install Go to build it")
        tools.mkdir(parents=True, exist_ok=True)
        _build(package, version, built)
    return str(built)


def _build(package: str, version: str, built: Path) -> None:
    """Build in a module of its own, that requires the program's."""
    with tempfile.TemporaryDirectory(dir=built.parent) as folder:
        environ = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"}
        for command in (
            ["go", "mod", "init", "muelle.test/tool"],
            ["go", "get", f"{package}@{version}"],
            ["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", "built", package],
        ):
            done = subprocess.run(
                command, cwd=folder, env=environ, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False
            )
            if done.returncode:
                pytest.fail(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        (Path(folder) / "built").rename(built)


@contextlib.contextmanager
def running(command: Sequence[str], port: int, log: Path, environ: Mapping[str, str] | None = None) -> Iterator[None]:
    """Run a server until the block ends; it is there when its port is."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | dict(environ or {}))
    try:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{command[0]} did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)


@dataclass(frozen=True)
class S3:
    """An S3 server, and where its buckets are as folders."""

    port: int
    folder: Path

    @property
    def url(self) -> str:
        """Its endpoint."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environ(self) -> dict[str, str]:
        """What programs that use S3 read."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }

    def bucket(self, name: str) -> Path:
        """Make a bucket; its objects are files there."""
        path = self.folder / name
        path.mkdir()
        return path

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run it."""
        command = [program("versitygw"), "--port", f"127.0.0.1:{self.port}"]
        command += ["--access", ACCESS_KEY, "--secret", SECRET_KEY, "--region", "us-east-1", "posix", str(self.folder)]
        with running(command, self.port, self.folder.parent / "s3.log"):
            yield


def make_s3(folder: Path) -> S3:
    """Return an S3 server that does not run yet."""
    (folder / "buckets").mkdir()
    return S3(free_port(), folder / "buckets")


@contextlib.contextmanager
def registry(
    folder: Path,
    certificates: Certificates | None = None,
    auth: Mapping[str, Any] | None = None,
    storage: Mapping[str, Any] | None = None,
) -> Iterator[str]:
    """Run a registry and give its host and port.

    Parameters
    ----------
    folder : Path
        An empty one.
    certificates : Certificates, optional
        For TLS.
    auth, storage : mapping, optional
        As in the registry's configuration; the user is ``me``, see `basic`.
    """
    port = free_port()
    http: dict[str, Any] = {"addr": f"127.0.0.1:{port}", "secret": "tests"}
    if certificates is not None:
        http["tls"] = {"certificate": str(certificates.certificate), "key": str(certificates.key)}
    configuration: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "info"},
        "storage": dict(storage or {"filesystem": {"rootdirectory": str(folder / "blobs")}}),
        "http": http,
    }
    if auth is not None:
        configuration["auth"] = dict(auth)
    path = folder / "registry.yml"
    path.write_text(yaml.safe_dump(configuration))
    environ = {"OTEL_TRACES_EXPORTER": "none"}
    with running([program("registry"), "serve", str(path)], port, folder / "registry.log", environ):
        yield f"127.0.0.1:{port}"


def basic(folder: Path) -> dict[str, Any]:
    """Return the configuration for user and password: ``me`` and `SECRET_KEY`."""
    (folder / "htpasswd").write_text(_HTPASSWD)
    return {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}


if __name__ == "__main__":
    for each in PROGRAMS:
        print(program(each))
