"""The record of a release that no command has touched yet."""

import pytest
from fake_cluster import FakeCluster

from muelle.errors import RecordError
from muelle.rollout.operate import load_record
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


def test_a_canary_of_the_values_by_replicas_has_no_stable_slot_to_be_seen():
    cluster = FakeCluster("replicas")
    selector = cluster.objects["Service", "m-muelle"]["spec"]["selector"]
    del selector["muelle.io/slot"]
    with pytest.raises(RecordError, match="selects both slots and there is no record"):
        found(cluster)
