"""Pictures of the dashboards' data, drawn from the panels' own queries: not screenshots of Grafana.

Two slots of a release serve, callers send requests, a candidate gets more and more of them, and in the middle the data
begin to drift. A real Prometheus watches. Then each panel's queries are asked as Grafana would. Needs prometheus on the
PATH, and as many minutes as the pictures show.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from tools.dashboards import FOLDER as DASHBOARDS
from tools.panel_queries import Prometheus, Series, fill, legend
from tools.picture_parts import Chart, Kind, Number, Table, written
from tools.picture_svg import MOST_NAMES, Part, picture
from tools.recording import SCRAPE_SECONDS, record
from tools.scene import MODEL

FOLDER: Final = Path("docs/pictures")
NOTE: Final = "Drawn from the queries of the dashboard's panels against a real Prometheus; not a screenshot of Grafana."
#: The panels of each picture, besides the dashboard's numbers.
SHOWN: Final[Mapping[str, Sequence[str]]] = {
    "service": (
        "Requests by status code",
        "Latency quantiles",
        "Latency, all requests",
        "Time by stage",
        "CPU",
        "Memory",
    ),
    "model": (
        "Drift by feature",
        "Most changed bins",
        "Predictions by class",
        "Confidence, all rows",
        "Accuracy by version",
        "How late labels are",
    ),
    "rollout": (
        "Share of the traffic",
        "Requests by slot",
        "Slots",
        "Versions in slots",
        "Latency by slot",
        "Share of each class by slot",
    ),
}
POINTS: Final = 72
_STACKS: Final[Mapping[str, Kind]] = {"normal": "stacked", "percent": "shares"}
_ALL: Final = dict.fromkeys(("namespace", "release", "model", "version", "feature"), ".*")
#: What is chosen in a picture, where that isn't all.
_CHOSEN: Final[Mapping[str, Mapping[str, str]]] = {"model": {"model": MODEL}, "rollout": {"model": MODEL}}


@dataclass(frozen=True)
class Shown:
    """What a dashboard shows: from when to when, in Unix seconds, and what is chosen."""

    start: float
    end: float
    chosen: Mapping[str, str] = field(default_factory=dict)

    @property
    def step(self) -> float:
        """Seconds between points."""
        return max(SCRAPE_SECONDS, (self.end - self.start) / POINTS)

    def variables(self) -> dict[str, str]:
        """Return all variables, those that Grafana itself sets among them."""
        rate_interval = max(self.step + SCRAPE_SECONDS, 4 * SCRAPE_SECONDS)
        seconds = {"__interval": self.step, "__rate_interval": rate_interval, "__range": self.end - self.start}
        return {**_ALL, **self.chosen, **{name: f"{value:.0f}s" for name, value in seconds.items()}}


def draw(document: Mapping[str, Any], shown: Sequence[str], prometheus: Prometheus, shows: Shown) -> str:
    """Return a picture of a dashboard."""
    panels = [panel for panel in document["panels"] if panel["type"] != "row"]
    numbers = [_number(panel, prometheus, shows) for panel in panels if panel["type"] == "stat"]
    by_title = {panel["title"]: panel for panel in panels if panel["type"] != "stat"}
    parts = [_part(by_title[title], prometheus, shows) for title in shown]
    return picture(document["title"], NOTE, numbers, parts, shows.end - shows.start, shows.step)


def _ask(panel: Mapping[str, Any], prometheus: Prometheus, shows: Shown) -> Iterator[tuple[str, list[Series]]]:
    for target in panel["targets"]:
        expression = fill(target["expr"], shows.variables())
        if target.get("instant"):
            yield target.get("legendFormat", ""), prometheus.instant(expression, shows.end)
        else:
            found = prometheus.range(expression, shows.start, shows.end, shows.step)
            yield target.get("legendFormat", ""), found


def _number(panel: Mapping[str, Any], prometheus: Prometheus, shows: Shown) -> Number:
    defaults = panel["fieldConfig"]["defaults"]
    ((_, answer),) = _ask(panel, prometheus, shows)
    text = written(answer[0].points[-1][1], defaults["unit"]) if answer else defaults["noValue"]
    return Number(panel["title"], text)


def _part(panel: Mapping[str, Any], prometheus: Prometheus, shows: Shown) -> Part:
    if panel["type"] == "table":
        return _table(panel, prometheus, shows)
    defaults = panel["fieldConfig"]["defaults"]
    series = [
        (legend(pattern, item.labels), [(at - shows.start, value) for at, value in item.points])
        for pattern, answer in _ask(panel, prometheus, shows)
        for item in answer
    ]
    kind: Kind = "heat"
    if panel["type"] == "heatmap":
        series.sort(key=lambda one: float(one[0]))
        series = _without_empty_ends(series)
    else:
        # In a legend that can't name all, the largest are named.
        series.sort(key=lambda one: one[0])
        if len(series) > MOST_NAMES:
            series.sort(key=lambda one: -one[1][-1][1])
        custom = defaults["custom"]
        kind = _STACKS.get(custom.get("stacking", {}).get("mode", ""), "lines")
    limits = [step["value"] for step in defaults.get("thresholds", {}).get("steps", []) if step["value"] is not None]
    return Chart(panel["title"], defaults["unit"], kind, series, limits, defaults.get("max"))


def _without_empty_ends(
    series: list[tuple[str, list[tuple[float, float]]]],
) -> list[tuple[str, list[tuple[float, float]]]]:
    """Return cumulative buckets without the empty ones below, and without those above that add nothing."""
    totals = [sum(value for _, value in points) for _, points in series]
    first = next((place for place, total in enumerate(totals) if total > 0), 0)
    last = next((place for place, total in enumerate(totals) if total >= totals[-1]), len(totals) - 1)
    # One more at each end, so that a row of cells isn't the picture's edge.
    return series[max(0, first - 1) : last + 2]


def _table(panel: Mapping[str, Any], prometheus: Prometheus, shows: Shown) -> Table:
    (organize,) = (item["options"] for item in panel["transformations"] if item["id"] == "organize")
    renamed: Mapping[str, str] = organize["renameByName"]
    ordered_names = sorted(renamed, key=organize["indexByName"].__getitem__)
    keys = [name for name in ordered_names if not name.startswith("Value")]
    headings = [renamed[name] for name in ordered_names if name.startswith("Value")]
    units = {item["matcher"]["options"]: item["properties"][0]["value"] for item in panel["fieldConfig"]["overrides"]}
    rows: dict[tuple[str, ...], dict[str, float]] = {}
    for heading, (_, answer) in zip(headings, _ask(panel, prometheus, shows), strict=True):
        for item in answer:
            rows.setdefault(tuple(item.labels[key] for key in keys), {})[heading] = item.points[-1][1]
    ordered = sorted(rows.items())
    for item in panel["options"].get("sortBy", []):
        by = item["displayName"]
        ordered.sort(key=lambda row: row[1].get(by, 0.0), reverse=True)
    texts = [
        [*key, *(written(values[heading], units[heading]) if heading in values else "" for heading in headings)]
        for key, values in ordered
    ]
    return Table(panel["title"], [*(renamed[key] for key in keys), *headings], texts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Play the scene and draw the pictures."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.dashboard_pictures", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--minutes", type=float, default=12.0, help="how long the scene is (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the pictures go (default: %(default)s)")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        prometheus, start, end = record(Path(name), 60 * options.minutes, stack)
        shows = Shown(start, end)
        for dashboard, shown in SHOWN.items():
            document = json.loads((DASHBOARDS / f"{dashboard}.json").read_text("utf-8"))
            path = options.folder / f"{dashboard}.svg"
            chosen = replace(shows, chosen=_CHOSEN.get(dashboard, {}))
            path.write_text(draw(document, shown, prometheus, chosen), "utf-8")
            sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
