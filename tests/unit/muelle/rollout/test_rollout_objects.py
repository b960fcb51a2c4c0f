"""What is applied to a slot's Deployment; what the commands make of it is in test_rollout_operate."""

import pytest
from fake_cluster import FakeCluster

from muelle.errors import RecordError
from muelle.rollout.objects import Change, deployment_change, serves, wanted_replicas
from muelle.rollout.record import Record, SlotRecord
from muelle.rollout.release import find_release


def live(cluster):
    return {slot: cluster.read("Deployment", f"m-muelle-{slot}") for slot in "ab"}


def test_only_what_the_record_says_is_applied():
    cluster = FakeCluster(models_from="fetch")
    record = Record("a", "b", replicas={"b": 2}, slots={"b": SlotRecord("iris@2", "s3://x/2 sha256:2", "muelle:2")})
    change = deployment_change(record, find_release(cluster, None), "b", live(cluster), lower=False)
    fetch = {"name": "fetch", "image": "muelle:2", "env": [{"name": "MUELLE_FETCH", "value": "s3://x/2 sha256:2"}]}
    predictor = {"name": "predictor", "image": "muelle:2", "env": [{"name": "MUELLE_SERVE", "value": "iris@2"}]}
    pod = {"containers": [predictor], "initContainers": [fetch]}
    assert change == Change({"spec": {"replicas": 2, "template": {"spec": pod}}})
    assert not deployment_change(record, find_release(cluster, None), "a", live(cluster), lower=True)


def test_a_right_object_is_left_alone():
    cluster = FakeCluster()
    record = Record("a", replicas={"b": 0}, slots={"a": SlotRecord("iris@1")})
    for slot in "ab":
        assert not deployment_change(record, find_release(cluster, None), slot, live(cluster), lower=True)


def test_pods_go_only_when_they_may():
    cluster = FakeCluster(replicas=4)
    record = Record("a", "b", weight=50, replicas={"a": 2, "b": 2})
    release = find_release(cluster, None)
    assert not deployment_change(record, release, "a", live(cluster), lower=False)
    assert deployment_change(record, release, "a", live(cluster), lower=True).fields == {"spec": {"replicas": 2}}


@pytest.mark.parametrize(
    ("record", "numbers"),
    [
        (Record("a"), {"a": 4, "b": 0}),
        (Record("a", "b"), {"a": 4, "b": 4}),
        (Record("b", replicas={"a": 1}), {"a": 1, "b": 4}),
    ],
)
def test_what_the_record_leaves_open_the_values_say(record, numbers):
    cluster = FakeCluster(replicas=4)
    release = find_release(cluster, None)
    assert {slot: wanted_replicas(record, release, slot, live(cluster)) for slot in "ab"} == numbers


def test_an_autoscaled_slot_starts_with_what_the_load_needs():
    cluster = FakeCluster(replicas=2, autoscaling=True)
    cluster.strict = False
    cluster.deployment("a")["spec"]["replicas"] = 6
    release = find_release(cluster, None)
    assert wanted_replicas(Record("a", "b"), release, "b", live(cluster), waking=True) == 6
    assert wanted_replicas(Record("a", "b"), release, "b", live(cluster)) == 0
    assert wanted_replicas(Record("a", replicas={"b": 0}), release, "b", live(cluster), waking=True) == 0
    cluster.deployment("a")["spec"]["replicas"] = 1
    assert wanted_replicas(Record("a", "b"), release, "b", live(cluster), waking=True) == 2
    assert wanted_replicas(Record("a", "b"), release, "a", live(cluster)) == 1


def test_a_deployment_without_the_predictor_is_refused():
    cluster = FakeCluster()
    cluster.deployment("b")["spec"]["template"]["spec"]["containers"] = [{"name": "web"}]
    with pytest.raises(RecordError, match="Deployment m-muelle-b: expected a container predictor"):
        deployment_change(Record("a", "b"), find_release(cluster, None), "b", live(cluster), lower=True)


def test_what_a_deployment_serves():
    cluster = FakeCluster()
    assert serves(cluster.deployment("a")) == "iris@1"
    cluster.deployment("a")["spec"]["template"]["spec"]["containers"][0]["env"] = []
    assert serves(cluster.deployment("a")) == ""
