"""What `muelle status` knows."""

import json

from fake_cluster import FakeCluster

from muelle.rollout.operate import Limits, Operation
from muelle.rollout.plan import Wish
from muelle.rollout.record import SlotRecord
from muelle.rollout.release import find_release
from muelle.rollout.status import Model, read_status

PAGE = """# TYPE muelle_model_info gauge
muelle_model_info{model="iris",version="2",engine="onnx",digest="sha256:22"} 1.0
# TYPE muelle_requests_total counter
muelle_requests_total{model="iris",version="2"} 7.0
"""


def operation(cluster):
    return Operation(cluster, None, cluster.clock, lambda line: None, Limits())


def status(cluster):
    return read_status(cluster, find_release(cluster, None))


def test_a_canary_is_shown_with_what_its_pods_say():
    cluster = FakeCluster("gateway")
    cluster.metrics["iris@2"] = PAGE
    operation(cluster).deploy(SlotRecord("iris@2"))
    operation(cluster).set_traffic(Wish(weight=10, mirror=20, header=True))
    found = status(cluster)
    a, b = found.slots
    assert (found.stable, found.candidate, found.weight, found.mirror, found.header) == (
        "a",
        "b",
        10,
        20,
        "X-Muelle-Slot",
    )
    assert not found.unfinished
    assert (a.role, a.weight, a.ready, a.wanted, a.models) == ("stable", 90, 4, 4, (Model("iris", "1"),))
    assert (b.role, b.weight, b.ready, b.wanted) == ("candidate", 10, 2, 2)
    assert b.models == (Model("iris", "2", "sha256:22", "onnx"),)
    assert b.since == cluster.record()["slots"]["b"]["since"] != ""
    assert json.loads(json.dumps(found.to_json()))["slots"][1]["models"][0]["digest"] == "sha256:22"


def test_a_pod_that_did_not_answer_at_first_is_asked_again(monkeypatch):
    cluster = FakeCluster("gateway")
    cluster.metrics["iris@1"] = PAGE
    ask, asked = cluster.ask_pod, []

    def stalling(*where):
        asked.append(where)
        return ask(*where) if asked.count(where) > 1 else None

    monkeypatch.setattr(cluster, "ask_pod", stalling)
    assert status(cluster).slots[0].models == (Model("iris", "2", "sha256:22", "onnx"),)


def test_a_release_without_a_record_is_shown():
    cluster = FakeCluster("service")
    found = status(cluster)
    assert (found.stable, found.candidate, found.unfinished) == ("a", None, False)
    assert [(slot.role, slot.ready, slot.models) for slot in found.slots] == [
        ("stable", 4, (Model("iris", "1"),)),
        ("idle", 0, ()),
    ]


def test_a_slot_that_is_not_ready_says_why():
    cluster = FakeCluster("gateway")
    operation(cluster).deploy(SlotRecord("iris@2"))
    cluster.broken["iris@2"] = '{"reasons": ["iris 2: library"]}'
    cluster.pods = [pod for pod in cluster.pods if pod not in cluster.slot_pods("b")]
    cluster.settle()
    assert "iris 2: library" in status(cluster).slots[1].problem
    assert status(cluster).slots[0].problem == ""


def test_what_a_rollback_may_go_to_is_shown_and_what_it_may_not_is_not():
    cluster = FakeCluster("service")
    operation(cluster).deploy(SlotRecord("iris@2"))
    operation(cluster).promote(keep=False)
    assert status(cluster).slots[0].models == (Model("iris", "1"),)
    operation(cluster).rollback()
    assert status(cluster).slots[1].models == ()


def test_objects_that_are_not_as_recorded_are_told():
    cluster = FakeCluster("gateway")
    operation(cluster).deploy(SlotRecord("iris@2"))
    cluster.rules()[1]["backendRefs"][1]["weight"] = 50
    assert status(cluster).unfinished
    operation(cluster).set_traffic(Wish(weight=0))
    assert not status(cluster).unfinished


def test_an_autoscaler_that_has_gone_to_zero_is_no_unfinished_command():
    cluster = FakeCluster("service", replicas=1, autoscaling=True)
    operation(cluster).deploy(SlotRecord("iris@2"))
    operation(cluster).promote(keep=False)
    cluster.check = lambda: None
    cluster.deployment("b")["spec"]["replicas"] = 0
    cluster.settle()
    found = status(cluster)
    assert not found.unfinished
    assert [(slot.wanted, slot.problem) for slot in found.slots] == [(0, ""), (0, "")]


def test_a_page_that_is_no_page_of_metrics_says_nothing():
    cluster = FakeCluster("gateway")
    for page in ("<html>", "{", "muelle_model_info{", ""):
        cluster.metrics["iris@1"] = page
        assert status(cluster).slots[0].models == (Model("iris", "1"),)
    cluster.metrics["iris@1"] = 'muelle_model_info{model="iris"} 1.0\n'
    assert status(cluster).slots[0].models == (Model("iris", ""),)
