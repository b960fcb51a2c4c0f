"""``muelle check``: the requests that show whether a running server does its work."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final
from urllib.parse import quote

import click

from muelle.cli.http import Reply, Server, UnreachableError
from muelle.cli.output import output_option, print_json, print_table, working

_POLL_SECONDS: Final = 0.2

_Judgement = tuple[bool, str]


@dataclass(frozen=True)
class Result:
    """One request, what should have come, and what came; without an answer `status` is None."""

    request: str
    expected: int
    status: int | None
    milliseconds: float | None
    ok: bool
    result: str


class Checker:
    """Sends requests and notes the results."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.results: list[Result] = []

    def try_(
        self, method: str, path: str, expected: int, judge: Callable[[Reply], _Judgement], document: object = None
    ) -> Reply | None:
        """Send a request.

        Parameters
        ----------
        method, path, document
            See `Server.request`.
        expected : int
            The status that is right.
        judge : callable
            Says of an answer with that status whether it is right, and what it holds.

        Returns
        -------
        Reply or None
            None when no answer came.
        """
        request = f"{method} {path}"
        try:
            reply = self._server.request(method, path, document)
        except UnreachableError as error:
            self.results.append(Result(request, expected, None, None, False, f"no answer: {error}"))
            return None
        ok, text = judge(reply) if reply.status == expected else (False, _text(reply))
        self.results.append(Result(request, expected, reply.status, round(1000 * reply.seconds, 3), ok, text))
        return reply


@click.command()
@click.argument("url", default="http://localhost:8080")
@click.option("--model", help="Check this model only.  [default: every model that is served]")
@click.option(
    "--features", metavar="JSON", help="The row to send, a list or object.  [default: the server's own example]"
)
@click.option(
    "--api-key", envvar="MUELLE_API_KEY", show_envvar=True, help="Sent as X-API-Key; best given in the variable."
)
@click.option(
    "--timeout",
    "timeout_seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Seconds to wait for each answer.",
)
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Seconds to wait for the server to become ready first.",
)
@output_option
@click.pass_context
def check(
    ctx: click.Context,
    url: str,
    model: str | None,
    features: str | None,
    api_key: str | None,
    timeout_seconds: float,
    wait_seconds: float,
    output: str,
) -> None:
    """Try the server at URL: health, status, a good row, a bad row.

    A good row must get an answer, a bad one a 400 that says what is wrong. Rows come from the server's /openapi.json.
    Exits with 1 when any request is answered otherwise.

    \b
    Example:
      muelle check http://localhost:8080 --wait 10
    """  # noqa: D301  # \b is click's mark for "don't rewrap"
    row = _row(features)
    server = Server(url, api_key, timeout_seconds)
    with working(f"waiting for {url}"):
        _wait(server, wait_seconds)
    checker = Checker(server)
    if checker.try_("GET", "/livez", 200, lambda _: (True, "live")) is not None:
        checker.try_("GET", "/readyz", 200, lambda _: (True, "ready"))
        checker.try_("GET", "/", 200, _status)
        for path, good in _targets(checker, model, row):
            checker.try_("POST", path, 200, _answer, {"features": good})
            checker.try_("POST", path, 400, _refusal, {"features": _spoil(good)})
    ok = all(result.ok for result in checker.results)
    if output == "json":
        print_json({"url": url, "ok": ok, "checks": [asdict(result) for result in checker.results]})
    else:
        print_table(
            f"{url}: {'fine' if ok else 'NOT FINE'}",
            ("request", "expected", "status", "ms", "", "answer"),
            (
                (
                    item.request,
                    item.expected,
                    item.status,
                    item.milliseconds,
                    "ok" if item.ok else "FAILED",
                    item.result,
                )
                for item in checker.results
            ),
        )
    ctx.exit(0 if ok else 1)


def _wait(server: Server, seconds: float) -> None:
    """Wait until the server is ready or the time is up; what is wrong then, the checks will say."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if server.request("GET", "/readyz").status == 200:
                return
        except UnreachableError:
            pass
        time.sleep(_POLL_SECONDS)


def _row(features: str | None) -> Any:
    """Return the row of ``--features``; None when it wasn't given."""
    if features is None:
        return None
    try:
        row = json.loads(features)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, list | dict) or not row or any(isinstance(cell, list | dict) for cell in row):
        message = f"expected one row as JSON, such as [5.1, 3.5, 1.4, 0.2], got {features[:60]!r}"
        raise click.BadParameter(message, param_hint="--features")
    return row


def _targets(checker: Checker, model: str | None, row: Any) -> list[tuple[str, Any]]:
    """Return the paths to try, each with a row that its model takes."""
    if row is not None:
        return [("/predict" if model is None else f"/models/{quote(model, safe='')}/predict", row)]
    found: list[tuple[str, Any]] = []

    def judge(reply: Reply) -> _Judgement:
        found.extend(_examples(reply.json(), model))
        if not found:
            return False, "describes no model that is ready" if model is None else f"describes no model {model}"
        return True, f"describes {len(found)} paths to predict at"

    checker.try_("GET", "/openapi.json", 200, judge)
    return found


def _examples(document: Any, model: str | None) -> list[tuple[str, Any]]:
    """Return ``/predict`` and each model's path in an OpenAPI document, with the rows of their examples."""
    paths = _dig(document, "paths")
    found = []
    for path, item in paths.items() if isinstance(paths, dict) else ():
        parts = path.strip("/").split("/")
        named = len(parts) == 3 and parts[0] == "models" and parts[2] == "predict"
        if path == f"/models/{model}/predict" if model is not None else named or path == "/predict":
            row = _dig(
                item, "post", "requestBody", "content", "application/json", "examples", "row", "value", "features"
            )
            if isinstance(row, list):
                found.append((path, row))
    return sorted(found, key=lambda target: target[0] != "/predict")


def _dig(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _spoil(row: Any) -> Any:
    """Return a row that no model takes: one value is gone."""
    if isinstance(row, dict):
        return dict(list(row.items())[:-1])
    return row[:-1]


def _status(reply: Reply) -> _Judgement:
    status = reply.json()
    models = _dig(status, "models")
    if not isinstance(models, list):
        # Another server than ours may say what it likes, as long as it says something.
        return isinstance(status, dict), _text(reply)
    names = [f"{_dig(item, 'name')} {_dig(item, 'version')}" for item in models]
    return True, _shorten(f"serves {', '.join(names) or 'no model'}")


def _answer(reply: Reply) -> _Judgement:
    answer = reply.json()
    if not isinstance(answer, dict) or "prediction" not in answer:
        return False, f"expected a prediction, got {_text(reply)}"
    return True, _shorten(f"prediction {json.dumps(answer['prediction'])}")


def _refusal(reply: Reply) -> _Judgement:
    message = _dig(reply.json(), "error")
    if not isinstance(message, str) or not message:
        return False, f"expected an error that says what is wrong, got {_text(reply)}"
    return True, _shorten(message)


def _text(reply: Reply) -> str:
    return _shorten(reply.body.decode("utf-8", "replace")) or "an empty body"


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    # What came stands at the end of a message, behind what was expected.
    return text if len(text) <= 200 else f"{text[:140]} … {text[-56:]}"
