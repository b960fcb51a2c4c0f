"""``muelle demo``: the whole main path in one command, on real data."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from pathlib import Path
from typing import Final

import click

from muelle.cli.http import Server
from muelle.cli.monitor import Plan, monitor
from muelle.cli.options import repository_option
from muelle.cli.output import note, working
from muelle.cli.serving import Service, free_port, serving
from muelle.errors import MuelleError, NotFoundError
from muelle.store import Repository

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
@click.option(
    "--monitor", "watch", is_flag=True, help="Send traffic that begins to drift, and show it: /ui, Prometheus."
)
@click.option("--rate", type=click.FloatRange(0.1, 200), default=20.0, show_default=True, help="Requests a second.")
@click.option(
    "--drift-after", type=click.FloatRange(0), default=120.0, show_default=True, help="Seconds until the drift begins."
)
@click.option("--seconds", type=click.FloatRange(1), help="End by itself after so many.  [default: at Ctrl-C]")
@click.option(
    "--prometheus",
    type=click.Path(path_type=Path),
    help="The program.  [default: the one on the PATH, if there is one]",
)
def demo(
    *,
    repository: Path,
    port: int | None,
    keep: bool,
    watch: bool,
    rate: float,
    drift_after: float,
    seconds: float | None,
    prometheus: Path | None,
) -> None:
    """Train the three examples, bundle, serve, and show predictions.

    Models that the repository has already are not trained again. --rate, --drift-after, --seconds and --prometheus are
    for --monitor.

    \b
    Example:
      muelle demo --keep
      muelle demo --monitor --drift-after 60
    """  # noqa: D301  # \b is click's mark for "don't rewrap"
    # Else whoever ends this process, or closes its terminal, leaves those behind that it has started. Under nohup a
    # terminal that is closed means nothing.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    _train(repository)
    port = port or free_port()
    if watch:
        monitor(repository, port, Plan(rate, drift_after, seconds, prometheus))
        return
    with serving(repository, port) as service:
        click.echo(f"\nserving {repository} at {service.url}\n")
        for model, document, what in _REQUESTS:
            _show(service, model, document or {"features": _example(service.server, model)}, what)
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


def _show(service: Service, model: str, document: object, what: str) -> None:
    path = f"/models/{model}/predict"
    reply = service.server.request("POST", path, document)
    body = json.dumps(document)
    click.echo(f"# {what}")
    click.echo(f"curl -s {service.url}{path} -H 'Content-Type: application/json' \\\n  -d '{body}'")
    click.echo(f"{reply.body.decode()}\n")
    if reply.status != 200:
        raise MuelleError(f"{path}: expected 200, got {reply.status}")


def _example(server: Server, model: str) -> list[float]:
    """Return the row that the server itself gives as this model's example."""
    document = server.request("GET", "/openapi.json").json()
    content = document["paths"][f"/models/{model}/predict"]["post"]["requestBody"]["content"]["application/json"]
    row: list[float] = content["examples"]["row"]["value"]["features"]
    return row
