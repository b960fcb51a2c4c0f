"""The dashboards as files: current, of the model that Grafana's file provisioning takes, and by the house's rules."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools import dashboard_pictures, dashboards
from tools.panel_queries import Panel, panels

with warnings.catch_warnings():
    # The SDK's own, on import: it has a newer model.
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "monitoring" / "dashboards" / "json").glob("*.json"))
DOCUMENTS = {path.stem: json.loads(path.read_text("utf-8")) for path in FILES}
PANELS: list[tuple[str, dict[str, Any]]] = [
    (name, panel) for name, document in DOCUMENTS.items() for panel in document["panels"] if panel["type"] != "row"
]
EXPRESSIONS = sorted({target["expr"] for _, panel in PANELS for target in panel["targets"]})
DATASOURCE = {"type": "prometheus", "uid": "$datasource"}
each_dashboard = pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
each_panel = pytest.mark.parametrize("panel", [p for _, p in PANELS], ids=[f"{d}: {p['title']}" for d, p in PANELS])
each_expression = pytest.mark.parametrize("expression", EXPRESSIONS)


def test_the_files_are_what_the_code_makes() -> None:
    assert list(DOCUMENTS) == ["cost", "model", "rollout", "service"]
    assert dashboards.stale(ROOT / dashboards.FOLDER, dashboards.wanted()) == []


@each_dashboard
def test_it_is_grafanas_classic_model_and_nothing_else(document: dict[str, Any]) -> None:
    # Later numbers, and documents with apiVersion and spec, are refused by file provisioning.
    assert document["schemaVersion"] <= 42
    assert not {"apiVersion", "spec", "elements", "__inputs"} & set(document)
    # Grafana gives it one; a number here would overwrite another dashboard.
    assert "id" not in document
    register_default_plugins()
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(document)))
    # The SDK's reader puts its default where a link says nothing.
    assert [link.pop("placement") for link in again["links"]] == ["inControlsMenu"]
    assert again == document


def test_uids_are_what_links_and_bookmarks_go_by() -> None:
    assert {name: document["uid"] for name, document in DOCUMENTS.items()} == {
        "cost": "muelle-cost",
        "model": "muelle-model",
        "rollout": "muelle-rollout",
        "service": "muelle-service",
    }


@each_dashboard
def test_each_panel_has_a_number_and_a_place_of_its_own(document: dict[str, Any]) -> None:
    numbers = [panel["id"] for panel in document["panels"]]
    assert len(set(numbers)) == len(numbers)
    assert 0 not in numbers
    taken: set[tuple[int, int]] = set()
    for panel in document["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = set(
            itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))
        )
        assert not cells & taken, panel["title"]
        taken |= cells
    height = max(y for _, y in taken) + 1
    gaps = {(x, y) for x in range(24) for y in range(height)} - taken
    assert not gaps, "an empty place among the panels"


@each_panel
def test_each_panel_says_what_it_shows_in_which_unit_from_which_source(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == DATASOURCE
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["datasource"] == DATASOURCE
        assert target["expr"]
    references = [target["refId"] for target in panel["targets"]]
    assert len(set(references)) == len(references)


@each_dashboard
def test_titles_tell_panels_apart(document: dict[str, Any]) -> None:
    titles = [panel["title"] for panel in document["panels"] if panel["type"] != "row"]
    assert len(set(titles)) == len(titles)


@each_dashboard
def test_variables_narrow_one_another_and_are_used(document: dict[str, Any]) -> None:
    variables = {variable["name"]: variable for variable in document["templating"]["list"]}
    common = ["datasource", "namespace", "release", "model", "version"]
    assert list(variables)[:5] == common
    assert variables["datasource"]["type"] == "datasource"
    texts = json.dumps(document)
    for name, variable in variables.items():
        assert re.search(rf"\$\{{?{name}\b", texts), f"nothing uses ${name}"
        if name == "datasource":
            continue
        assert variable["datasource"] == DATASOURCE
        assert variable["multi"]
        assert variable["includeAll"]
        # All includes series without the label.
        assert variable["allValue"] == ".*"
        assert variable["refresh"] == 2, "options have to follow the time range"


@each_dashboard
def test_all_dashboards_are_one_click_away_with_the_same_choices(document: dict[str, Any]) -> None:
    (link,) = document["links"]
    assert link["type"] == "dashboards"
    assert set(link["tags"]) <= set(document["tags"])
    assert link["includeVars"]
    assert link["keepTime"]


@each_expression
def test_counters_stand_in_a_rate_whose_window_follows_the_dashboard(expression: str) -> None:
    counters = r"\bmuelle_\w+?_(?:total|bucket|count|sum)\b(?!:)"
    inside = re.compile(rf"\b(?:rate|increase)\((?:{counters})\{{[^}}]*\}}\[\$__(?:rate_interval|range)\]\)")
    rest = inside.sub("", expression)
    assert not re.search(counters, rest), "a counter outside of rate and increase"
    # Recording rules have their windows in their names; everything else follows what is shown.
    windows = set(re.findall(r"\[([^\]]+)\]", re.sub(r'"[^"]*"', "", rest)))
    assert windows <= {"$__range"}


@each_expression
def test_each_series_can_be_narrowed_by_the_variables(expression: str) -> None:
    selectors = re.findall(r"\b(\w*muelle[\w:]*|kube_\w+)(\{[^}]*\})?", re.sub(r'"[^"]*"', '""', expression))
    settings = {"muelle:cpu_core_hour:price", "muelle:slo_budget:ratio"}
    for name, matchers in selectors:
        assert name in settings or "namespace=~" in matchers, name


def test_what_panels_compute_from_rules_is_recorded() -> None:
    files = sorted((ROOT / "monitoring" / "rules").glob("*.yml"))
    groups = [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]
    recorded = {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}
    used = {name for expression in EXPRESSIONS for name in re.findall(r"muelle:[\w:]+", expression)}
    assert used <= recorded


def test_a_file_that_was_edited_by_hand_is_told_of_and_mended(tmp_path: Path) -> None:
    texts = dashboards.wanted()
    assert {path.name for path in dashboards.write(tmp_path, texts)} == set(texts)
    assert dashboards.stale(tmp_path, texts) == []
    (tmp_path / "cost.json").write_text("{}")
    (tmp_path / "gone.json").write_text("{}")
    check = [sys.executable, "-m", "tools.dashboards", "--check", "--folder", str(tmp_path)]
    done = subprocess.run(check, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "cost.json: is not what monitoring/dashboards says; run `make sync`" in done.stderr
    assert "gone.json" in done.stderr
    dashboards.write(tmp_path, texts)
    assert {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()} == texts


def test_panels_are_read_as_they_are() -> None:
    found: list[Panel] = [panel for document in DOCUMENTS.values() for panel in panels(document)]
    assert len(found) == len(PANELS) > 60


def test_pictures_show_panels_that_there_are() -> None:
    for name, shown in dashboard_pictures.SHOWN.items():
        titles = {panel["title"] for dashboard, panel in PANELS if dashboard == name}
        assert set(shown) <= titles
