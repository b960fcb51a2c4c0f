"""Values of the monitoring chart that are wrong or contradict each other are refused with a sentence."""

import json

import pytest
from cluster_objects import kubectl
from monitoring_chart import CHART, STANDALONE, refusal, render, template
from rendering import assert_names_the_fault, command, defaults_taken_away, loose_objects, merged, path_of

from tools.chart_readme import wanted

RECEIVER = {"standalone": {"alertmanager": {"receiver": {"webhook_configs": [{"url": "http://x"}]}}}}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"standalone": {"enable": True}}, "additional properties 'enable' not allowed"),
        ({"scrape": {"intervalSeconds": 90}}, "at '/scrape/intervalSeconds': maximum: got 90, want 60"),
        ({"scrape": {"namespaces": ["Models"]}}, "at '/scrape/namespaces/0': 'Models' does not match"),
        ({"slo": {"latencyBudget": 0}}, "at '/slo/latencyBudget': exclusiveMinimum: got 0, want 0"),
        ({"slo": {"latencyBudget": "99.9"}}, "at '/slo/latencyBudget': '99.9' does not match"),
        ({"cost": {"cpuCoreHourPrice": "0,04"}}, "at '/cost/cpuCoreHourPrice': '0,04' does not match"),
        ({"alerts": {"runbookUrlPrefix": "git.example"}}, "'git.example' does not match"),
        ({"operator": {"labels": {"release": 1}}}, "at '/operator/labels/release'"),
        ({"standalone": {"prometheus": {"retentionSize": "6Gi"}}}, "'6Gi' does not match"),
        ({"standalone": {"prometheus": {"externalUrl": "prometheus"}}}, "'prometheus' does not match"),
        (
            {"standalone": {"prometheus": {"extraScrapeConfigs": [{"job_name": "muelle"}]}}},
            "extraScrapeConfigs/0/job_name",
        ),
        ({"standalone": {"grafana": {"image": {"digest": "sha256:abc"}}}}, "'sha256:abc' does not match"),
        ({"standalone": {"alertmanager": {"receiver": {"slack": [{}]}}}}, "'slack' does not match pattern"),
        (
            merged(STANDALONE, {"operator": {"podMonitor": {"enabled": True}}}),
            "standalone.enabled with operator.podMonitor.enabled",
        ),
        (
            {"scrape": {"wholeCluster": True, "namespaces": ["a"]}},
            "scrape.wholeCluster and scrape.namespaces contradict each other",
        ),
        (
            merged(STANDALONE, {"dashboards": {"enabled": False}}),
            "standalone.grafana.enabled without dashboards.enabled",
        ),
        (RECEIVER, "standalone.alertmanager has a receiver, but standalone.enabled is false"),
        (
            merged(STANDALONE, RECEIVER, {"standalone": {"alertmanager": {"enabled": False}}}),
            "nobody would be told",
        ),
        (
            merged(STANDALONE, RECEIVER, {"standalone": {"alertmanager": {"existingSecret": "s"}}}),
            "standalone.alertmanager.receiver and standalone.alertmanager.existingSecret are both set",
        ),
        (
            merged(STANDALONE, {"standalone": {"grafana": {"persistence": {"existingClaim": "c"}}}}),
            "standalone.grafana.persistence.existingClaim is set, but persistence.enabled is false",
        ),
    ],
)
def test_a_wrong_value_is_named(values, sentence):
    assert_names_the_fault(refusal(values), sentence)


@pytest.mark.parametrize("values", defaults_taken_away(CHART), ids=path_of)
def test_a_default_that_is_taken_away_either_does_no_harm_or_is_missed_by_name(values):
    for way in ({}, STANDALONE):
        done = template(merged(way, values))
        if done.returncode != 0:
            assert f"missing property '{path_of(values).rpartition('.')[2]}'" in done.stderr


def test_several_faults_are_told_at_once():
    message = refusal(RECEIVER, {"scrape": {"wholeCluster": True, "namespaces": ["a"]}, "slo": {"latencyBudget": 0.5}})
    for part in ("has a receiver", "scrape.wholeCluster", "slo.latencyBudget"):
        assert part in message


def test_values_that_a_parent_chart_passes_to_all_its_parts_do_no_harm():
    render({"global": {"anything": 1}})


def test_a_cluster_without_the_operator_is_told_of_the_other_way():
    # What every API server has, and nothing of the Operator's.
    message = refusal(flags=("--api-versions", "apiregistration.k8s.io/v1"))
    assert "this cluster knows no PrometheusRule" in message
    assert "standalone.enabled=true" in message
    assert template(STANDALONE, "--api-versions", "apiregistration.k8s.io/v1").returncode == 0


@pytest.mark.parametrize("kind", ["ServiceMonitor", "PodMonitor"])
def test_scraping_a_release_that_has_its_own_monitor_is_refused(kind, namespace):
    own = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": kind,
        "metadata": {
            "name": "own",
            "labels": {"app.kubernetes.io/name": "muelle", "app.kubernetes.io/instance": "shop"},
        },
        "spec": {"selector": {}, ("endpoints" if kind == "ServiceMonitor" else "podMetricsEndpoints"): []},
    }
    kubectl(namespace, "apply", "--server-side", document=own)
    for where in ({"namespaces": [namespace]}, {"wholeCluster": True}):
        values = {"scrape": where, "operator": {"podMonitor": {"enabled": True}}}
        done = command(
            "helm", "template", "m", str(CHART), "--dry-run=server", "--values", "-", stdin=json.dumps(values)
        )
        assert f"release shop in namespace {namespace} has a {kind} of its own" in done.stderr
        assert f"set {kind[0].lower()}{kind[1:]}.enabled=false there" in done.stderr
    kubectl(namespace, "delete", kind, "own")
    values = {"scrape": {"namespaces": [namespace]}, "operator": {"podMonitor": {"enabled": True}}}
    done = command("helm", "template", "m", str(CHART), "--dry-run=server", "--values", "-", stdin=json.dumps(values))
    assert done.returncode == 0, done.stderr


def test_the_schema_is_strict_wherever_kubernetes_does_not_define_the_value():
    # A parent chart's, and those that stand for a Kubernetes type as a whole.
    assert loose_objects(CHART) <= {"global", "affinity", "podSecurityContext", "securityContext"}


def test_the_table_of_values_and_the_schema_are_up_to_date():
    for path, text in wanted(CHART).items():
        assert path.read_text() == text, f"{path}: run `make sync`"
