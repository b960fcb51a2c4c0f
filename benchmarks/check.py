"""Answers first: a server that is fast and wrong has not been measured."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Final

from benchmarks import BenchmarkError
from benchmarks.servers import Server
from benchmarks.works import Call

_LIMIT_SECONDS: Final = 30


def check_answer(server: Server, call: Call, expected: list[int]) -> None:
    """Ask once and compare with the estimator's own answers.

    Raises
    ------
    BenchmarkError
        When the status is not 200 or a label differs.
    """
    headers, body = _ask(server, "POST", call.path, call.headers, call.body)
    try:
        got = call.read(headers, body)
    except (KeyError, ValueError, IndexError) as error:
        raise BenchmarkError(f"{server.name} {call.path}: can't read the answer {body[:200]!r}: {error!r}") from error
    if got != expected:
        wrong = sum(ours != theirs for ours, theirs in zip(got, expected, strict=False))
        counts = f"{len(got)} labels for {len(expected)} rows, {wrong} of them wrong"
        raise BenchmarkError(f"{server.name} {call.path}: not what estimator.predict answers: {counts}")


def check_bytes(server: Server, call: Call, expected: bytes) -> None:
    """Ask once and compare with a constant; raises `BenchmarkError`."""
    _, body = _ask(server, "POST", call.path, call.headers, call.body)
    if body != expected:
        raise BenchmarkError(f"{server.name} {call.path}: expected {expected[:80]!r}, got {body[:80]!r}")


def input_tensor(server: Server, model: str) -> str:
    """Return the name of a model's one input tensor; raises `BenchmarkError` when there are several."""
    _, body = _ask(server, "GET", f"/v2/models/{model}", {}, None)
    inputs = json.loads(body)["inputs"]
    if len(inputs) != 1:
        raise BenchmarkError(f"{server.name}: expected one input tensor of {model}, its metadata has {len(inputs)}")
    return str(inputs[0]["name"])


def _ask(
    server: Server, method: str, path: str, headers: Mapping[str, str], body: bytes | None
) -> tuple[Mapping[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=_LIMIT_SECONDS)
    try:
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise BenchmarkError(f"{server.name} {method} {path}: {error!r}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise BenchmarkError(f"{server.name} {method} {path}: {response.status} {answer[:200]!r}")
    return dict(response.headers.items()), answer
