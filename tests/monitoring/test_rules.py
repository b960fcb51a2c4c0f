"""Prometheus' own tool takes the rules and their tests; what they say of metrics and runbooks is true."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from lifecycle import scrape
from support import Server

ROOT = Path(__file__).resolve().parents[2]
RULES = sorted((ROOT / "monitoring" / "rules").glob("*.yml"))
TESTS = sorted((ROOT / "monitoring" / "rules" / "tests").glob("*.yml"))
SEVERITIES = {"page", "ticket", "warning", "info"}


def groups() -> list[dict[str, Any]]:
    return [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]


def rules(kind: str) -> list[dict[str, Any]]:
    return [rule for group in groups() for rule in group["rules"] if kind in rule]


def promtool(*arguments: str | Path) -> str:
    """Run promtool; its output when it is content."""
    program = shutil.which("promtool")
    if program is None:
        pytest.fail("promtool is not on PATH: it comes with Prometheus (Debian's package prometheus, or its archive)")
    # It takes a minute of a processor, while others' requests are being timed.
    command = ["nice", "-n", "15", program, *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_takes_the_rules() -> None:
    assert "SUCCESS" in promtool("check", "rules", "--lint=all", "--lint-fatal", *RULES)


def test_alerts_fire_and_stay_silent_as_their_tests_say() -> None:
    assert TESTS
    assert "FAILED" not in promtool("test", "rules", *TESTS)


def test_each_alert_is_seen_firing_in_a_test() -> None:
    fired = {
        check["alertname"]
        for path in TESTS
        for test in yaml.safe_load(path.read_text())["tests"]
        for check in test.get("alert_rule_test", [])
        if check.get("exp_alerts")
    }
    assert fired == {rule["alert"] for rule in rules("alert")}


@pytest.mark.parametrize("rule", rules("alert"), ids=lambda rule: rule["alert"])
def test_each_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in SEVERITIES
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]
    runbook = ROOT / rule["annotations"]["runbook_url"]
    assert runbook.parent == ROOT / "docs" / "runbooks"
    assert rule["alert"] in runbook.read_text(), f"{runbook.name} does not name its alert"


def test_every_runbook_belongs_to_an_alert() -> None:
    used = {Path(rule["annotations"]["runbook_url"]).name for rule in rules("alert")}
    assert {path.name for path in (ROOT / "docs" / "runbooks").glob("*.md")} == used


def test_what_rules_compute_from_other_rules_is_recorded() -> None:
    recorded = {rule["record"] for rule in rules("record")}
    used = {name for rule in (*rules("record"), *rules("alert")) for name in _names(r"muelle:[\w:]+", rule)}
    assert used <= recorded


def test_every_metric_in_the_rules_is_one_that_a_server_exports(repository: Path, tmp_path: Path) -> None:
    used = {name for rule in (*rules("record"), *rules("alert")) for name in _names(r"muelle_\w+", rule)}
    logged = {"MUELLE_PREDICTION_LOG": str(tmp_path / "log"), "MUELLE_PREDICTION_LOG_SECONDS": "0.5"}
    with Server(repository, tmp_path, logged) as server:
        server.wait_ready()
        assert server.post("/models/linear/predict", {"input": [6]}).status == 200
        server.wait_for(lambda: any("shipped" in name for name, _ in scrape(server)), "a row in the prediction log")
        # The three models of a worker, whichever answers the scrape.
        server.wait_for(lambda: len([k for k, _ in scrape(server) if k == "muelle_model_info"]) == 3, "loaded")
        exported = {name for name, _ in scrape(server)}
    assert len(used) > 8
    # An absent metric keeps an alert silent for ever.
    assert used <= exported


def _names(pattern: str, rule: dict[str, Any]) -> list[str]:
    # Texts in quotes are labels' values.
    return re.findall(rf"(?<![\w:]){pattern}", re.sub(r'"[^"]*"', "", rule["expr"]))
