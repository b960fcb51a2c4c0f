"""What a dashboard's panels ask, with the variables filled in as Grafana does, and a Prometheus to ask."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import requests

#: `$name` or `${name}`. A number is a group of `label_replace`, which Grafana leaves alone.
_VARIABLE: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_TIMEOUT_SECONDS: Final = 30.0


class QueryError(Exception):
    """What is wrong with a query, in a sentence."""


@dataclass(frozen=True)
class Target:
    """One query of a panel.

    Attributes
    ----------
    expression : str
        PromQL with variables.
    legend : str
        How its series are called; ``{{label}}`` is a label's value.
    instant : bool
        Asked for once, rather than over the time that the dashboard shows.
    """

    expression: str
    legend: str
    instant: bool


@dataclass(frozen=True)
class Panel:
    """One panel of a dashboard, as far as it asks anything."""

    dashboard: str
    kind: str
    title: str
    unit: str
    targets: tuple[Target, ...]


class Series(NamedTuple):
    """An answer: labels, and (time in Unix seconds, value), by time."""

    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]


def panels(document: Mapping[str, Any]) -> Iterator[Panel]:
    """Yield the panels of a dashboard in its JSON form; rows only hold them."""
    for panel in document["panels"]:
        if panel["type"] != "row":
            targets = (
                Target(target["expr"], target.get("legendFormat", ""), bool(target.get("instant")))
                for target in panel["targets"]
            )
            unit = panel["fieldConfig"]["defaults"]["unit"]
            yield Panel(document["uid"], panel["type"], panel["title"], unit, tuple(targets))


def read(path: Path) -> list[Panel]:
    """Return the panels of a dashboard's file."""
    return list(panels(json.loads(path.read_text("utf-8"))))


def fill(text: str, variables: Mapping[str, str]) -> str:
    """Return a query with its variables' values.

    Raises
    ------
    QueryError
        When it has a variable that isn't given.
    """

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name.isdigit():
            return found[0]
        try:
            return variables[name]
        except KeyError:
            raise QueryError(f"{text}: no such variable: {name}") from None

    return _VARIABLE.sub(value, text)


def legend(pattern: str, labels: Mapping[str, str]) -> str:
    """Return what a series is called."""
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found[1], ""), pattern).strip()


class Prometheus:
    """The HTTP API of a Prometheus.

    Parameters
    ----------
    url : str
        Without a path.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def instant(self, expression: str, at: float) -> list[Series]:
        """Return the answer at a time, in Unix seconds."""
        data = self.get("query", {"query": expression, "time": f"{at:.3f}"})
        if data["resultType"] == "scalar":
            return [Series({}, [(float(data["result"][0]), float(data["result"][1]))])]
        return [Series(item["metric"], [_point(item["value"])]) for item in data["result"]]

    def range(self, expression: str, start: float, end: float, step: float) -> list[Series]:
        """Return the answers from a time to another, in Unix seconds, every `step` seconds."""
        asked = {"query": expression, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:g}"}
        result = self.get("query_range", asked)["result"]
        return [Series(item["metric"], [_point(value) for value in item["values"]]) for item in result]

    def get(self, path: str, parameters: Mapping[str, str]) -> Any:
        """Return the data that an endpoint answers.

        Raises
        ------
        QueryError
            When Prometheus refuses the query.
        """
        answer = requests.get(f"{self.url}/api/v1/{path}", params=dict(parameters), timeout=_TIMEOUT_SECONDS)
        body = answer.json()
        if body["status"] != "success":
            raise QueryError(f"{parameters.get('query', path)}: {body['error']}")
        return body["data"]


def _point(value: Sequence[Any]) -> tuple[float, float]:
    return float(value[0]), float(value[1])
