"""docs/how-to/dashboards.md: its commands do what it says, and what it names is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml
from howto import blocks, complaint, environ, missing, run, script

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "how-to" / "dashboards.md"
FILES = sorted((ROOT / "monitoring" / "dashboards" / "json").glob("*.json"))


def test_every_command_does_what_it_says(tmp_path: Path) -> None:
    parts = blocks(DOCUMENT.read_text("utf-8"))
    assert [found for part in parts if (found := complaint(part.text))] == []
    (tmp_path / "monitoring").symlink_to(ROOT / "monitoring")
    chosen = [part for part in parts if part.language != "console"]
    done = run(script(chosen, {}), tmp_path, environ(KUBECONFIG=str(tmp_path / "none")), 120)
    assert done.code == 0, done.outputs
    for part in chosen:
        lost = missing(part.expected, done.outputs[part.line])
        assert lost is None, f"{part.line}: did not print {lost!r}, but\n{done.outputs[part.line]}"

    config_maps = [thing for thing in yaml.safe_load_all((tmp_path / "dashboards.yaml").read_text()) if thing]
    assert {name for thing in config_maps for name in thing["data"]} == {path.name for path in FILES}
    for thing in config_maps:
        assert thing["metadata"]["labels"] == {"grafana_dashboard": "1"}
        ((name, text),) = thing["data"].items()
        assert json.loads(text) == json.loads((FILES[0].parent / name).read_text("utf-8"))
    (provider,) = yaml.safe_load((tmp_path / "provider.yaml").read_text())["providers"]
    assert provider["type"] == "file"


def test_every_panel_that_is_named_exists() -> None:
    documents = [json.loads(path.read_text("utf-8")) for path in FILES]
    there = {panel["title"] for document in documents for panel in document["panels"]}
    there |= {document["title"].removeprefix("Muelle / ") for document in documents}
    there |= {variable["label"] for document in documents for variable in document["templating"]["list"]}
    of_grafana = {"All", "Dashboards → New → Import", "Scrape interval"}
    named = set(re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", DOCUMENT.read_text("utf-8"))) - of_grafana
    assert len(named) > 15
    unknown = {name for name in named if not any(title == name or title.startswith(f"{name} ") for title in there)}
    assert unknown == set()


def test_its_pictures_are_labelled_as_what_they_are() -> None:
    pictures = re.findall(r"\]\((\.\./pictures/\S+\.svg)\)", DOCUMENT.read_text("utf-8"))
    assert len(pictures) == 3
    for name in pictures:
        text = (DOCUMENT.parent / name).read_text("utf-8")
        assert "Drawn from the queries of the dashboard" in text
        assert "not a screenshot of Grafana" in text
        assert "<script" not in text
        assert not re.search(r'(?:href|src)="', text), "a picture that needs another file is broken elsewhere"
