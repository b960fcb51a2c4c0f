"""Rules come out of the monitoring chart as they went in, but for what values say."""

import shutil

import pytest
import yaml
from monitoring_chart import CHART, STANDALONE, WAYS, refusal, render, rule_files, rules, tool
from rendering import ROOT

from tools.chart_files import stale, wanted

MONITORING = ROOT / "monitoring"
SOURCES = sorted((MONITORING / "rules").glob("*.yml"))


def source_rules():
    groups = [group for path in SOURCES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def alert(release, name):
    return next(rule for rule in rules(release) if rule.get("alert") == name)


def expressions(release, record):
    return [rule["expr"] for rule in rules(release) if rule.get("record") == record]


def test_the_charts_files_are_those_of_the_monitoring_folder():
    assert stale(wanted(MONITORING, CHART), CHART) == {}, "run `make sync`"


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_with_the_default_values_every_rule_is_the_source_word_for_word(way):
    # Not one brace of Prometheus' own templates is taken for one of Helm's.
    rendered = {name: yaml.safe_load(text) for name, text in rule_files(render(way)).items()}
    assert rendered == {path.name: yaml.safe_load(path.read_text()) for path in SOURCES}


def written(way, folder):
    for name, text in rule_files(render(way)).items():
        (folder / name).write_text(text)
    return sorted(folder.glob("*.yml"))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_promtool_takes_the_rendered_rules(way, tmp_path):
    assert "SUCCESS" in tool("promtool", "check", "rules", "--lint=all", "--lint-fatal", *written(way, tmp_path))


def test_the_rendered_rules_pass_the_sources_tests(tmp_path):
    # One way stands for all, whose rules are the same: months of samples take a minute.
    written(STANDALONE, tmp_path)
    shutil.copytree(MONITORING / "rules" / "tests", tmp_path / "tests")
    assert "FAILED" not in tool("promtool", "test", "rules", *(tmp_path / "tests").glob("*.yml"))


@pytest.mark.parametrize("way", [{}, STANDALONE], ids=["operator", "standalone"])
def test_budgets_and_the_price_are_the_values(way):
    values = {"slo": {"availabilityBudget": 0.002, "latencyBudget": 0.05}, "cost": {"cpuCoreHourPrice": 0.125}}
    release = render(way, values)
    assert expressions(release, "muelle:slo_budget:ratio") == ["vector(0.002)", "vector(0.05)"]
    assert expressions(release, "muelle:cpu_core_hour:price") == ["vector(0.125)"]


def test_a_number_that_helm_makes_a_text_of_is_one_all_the_same():
    # `--set slo.latencyBudget=0.02` is the text "0.02".
    release = render({"slo": {"latencyBudget": "0.02"}, "cost": {"cpuCoreHourPrice": "1.5"}})
    assert expressions(release, "muelle:slo_budget:ratio")[1] == "vector(0.02)"
    assert expressions(release, "muelle:cpu_core_hour:price") == ["vector(1.5)"]


def test_more_labels_are_on_every_alert_and_take_nothing_away():
    values = {"alerts": {"labels": {"team": "ml"}}}
    for rule in source_rules():
        if "alert" in rule:
            assert alert(render(values), rule["alert"])["labels"] == rule["labels"] | {"team": "ml"}
    for label in ("severity", "slo"):
        assert f"'{label}'" in refusal({"alerts": {"labels": {label: "x"}}})


def test_runbooks_are_where_the_prefix_says():
    release = render({"alerts": {"runbookUrlPrefix": "https://git.example/muelle/"}})
    urls = {rule["annotations"]["runbook_url"] for rule in rules(release) if "alert" in rule}
    assert "https://git.example/muelle/docs/runbooks/drift.md" in urls
    assert all((ROOT / url.removeprefix("https://git.example/muelle/")).is_file() for url in urls)


def test_an_alert_can_be_left_out_and_the_rest_stays():
    left = {rule["alert"] for rule in rules(render({"alerts": {"disabled": ["MuelleNoTraffic"]}})) if "alert" in rule}
    assert left == {rule["alert"] for rule in source_rules() if "alert" in rule} - {"MuelleNoTraffic"}
    every = [rule["alert"] for rule in source_rules() if "alert" in rule]
    assert not [rule for rule in rules(render({"alerts": {"disabled": every}})) if "alert" in rule]


def test_an_alert_that_there_is_not_is_refused_and_those_that_there_are_named():
    message = refusal({"alerts": {"disabled": ["MuelleNoTrafic"]}})
    assert "alerts.disabled has MuelleNoTrafic" in message
    assert "MuelleNoTraffic" in message


@pytest.mark.parametrize("name", ["availabilityBudget", "latencyBudget"])
def test_a_budget_of_which_nothing_could_page_is_refused(name):
    assert f"slo.{name} is 0.07" in refusal({"slo": {name: 0.07}})
    render({"slo": {name: 0.069}})
