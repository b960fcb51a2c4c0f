"""The record of a release that no command has touched yet."""

import pytest
from fake_cluster import FakeCluster

from muelle.errors import RecordError
from muelle.rollout.operate import Limits, Operation, load_record
from muelle.rollout.record import Record
from muelle.rollout.release import find_release

INSTALLED = "2026-11-21T09:00:00Z"


def found(cluster):
    cluster.strict = False
    stored, record = load_record(cluster, find_release(cluster, None))
    assert stored is None
    return record


@pytest.mark.parametrize("backend", ["service", "replicas", "gateway"])
def test_a_fresh_release_has_an_empty_slot(backend):
    assert found(FakeCluster(backend)) == Record("a", replicas={"b": 0}, since=INSTALLED)


def test_a_candidate_of_the_values_is_a_candidate():
    cluster = FakeCluster("gateway")
    cluster.deployment("b")["spec"]["replicas"] = 2
    cluster.settle()
    testers, rest = cluster.rules()
    testers["backendRefs"][0]["name"] = "m-muelle-b"
    for ref, weight in zip(rest["backendRefs"], (9, 1), strict=True):
        ref["weight"] = weight
    mirror = {"backendRef": {"name": "m-muelle-b"}, "percent": 30}
    rest["filters"] = [{"type": "RequestMirror", "requestMirror": mirror}]
    assert found(cluster) == Record("a", "b", weight=10, mirror=30, header=True, replicas={"b": 2}, since=INSTALLED)


def test_an_autoscalers_number_is_not_written_down():
    cluster = FakeCluster("service", autoscaling=True)
    cluster.deployment("b")["spec"]["replicas"] = 2
    assert found(cluster) == Record("a", "b", since=INSTALLED)


def canary_of_values(backend, front, a, b, stable="a"):
    """What the chart makes of a candidate in its values."""
    cluster = FakeCluster(backend)
    cluster.strict = False
    for slot, replicas in (("a", a), ("b", b)):
        cluster.deployment(slot)["spec"]["replicas"] = replicas
    check, cluster.check = cluster.check, lambda: None
    service = cluster.objects["Service", "m-muelle"]
    service["metadata"]["annotations"]["muelle.io/stable"] = stable
    if front is None:
        del service["spec"]["selector"]["muelle.io/slot"]
        service["spec"]["selector"]["app.kubernetes.io/component"] = "predictor"
    else:
        service["spec"]["selector"]["muelle.io/slot"] = front
    cluster.settle()
    cluster.check = check
    return cluster


def rollback(cluster):
    Operation(cluster, None, cluster.clock, lambda line: None, Limits()).rollback()
    cluster.settle()
    assert cluster.shares() == {"a": 1.0, "b": 0.0}
    assert cluster.replicas() == {"a": 4, "b": 0}


@pytest.mark.parametrize("backend", ["service", "replicas"])
def test_a_candidate_of_the_values_with_all_the_traffic_is_still_the_candidate(backend):
    cluster = canary_of_values(backend, "b", 4, 4)
    assert found(cluster) == Record("a", "b", weight=100, replicas={"b": 4}, since=INSTALLED)
    rollback(cluster)


def test_a_stable_slot_of_the_values_that_is_b_is_b():
    cluster = canary_of_values("service", "b", 4, 4, stable="b")
    assert found(cluster) == Record("b", "a", replicas={"a": 4}, since=INSTALLED)


@pytest.mark.parametrize(("pods", "weight"), [((3, 1), 25), ((2, 1), 33), ((1, 2), 67)])
def test_a_canary_of_the_values_by_replicas_has_the_share_of_its_pods(pods, weight):
    a, b = pods
    wanted = Record("a", "b", weight=weight, replicas={"a": a, "b": b}, since=INSTALLED)
    cluster = canary_of_values("replicas", None, a, b)
    assert found(cluster) == wanted
    rollback(cluster)


def test_a_slot_without_pods_is_no_stable_one_whatever_the_chart_said():
    # A promotion whose record was removed.
    assert found(canary_of_values("service", "b", 0, 4)) == Record("b", replicas={"a": 0}, since=INSTALLED)


@pytest.mark.parametrize(("backend", "front"), [("service", "b"), ("replicas", "b"), ("replicas", None)])
@pytest.mark.parametrize("said", [None, "c"])
def test_two_slots_with_pods_and_no_word_of_which_is_stable_are_refused(backend, front, said):
    cluster = canary_of_values(backend, front, 2, 2)
    annotations = cluster.objects["Service", "m-muelle"]["metadata"]["annotations"]
    annotations.pop("muelle.io/stable")
    if said is not None:
        annotations["muelle.io/stable"] = said
    with pytest.raises(RecordError, match=r"Service m-muelle: annotation muelle\.io/stable: expected a or b"):
        found(cluster)


def test_with_a_gateway_the_front_is_the_stable_slots():
    cluster = canary_of_values("gateway", "b", 4, 4)
    for ref, weight in zip(cluster.rules()[1]["backendRefs"], (10, 90), strict=True):
        ref["weight"] = weight
    del cluster.objects["Service", "m-muelle"]["metadata"]["annotations"]["muelle.io/stable"]
    record = found(cluster)
    assert (record.stable, record.candidate, record.weight) == ("b", "a", 10)
