"""Every panel of every dashboard asks a real Prometheus, which scrapes two real servers under traffic: numbers?"""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lifecycle import kill, scrape, total
from support import Server

from tools.local_prometheus import LocalPrometheus, Scraped
from tools.panel_queries import Panel, Prometheus, Series, Target, fill, panels
from tools.scene import Traffic
from training.pipelines import recipes
from training.publish import publish

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [json.loads(path.read_text()) for path in sorted((ROOT / "monitoring/dashboards/json").glob("*.json"))]
PANELS = [panel for document in DOCUMENTS for panel in panels(document)]
#: Panels that have nothing to show here, and why.
EMPTY = {
    ("muelle-cost", "CPU reserved and not used"): "kube-state-metrics says what pods reserve; there is no cluster here",
}
STEP_SECONDS = 2.0
TRAFFIC_SECONDS = 45.0
ALL = dict.fromkeys(("namespace", "release", "model", "version", "feature"), ".*")
ONE = {
    "namespace": "shop",
    "release": "muelle",
    "model": "(breast-cancer|linear)",
    "version": "(1|2)",
    "feature": "(mean radius|mean texture|predict|confidence)",
}


@dataclass(frozen=True)
class Scene:
    """What was recorded: a Prometheus, and from when to when there was traffic; Unix seconds."""

    prometheus: Prometheus
    start: float
    end: float
    turned_away: int


@pytest.fixture(scope="module")
def bundles(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the slots serve: the same models, one of them in another version."""
    stable, candidate = (tmp_path_factory.mktemp(slot) for slot in ("stable", "candidate"))
    shutil.copytree(repository / "breast-cancer", stable / "breast-cancer")
    publish(recipes()["breast-cancer"], repository=candidate, version="2")
    for folder in (stable, candidate):
        shutil.copytree(repository / "linear", folder / "linear")
    return {"a": stable, "b": candidate}


@pytest.fixture(scope="module")
def scene(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("dashboards")
    with ExitStack() as stack:
        servers = {slot: stack.enter_context(_server(slot, models, folder)) for slot, models in bundles.items()}
        for server in servers.values():
            server.wait_ready()
        # As the chart's monitors label them.
        targets = [
            Scraped(
                f"127.0.0.1:{server.port}",
                {"namespace": "shop", "pod": f"muelle-{slot}-0", "release": "muelle", "release_slot": slot},
            )
            for slot, server in servers.items()
        ]
        prometheus = stack.enter_context(LocalPrometheus(folder, targets, STEP_SECONDS))
        start = time.time()
        traffic = Traffic({slot: server.url for slot, server in servers.items()})
        turned_away = _ask_for(TRAFFIC_SECONDS, traffic, servers["b"])
        # Two scrapes and two evaluations after the last request.
        time.sleep(4 * STEP_SECONDS)
        yield Scene(prometheus.api, start, _when_all_is_there(prometheus.api), turned_away)


def _server(slot: str, models: Path, folder: Path) -> Server:
    place = folder / slot
    place.mkdir()
    log = place / "predictions"
    return Server(
        models,
        place,
        {
            "MUELLE_WORKERS": "1",
            "MUELLE_MAX_CONCURRENCY": "4",
            "MUELLE_PREDICTION_LOG": str(log),
        },
    )


def _ask_for(seconds: float, traffic: Traffic, candidate: Server) -> int:
    """Send requests, the candidate getting more and more of them; its data drift, and it loses a worker."""
    began = time.monotonic()
    turned_away = 0
    while (passed := time.monotonic() - began) < seconds:
        share = min(0.2 + passed / seconds, 0.8)
        traffic.ask({"a": 1 - share, "b": share}, shift=2.0 if passed > seconds / 3 else 0.0)
        if turned_away == 0 and passed > seconds / 2:
            turned_away = traffic.burst("b")
            _lose_a_worker(candidate, turned_away)
    return turned_away


def _lose_a_worker(server: Server, refusals: int) -> None:
    """Kill it once its refusals are on record: what it counted in its last half second dies with it."""
    counted = "muelle_requests_total"
    server.wait_for(lambda: total(scrape(server), counted, code="503") >= refusals, "to have counted its refusals")
    kill(server.workers()[0])
    server.wait_ready()


def _when_all_is_there(prometheus: Prometheus) -> float:
    """Return a time at which no scrape has just failed: on a busy machine one may take longer than it is given."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        at = time.time()
        if prometheus.instant("count(up == 1) == 2 and on () count(muelle:feature_psi:ratio1h) > 0", at):
            return at
        time.sleep(STEP_SECONDS / 4)
    raise AssertionError("Prometheus does not get both servers' metrics")


def ask(scene: Scene, target: Target, variables: dict[str, str]) -> list[Series]:
    """Ask as Grafana does: over what is shown, or once at its end."""
    shown = round(scene.end - scene.start)
    # As Grafana does for a scrape interval of STEP_SECONDS.
    times = {"__range": f"{shown}s", "__interval": "2s", "__rate_interval": "8s"}
    expression = fill(target.expression, {**variables, **times})
    if target.instant:
        return scene.prometheus.instant(expression, scene.end)
    return scene.prometheus.range(expression, scene.start, scene.end, STEP_SECONDS)


def has_numbers(answer: Sequence[Series]) -> bool:
    return any(math.isfinite(value) for series in answer for _, value in series.points)


@pytest.mark.parametrize("variables", [ALL, ONE], ids=["all", "some"])
@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: f"{panel.dashboard}: {panel.title}")
def test_each_query_of_a_panel_answers_with_numbers(scene: Scene, panel: Panel, variables: dict[str, str]) -> None:
    answers = [ask(scene, target, variables) for target in panel.targets]
    if (panel.dashboard, panel.title) in EMPTY:
        assert not any(answers), "it has something to show: take it off the list"
        return
    for target, answer in zip(panel.targets, answers, strict=True):
        assert has_numbers(answer), target.expression
        # A name that no label fills would stay a gap in the legend.
        for label in re.findall(r"\{\{(\w+)\}\}", target.legend):
            assert any(label in series.labels for series in answer), f"no series has the label {label}"
    if panel.kind == "stat":
        assert len(answers[0]) == 1, "one number, and which of them?"
    if panel.kind == "table":
        _assert_rows_fit(panel, answers)


