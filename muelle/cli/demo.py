"""``muelle demo``: the whole main path in one command, on real data."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from muelle.cli.http import Server, UnreachableError
from muelle.cli.options import repository_option
from muelle.cli.output import note, working
from muelle.errors import MuelleError, NotFoundError
from muelle.store import Repository

_START_SECONDS: Final = 60.0
_USUAL_PORT: Final = 8080
#: Model, body, and what it is, as the three examples' documents have them; breast cancer's row is filled in.
_REQUESTS: Final = (
    ("linear", {"input": [6]}, "linear regression: y = 2x"),
    ("iris", {"features": [5.1, 3.5, 1.4, 0.2]}, "random forest: which iris? (0 setosa, 1 versicolor, 2 virginica)"),
    ("breast-cancer", None, "logistic regression: 0 malignant, 1 benign"),
)


@click.command()
@repository_option
@click.option("--port", type=click.IntRange(1, 65535), help="Port to serve on.  [default: 8080, else a free one]")
@click.option("--keep", is_flag=True, help="Go on serving until Ctrl-C.")
def demo(repository: Path, port: int | None, keep: bool) -> None:
    """Train the three examples, bundle, serve, and show predictions.

    Models that the repository has already are not trained again.

    \b
    Example:
      muelle demo --keep
    """  # noqa: D301  # \b is click's mark for "don't rewrap"
    _train(repository)
    port = port or _free_port()
    with _serving(repository, port) as server:
        click.echo(f"\nserving {repository} at http://127.0.0.1:{port}\n")
        for model, document, what in _REQUESTS:
            _show(server, port, model, document or {"features": _example(server, model)}, what)
        if keep:
            note("Ctrl-C ends it.")
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
    if not keep:
        click.echo(f"Serve them yourself: {Path(sys.argv[0]).name} serve --models {repository}")


def _train(repository: Path) -> None:
    from muelle.bundle import open_bundle
    from training.pipelines import recipes
    from training.publish import publish

    for recipe in recipes().values():
        try:
            path = Repository(repository).find(recipe.name)
        except NotFoundError:
            with working(f"training {recipe.name}"):
                path = publish(recipe, repository=repository)
        manifest = open_bundle(path).manifest
        scores = ", ".join(f"{name} {value:.4g}" for name, value in manifest.scores.items())
        click.echo(f"{path}: {manifest.estimator}, {'+'.join(manifest.engines)}; {scores}")


@contextlib.contextmanager
def _serving(repository: Path, port: int) -> Iterator[Server]:
    """Run ``muelle serve`` until the block ends; its log is shown only when it fails to start."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("MUELLE_")}
    flags = ["--models", str(repository), "--host", "127.0.0.1", "--port", str(port)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(  # noqa: S603  # no shell: the command is ours
            [sys.executable, "-m", "muelle.cli", "serve", *flags], env=environ, stdout=log, stderr=log
        )
        try:
            server = Server(f"http://127.0.0.1:{port}", None, 10.0)
            with working("starting the service"):
                if not _ready(server, process):
                    log.seek(0)
                    raise MuelleError(f"the service did not start:\n{log.read()[-3000:].decode('utf-8', 'replace')}")
            yield server
        finally:
            process.terminate()
            process.wait(40)


def _ready(server: Server, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(UnreachableError):
            if server.request("GET", "/readyz").status == 200:
                return True
        time.sleep(0.1)
    return False


def _show(server: Server, port: int, model: str, document: object, what: str) -> None:
    path = f"/models/{model}/predict"
    reply = server.request("POST", path, document)
    body = json.dumps(document)
    click.echo(f"# {what}")
    click.echo(f"curl -s http://127.0.0.1:{port}{path} -H 'Content-Type: application/json' \\\n  -d '{body}'")
    click.echo(f"{reply.body.decode()}\n")
    if reply.status != 200:
        raise MuelleError(f"{path}: expected 200, got {reply.status}")


def _example(server: Server, model: str) -> list[float]:
    """Return the row that the server itself gives as this model's example."""
    document = server.request("GET", "/openapi.json").json()
    content = document["paths"][f"/models/{model}/predict"]["post"]["requestBody"]["content"]["application/json"]
    row: list[float] = content["examples"]["row"]["value"]["features"]
    return row


def _free_port() -> int:
    """Return the usual port when nobody listens there, else any free one."""
    for port in (_USUAL_PORT, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise MuelleError("no free port on 127.0.0.1")
