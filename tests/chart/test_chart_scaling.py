"""Who says how many pods there are, and what keeps some of them up."""

import pytest
from rendering import GATEWAY, refusal, render

SCALED = {"autoscaling": {"enabled": True, "minReplicas": 3, "maxReplicas": 5}}
KEDA = {"keda": {"enabled": True, "maxReplicas": 4, "triggers": [{"type": "cron", "metadata": {"timezone": "UTC"}}]}}


def test_an_autoscalers_slot_asks_for_no_number_of_pods_and_the_idle_one_for_none():
    release = render(SCALED)
    assert release.replicas() == {"a": None, "b": 0}
    assert render(SCALED, GATEWAY, {"traffic": {"candidate": "b"}}).replicas() == {"a": None, "b": None}


def test_each_slot_has_an_autoscaler_so_that_a_promoted_one_is_scaled_at_once():
    scalers = render(SCALED).of("HorizontalPodAutoscaler")
    assert set(scalers) == {"m-muelle-a", "m-muelle-b"}
    spec = scalers["m-muelle-b"]["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "m-muelle-b"}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (3, 5)


def test_cpu_is_that_of_the_predictor_alone():
    (metric,) = render(SCALED).one("HorizontalPodAutoscaler", "m-muelle-a")["spec"]["metrics"]
    assert metric["containerResource"]["container"] == "predictor"
    assert metric["containerResource"]["target"] == {"type": "Utilization", "averageUtilization": 70}


def test_custom_metrics_come_beside_cpu_or_instead_of_it():
    own = {"type": "Pods", "pods": {"metric": {"name": "q"}, "target": {"type": "AverageValue", "averageValue": "4"}}}
    more = {"autoscaling": {"customMetrics": [own]}}

    def metrics(*values):
        return render(SCALED, more, *values).one("HorizontalPodAutoscaler", "m-muelle-a")["spec"]["metrics"]

    assert [metric["type"] for metric in metrics()] == ["ContainerResource", "Pods"]
    assert metrics({"autoscaling": {"targetCPUUtilizationPercent": 0}}) == [own]


def test_it_scales_down_slowly_unless_told_otherwise():
    behavior = render(SCALED).one("HorizontalPodAutoscaler", "m-muelle-a")["spec"]["behavior"]
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == 300
    own = {"autoscaling": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 9}}}}
    behavior = render(SCALED, own).one("HorizontalPodAutoscaler", "m-muelle-a")["spec"]["behavior"]
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == 9


def test_keda_scales_to_zero_what_is_in_use_and_lets_the_idle_slot_be():
    release = render(KEDA)
    scaled = release.of("ScaledObject")
    assert {name: thing["spec"]["minReplicaCount"] for name, thing in scaled.items()} == {
        "m-muelle-a": 0,
        "m-muelle-b": 0,
    }
    paused = "autoscaling.keda.sh/paused"
    assert paused not in scaled["m-muelle-a"]["metadata"].get("annotations", {})
    assert scaled["m-muelle-b"]["metadata"]["annotations"][paused] == "true"
    assert scaled["m-muelle-a"]["spec"]["triggers"] == KEDA["keda"]["triggers"]
    assert release.replicas() == {"a": None, "b": 0}
    assert "HorizontalPodAutoscaler" not in release.kinds()


@pytest.mark.parametrize(
    ("values", "there"),
    [
        ({}, True),
        ({"replicas": 1}, False),
        ({"podDisruptionBudget": {"enabled": False}}, False),
        ({"autoscaling": {"enabled": True, "minReplicas": 1}}, False),
        (SCALED, True),
        (KEDA, True),
    ],
)
def test_a_budget_comes_only_where_a_slot_has_more_than_one_pod(values, there):
    budgets = render(values).of("PodDisruptionBudget")
    assert set(budgets) == ({"m-muelle-a", "m-muelle-b"} if there else set())
    for budget in budgets.values():
        assert budget["spec"]["maxUnavailable"] == 1
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_pods_spread_over_nodes_if_they_can():
    (constraint,) = render().pod()["topologySpreadConstraints"]
    assert constraint["topologyKey"] == "kubernetes.io/hostname"
    assert constraint["whenUnsatisfiable"] == "ScheduleAnyway"
    assert constraint["labelSelector"]["matchLabels"] == render().deployment()["spec"]["selector"]["matchLabels"]
    assert "topologySpreadConstraints" not in render({"topologySpread": {"topologyKeys": []}}).pod()


def test_a_rolling_update_never_has_fewer_ready_pods_than_wanted():
    spec = render().deployment()["spec"]
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    assert spec["minReadySeconds"] > 0


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({**SCALED, **KEDA}, "autoscaling.enabled and keda.enabled would both scale the same Deployments"),
        ({"keda": {"enabled": True}}, "keda.triggers must say what to scale by"),
        ({"autoscaling": {"enabled": True, "minReplicas": 9, "maxReplicas": 5}}, "minReplicas is 9, above"),
        ({"autoscaling": {"enabled": True, "targetCPUUtilizationPercent": 0}}, "targetCPUUtilizationPercent or"),
        (
            {**SCALED, "resources": {"requests": {"cpu": None}}},
            "a percentage of resources.requests.cpu, which isn't set",
        ),
    ],
)
def test_scaling_values_that_contradict_each_other_are_refused_with_a_sentence(values, sentence):
    assert sentence in refusal(values)