@pytest.mark.parametrize("title", ["1,000 predictions", "CPU for 1,000 predictions", "CPU for a prediction"])
def test_what_all_models_cost_does_not_depend_on_the_model_that_is_chosen(scene: Scene, title: str) -> None:
    (panel,) = (panel for panel in PANELS if panel.title == title)
    whole, chosen = (ask(scene, panel.targets[0], {**ALL, "model": model}) for model in (".*", "linear"))
    assert has_numbers(whole)
    assert whole == chosen


def _assert_rows_fit(panel: Panel, answers: Sequence[list[Series]]) -> None:
    """A table's columns are joined by all labels, and the labels are what its headings name."""
    (document,) = (document for document in DOCUMENTS if document["uid"] == panel.dashboard)
    (source,) = (item for item in document["panels"] if item["title"] == panel.title and item["type"] == "table")
    (organize,) = (item["options"] for item in source["transformations"] if item["id"] == "organize")
    keys = {name for name in organize["renameByName"] if not name.startswith("Value")}
    found = {frozenset(series.labels) for answer in answers for series in answer}
    assert found == {frozenset(keys)}
    values = {f"Value #{chr(ord('A') + place)}" for place in range(len(answers))} if len(answers) > 1 else {"Value"}
    assert set(organize["renameByName"]) - keys == values


def test_the_traffic_was_of_all_kinds(scene: Scene) -> None:
    def counted(expression: str) -> float:
        (series,) = scene.prometheus.instant(f"sum({expression})", scene.end)
        return series.points[0][1]

    assert scene.turned_away
    for code in (200, 400, 404, 503):
        assert counted(f'muelle_requests_total{{code="{code}"}}') > 0, code
    for protocol in ("simple", "oip"):
        assert counted(f'muelle_requests_total{{protocol="{protocol}"}}') > 0, protocol
    # What was sent two standard deviations off has drifted, and nothing that was sent as it is.
    excess = "max by (feature) (muelle:feature_psi_excess:ratio1h) > 0.2"
    drifted = {series.labels["feature"] for series in scene.prometheus.instant(excess, scene.end)}
    assert drifted - {"predict", "confidence"} == {"mean radius", "mean texture", "worst radius"}


def test_rules_are_healthy(scene: Scene) -> None:
    groups = scene.prometheus.get("rules", {})["groups"]
    assert len(groups) > 6
    faults = [rule.get("lastError") for group in groups for rule in group["rules"] if rule["health"] != "ok"]
    assert not faults


@pytest.mark.parametrize(
    ("document", "variable"),
    [
        pytest.param(document, variable, id=f"{document['uid']}: {variable['name']}")
        for document in DOCUMENTS
        for variable in document["templating"]["list"]
        if variable["type"] == "query"
    ],
)
def test_each_variable_has_choices(scene: Scene, document: dict[str, Any], variable: dict[str, Any]) -> None:
    # What Grafana makes of label_values(series, label).
    found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
    assert found is not None
    parameters = {"match[]": fill(found[1], ALL), "start": f"{scene.start:.0f}", "end": f"{scene.end:.0f}"}
    values = scene.prometheus.get(f"label/{found[2]}/values", parameters)
    expected = {
        "namespace": {"shop"},
        "release": {"muelle"},
        "model": {"breast-cancer", "linear"},
        "version": {"1", "2"},
        "feature": {"mean radius", "predict", "confidence"},
    }
    assert expected[variable["name"]] <= set(values)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document["uid"])
def test_annotations_mark_what_happened(scene: Scene, document: dict[str, Any]) -> None:
    times = {"__range": "60s", "__interval": "2s", "__rate_interval": "8s"}
    for annotation in document["annotations"]["list"]:
        assert annotation["datasource"] == {"type": "prometheus", "uid": "$datasource"}
        expression = fill(annotation["expr"], {**ALL, **times})
        answer = scene.prometheus.range(expression, scene.start, scene.end, STEP_SECONDS)
        if annotation["name"] == "Version loaded":
            loaded = {(series.labels["model"], series.labels["version"]) for series in answer}
            assert loaded == {("breast-cancer", "1"), ("breast-cancer", "2"), ("linear", "1")}


def test_slots_shares_add_up_and_follow_the_traffic(scene: Scene) -> None:
    (panel,) = (panel for panel in PANELS if panel.title == "Share of the traffic")
    slots = {series.labels["release_slot"]: dict(series.points) for series in ask(scene, panel.targets[0], ALL)}
    assert set(slots) == {"a", "b"}
    both = sorted(set(slots["a"]) & set(slots["b"]))
    assert all(slots["a"][at] + slots["b"][at] == pytest.approx(1) for at in both)
    third = len(both) // 3
    first, last = ([slots["b"][at] for at in part] for part in (both[:third], both[-third:]))
    assert sum(first) / len(first) < 0.5 < sum(last) / len(last)
