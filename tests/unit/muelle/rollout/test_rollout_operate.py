"""The commands on a cluster in memory that checks after every write who would be sent requests."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools

import pytest
from fake_cluster import FakeCluster, KilledError

from muelle.errors import ConflictError, RefusedError, StuckError
from muelle.rollout.objects import wanted_replicas
from muelle.rollout.operate import Limits, Operation
from muelle.rollout.plan import Wish
from muelle.rollout.record import SLOTS, Record, SlotRecord
from muelle.rollout.traffic import rules_fields, selector_fields, wanted

BACKENDS = ["service", "replicas", "gateway"]


def operation(cluster, limits=None, said=None):
    lines = [] if said is None else said
    return Operation(cluster, None, cluster.clock, lines.append, limits or Limits(60, 30))


def deploy(cluster, serve="iris@2", replicas=None, **content):
    operation(cluster).deploy(SlotRecord(serve=serve, **content), replicas)


def traffic(cluster, weight=None, **wish):
    operation(cluster).set_traffic(Wish(weight=weight, **wish))


def promote(cluster, keep=False):
    operation(cluster).promote(keep=keep)


def rollback(cluster):
    operation(cluster).rollback()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_deployed_candidate_is_ready_and_gets_nothing(backend):
    cluster = FakeCluster(backend)
    before = cluster.uids("a")
    deploy(cluster)
    assert cluster.env("b") == "iris@2"
    assert len(cluster.slot_pods("b", ready=True)) == (4 if backend == "service" else 1)
    assert cluster.shares() == ({"a": 1.0, "b": 0.0})
    assert cluster.uids("a") == before
    assert cluster.record()["candidate"] == "b"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_promotion_moves_a_pointer_and_starts_no_pod_anew(backend):
    cluster = FakeCluster(backend)
    deploy(cluster, replicas=4)
    candidate = cluster.uids("b")
    promote(cluster)
    assert cluster.uids("b") == candidate
    assert cluster.shares()["b"] == 1.0
    assert cluster.replicas() == {"a": 0, "b": 4}
    assert cluster.record()["stable"] == "b"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_rollback_after_a_promotion_goes_back_once(backend):
    cluster = FakeCluster(backend)
    deploy(cluster)
    promote(cluster)
    rollback(cluster)
    assert cluster.shares()["a"] == 1.0
    assert cluster.replicas() == {"a": 4, "b": 0}
    state = cluster.state()
    with pytest.raises(RefusedError, match="nothing to roll back to: slot a is stable"):
        rollback(cluster)
    assert cluster.state() == state


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_rolled_back_candidate_is_no_place_to_roll_back_to(backend):
    cluster = FakeCluster(backend)
    deploy(cluster)
    rollback(cluster)
    assert cluster.replicas() == {"a": 4, "b": 0}
    with pytest.raises(RefusedError, match="slot b holds no earlier version"):
        rollback(cluster)


def test_a_kept_slot_stays_warm_until_the_next_promote():
    cluster = FakeCluster("service")
    deploy(cluster)
    promote(cluster, keep=True)
    assert cluster.replicas() == {"a": 4, "b": 4}
    promote(cluster)
    assert cluster.replicas() == {"a": 0, "b": 4}
    with pytest.raises(RefusedError, match="no candidate"):
        promote(cluster)


def test_a_kept_slot_is_gone_back_to_without_a_new_pod():
    cluster = FakeCluster("gateway")
    old = cluster.uids("a")
    deploy(cluster)
    promote(cluster, keep=True)
    rollback(cluster)
    assert cluster.uids("a") == old


def test_the_old_slot_keeps_its_pods_for_the_drain():
    cluster = FakeCluster("service")
    deploy(cluster)
    gone = []
    cluster.after_write = lambda: gone.append((cluster.clock.seconds, cluster.shares()["b"], cluster.replicas()["a"]))
    promote(cluster)
    moved = next(seconds for seconds, share, _ in gone if share == 1.0)
    emptied = next(seconds for seconds, _, replicas in gone if replicas == 0)
    assert emptied - moved >= 30


def test_shares_by_replicas_are_made_of_pods():
    cluster = FakeCluster("replicas", replicas=10)
    deploy(cluster)
    traffic(cluster, 10)
    assert cluster.replicas() == {"a": 9, "b": 1}
    assert "muelle.io/slot" not in cluster.selector()
    assert cluster.selector()["app.kubernetes.io/component"] == "predictor"
    cluster.settle()
    assert cluster.shares() == {"a": 0.9, "b": 0.1}
    traffic(cluster, 50)
    assert cluster.replicas() == {"a": 5, "b": 5}
    traffic(cluster, 100)
    assert cluster.selector()["muelle.io/slot"] == "b"
    assert cluster.replicas()["b"] == 10
    traffic(cluster, 0)
    assert cluster.selector()["muelle.io/slot"] == "a"
    assert cluster.replicas()["a"] == 10
    rollback(cluster)
    assert cluster.replicas() == {"a": 10, "b": 0}


def test_shares_by_gateway_are_exact_and_the_candidate_has_the_pods_for_them():
    cluster = FakeCluster("gateway", replicas=4)
    deploy(cluster)
    traffic(cluster, 37)
    assert [ref["weight"] for ref in cluster.rules()[1]["backendRefs"]] == [63, 37]
    assert cluster.replicas() == {"a": 4, "b": 2}
    assert cluster.rules()[1]["timeouts"] == {"request": "35s"}
    assert cluster.selector()["muelle.io/slot"] == "a"


def test_testers_and_copies():
    cluster = FakeCluster("gateway")
    deploy(cluster)
    traffic(cluster, header=True, mirror=20)
    testers, rest = cluster.rules()
    assert testers["backendRefs"][0]["name"] == "m-muelle-b"
    assert rest["filters"][0]["requestMirror"]["backendRef"]["name"] == "m-muelle-b"
    assert rest["filters"][0]["requestMirror"]["percent"] == 20
    traffic(cluster, mirror=0)
    assert "filters" not in cluster.rules()[1]
    assert cluster.rules()[0]["backendRefs"][0]["name"] == "m-muelle-b"
    promote(cluster)
    # No candidate: testers get what everybody gets.
    assert cluster.rules()[0]["backendRefs"][0]["name"] == "m-muelle-b"
    assert [ref["weight"] for ref in cluster.rules()[1]["backendRefs"]] == [0, 100]


def test_a_new_candidate_starts_without_testers_and_copies():
    cluster = FakeCluster("gateway")
    deploy(cluster)
    traffic(cluster, header=True, mirror=20)
    cluster.broken["iris@3"] = '{"reasons": ["iris 3: digest"]}'
    with pytest.raises(StuckError):
        deploy(cluster, "iris@3")
    assert cluster.rules()[0]["backendRefs"][0]["name"] == "m-muelle-a"
    assert "filters" not in cluster.rules()[1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_candidate_that_does_not_get_ready_is_told_and_gets_nothing(backend):
    cluster = FakeCluster(backend)
    stable = cluster.uids("a")
    cluster.broken["iris@3"] = '{"reasons": ["iris 3: model.joblib: expected sha256 1, got 2"]}'
    with pytest.raises(StuckError, match=r"slot b .*iris 3: model\.joblib: expected sha256 1, got 2"):
        deploy(cluster, "iris@3")
    assert cluster.clock.seconds < 30  # it did not wait for what never comes
    assert cluster.shares() == {"a": 1.0, "b": 0.0}
    assert cluster.uids("a") == stable
    with pytest.raises(StuckError):
        traffic(cluster, 100)
    with pytest.raises(StuckError):
        promote(cluster)
    assert cluster.shares() == {"a": 1.0, "b": 0.0}
    deploy(cluster, "iris@2")
    promote(cluster)
    assert cluster.shares()["b"] == 1.0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_second_candidate_that_does_not_get_ready_is_told_by_its_own_reason(backend):
    cluster = FakeCluster(backend)
    for version in ("3", "4"):
        cluster.broken[f"iris@{version}"] = f'{{"reasons": ["iris {version}: no"]}}'
        with pytest.raises(StuckError, match=f"slot b does not get ready.*iris {version}: no"):
            deploy(cluster, f"iris@{version}")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_rollback_does_not_wait_for_a_broken_candidate(backend):
    cluster = FakeCluster(backend)
    deploy(cluster)
    traffic(cluster, 100 if backend == "service" else 50)
    cluster.strict = False
    for pod in cluster.slot_pods("b")[1:]:
        cluster.pods.remove(pod)
    cluster.seconds_to_ready = 1_000
    started = cluster.clock.seconds
    if backend == "replicas":
        cluster.seconds_to_ready = 2
    rollback(cluster)
    assert cluster.shares()["a"] == 1.0
    assert cluster.replicas() == {"a": 4, "b": 0}
    assert cluster.clock.seconds - started < 45


def test_a_rollback_goes_on_when_there_is_no_room_for_more_stable_pods():
    cluster = FakeCluster("replicas")
    deploy(cluster)
    traffic(cluster, 50)
    cluster.settle()
    cluster.room, cluster.strict = 4, False
    said = []
    started = cluster.clock.seconds
    operation(cluster, Limits(300, 0), said=said).rollback()
    assert cluster.clock.seconds - started < 100
    assert any("going on with fewer pods" in line for line in said)
    assert cluster.replicas() == {"a": 4, "b": 0}
    cluster.settle()
    assert cluster.shares() == {"a": 1.0, "b": 0.0}


def test_deploy_refuses_while_the_candidate_has_traffic():
    cluster = FakeCluster("gateway")
    deploy(cluster)
    traffic(cluster, 10)
    state = cluster.state()
    with pytest.raises(RefusedError, match="slot b is a candidate with 10 % of the traffic"):
        deploy(cluster, "iris@3")
    assert cluster.state() == state


def test_an_autoscaler_keeps_its_numbers():
    cluster = FakeCluster("gateway", replicas=2, autoscaling=True)
    cluster.strict = False
    cluster.deployment("a")["spec"]["replicas"] = 7
    cluster.settle()
    deploy(cluster)
    # From nothing to what the load needs in the other slot, and then it is the autoscaler's.
    assert cluster.replicas() == {"a": 7, "b": 7}
    assert "f:replicas" not in str(cluster.owned("Deployment", "m-muelle-b"))
    cluster.deployment("b")["spec"]["replicas"] = 3
    cluster.settle()
    traffic(cluster, 40)
    assert cluster.replicas() == {"a": 7, "b": 3}
    promote(cluster)
    assert cluster.replicas() == {"a": 0, "b": 3}
    assert cluster.record()["replicas"] == {"a": 0}


@pytest.mark.parametrize("backend", ["service", "gateway"])
def test_a_slot_that_an_autoscaler_has_sent_to_sleep_is_woken_only_for_traffic(backend):
    cluster = FakeCluster(backend, replicas=1, autoscaling=True)
    deploy(cluster)
    promote(cluster)
    cluster.strict, cluster.check = False, lambda: None
    cluster.deployment("b")["spec"]["replicas"] = 0
    cluster.settle()
    before, said = cluster.writes, []
    with pytest.raises(RefusedError, match="no candidate"):
        operation(cluster, said=said).promote(keep=False)
    assert (cluster.writes, said) == (before, [])
    deploy(cluster, "iris@3")
    assert cluster.replicas() == {"a": 1, "b": 0}
    cluster.deployment("a")["spec"]["replicas"] = 0
    cluster.settle()
    traffic(cluster, 100)
    assert cluster.replicas() == {"a": 1, "b": 0}
    assert len(cluster.slot_pods("a", ready=True)) == 1
    rollback(cluster)
    assert cluster.replicas() == {"a": 0, "b": 1}
    assert cluster.shares()["b"] == 1.0


def test_only_what_the_record_says_is_ours():
    cluster = FakeCluster("gateway")
    deploy(cluster, image="muelle:2")
    serve = 'f:template/f:spec/f:containers/k:{"name":"predictor"}/f:env/k:{"name":"MUELLE_SERVE"}/f:value'
    image = 'f:template/f:spec/f:containers/k:{"name":"predictor"}/f:image'
    assert {"f:replicas", serve, image} <= cluster.owned("Deployment", "m-muelle-b")
    assert cluster.owned("Deployment", "m-muelle-a") == set()
    promote(cluster)
    # The size of the stable slot is the chart's again.
    assert "f:replicas" not in cluster.owned("Deployment", "m-muelle-b")
    assert {serve, image} <= cluster.owned("Deployment", "m-muelle-b")
    # Rules hold more than weights, and are owned all or not at all.
    assert cluster.owned("HTTPRoute", "m-muelle") == set()
    assert cluster.owned("Service", "m-muelle") == {"f:selector"}


def test_a_slot_that_is_given_up_has_the_charts_values_again():
    cluster = FakeCluster("gateway", models_from="fetch")
    deploy(cluster, fetch="s3://models/iris/2 sha256:2", image="muelle:2")
    assert cluster.env("b", "MUELLE_FETCH") == "s3://models/iris/2 sha256:2"
    rollback(cluster)
    assert cluster.env("b", "MUELLE_FETCH") == "s3://models/iris/1 sha256:1"
    assert cluster.env("b") == "iris@1"
    pod = cluster.deployment("b")["spec"]["template"]["spec"]
    assert [pod[group][0]["image"] for group in ("containers", "initContainers")] == ["muelle:1", "muelle:1"]
    assert cluster.owned("Deployment", "m-muelle-b") == {"f:replicas"}


def test_what_deploy_leaves_out_is_as_in_the_stable_slot():
    cluster = FakeCluster("service", models_from="fetch")
    deploy(cluster, fetch="s3://models/iris/2 sha256:2", image="muelle:2")
    promote(cluster)
    deploy(cluster, "iris@3", fetch="s3://models/iris/3 sha256:3")
    assert cluster.record()["slots"]["a"]["image"] == "muelle:2"
    assert cluster.env("a", "MUELLE_FETCH") == "s3://models/iris/3 sha256:3"


def test_an_image_of_an_earlier_candidate_does_not_stay():
    cluster = FakeCluster("service")
    deploy(cluster, image="muelle:bad")
    deploy(cluster, "iris@3")
    assert cluster.deployment("b")["spec"]["template"]["spec"]["containers"][0]["image"] == "muelle:1"
    assert "image" not in str(cluster.owned("Deployment", "m-muelle-b"))


def test_two_operators_do_not_work_against_each_other():
    cluster = FakeCluster("gateway")
    deploy(cluster)
    first = operation(cluster)
    traffic(cluster, 50)
    with pytest.raises(ConflictError, match="somebody else is changing release m in namespace ns"):
        first.set_traffic(Wish(weight=10))
    assert cluster.record()["weight"] == 50


def test_a_command_stops_changing_objects_when_the_record_is_no_longer_its_own():
    cluster = FakeCluster("gateway")
    deploy(cluster)
    waiting = operation(cluster)
    taken = []

    def overtake():
        if not taken and cluster.record()["replicas"].get("b") == 2:
            taken.append(1)
            rollback(cluster)

    cluster.after_write = overtake
    with pytest.raises((ConflictError, StuckError)):
        waiting.set_traffic(Wish(weight=50))
    assert taken
    assert cluster.shares() == {"a": 1.0, "b": 0.0}
    assert cluster.replicas() == {"a": 4, "b": 0}


def test_the_gateway_that_does_not_answer_is_told():
    cluster = FakeCluster("gateway")
    deploy(cluster)
    cluster.gateway_answers = False
    with pytest.raises(StuckError, match="HTTPRoute m-muelle is not ready after 60 s: gateway local has not seen"):
        traffic(cluster, 10)


STORIES = {
    "deploy": ([], deploy),
    "deploy again": ([deploy], lambda cluster: deploy(cluster, "iris@3")),
    "deploy after a promotion": ([deploy, promote], lambda cluster: deploy(cluster, "iris@3")),
    "all traffic": ([deploy], lambda cluster: traffic(cluster, 100)),
    "half": ([deploy], lambda cluster: traffic(cluster, 50)),
    "more": ([deploy, lambda c: traffic(c, 25)], lambda cluster: traffic(cluster, 75)),
    "less": ([deploy, lambda c: traffic(c, 75)], lambda cluster: traffic(cluster, 25)),
    "none": ([deploy, lambda c: traffic(c, 50)], lambda cluster: traffic(cluster, 0)),
    "testers": ([deploy], lambda cluster: traffic(cluster, 25, header=True, mirror=25)),
    "promote": ([deploy], promote),
    "promote a canary": ([deploy, lambda c: traffic(c, 50)], promote),
    "promote and keep": ([deploy], lambda cluster: promote(cluster, keep=True)),
    "drop what was kept": ([deploy, lambda c: promote(c, keep=True)], promote),
    "withdraw": ([deploy], rollback),
    "withdraw a canary": ([deploy, lambda c: traffic(c, 50)], rollback),
    "withdraw all": ([deploy, lambda c: traffic(c, 100)], rollback),
    "rollback": ([deploy, promote], rollback),
    "rollback to a kept slot": ([deploy, lambda c: promote(c, keep=True)], rollback),
    "replace a candidate that testers see": (
        [deploy, lambda c: traffic(c, 0, header=True)],
        lambda cluster: deploy(cluster, "iris@3"),
    ),
}
POSSIBLE = [
    (backend, autoscaling, story)
    for backend in BACKENDS
    for autoscaling in (False, True)
    for story in STORIES
    if not (autoscaling and backend == "replicas")
    if backend == "gateway" or "testers" not in story
    if backend != "service" or story not in ("half", "more", "less", "none", "promote a canary", "withdraw a canary")
]


@functools.cache
def beginning(backend, autoscaling, story):
    cluster = FakeCluster(backend, autoscaling=autoscaling)
    for step in STORIES[story][0]:
        step(cluster)
    cluster.settle()
    cluster.writes = 0
    return cluster


def prepared(backend, autoscaling, story):
    return copy.deepcopy(beginning(backend, autoscaling, story)), STORIES[story][1]


@pytest.mark.parametrize(("backend", "autoscaling", "story"), POSSIBLE)
def test_killed_anywhere_and_repeated_a_command_comes_to_the_same_end(backend, autoscaling, story):
    cluster, command = prepared(backend, autoscaling, story)
    command(cluster)
    expected, writes = cluster.state(), cluster.writes
    assert writes
    for lives in range(1, writes + 1):
        cluster, command = prepared(backend, autoscaling, story)
        cluster.lives = lives
        with pytest.raises(KilledError):
            command(cluster)
        cluster.lives = None
        cluster.clock.sleep(3)
        try:
            command(cluster)
        except RefusedError:
            assert lives == writes, "only when nothing was left to do"
        assert cluster.state() == expected, f"killed after write {lives} of {writes}"


@pytest.mark.parametrize(("backend", "autoscaling", "story"), POSSIBLE)
def test_killed_anywhere_a_command_is_finished_or_taken_back_by_a_rollback(backend, autoscaling, story):
    cluster, command = prepared(backend, autoscaling, story)
    command(cluster)
    for lives in range(1, cluster.writes + 1):
        cluster, command = prepared(backend, autoscaling, story)
        cluster.lives = lives
        with pytest.raises(KilledError):
            command(cluster)
        cluster.lives = None
        try:
            rollback(cluster)
        except RefusedError:
            continue
        record = Record.from_json(cluster.objects["ConfigMap", "m-muelle-rollout"]["data"]["record.json"], "record")
        assert record.candidate is None
        assert cluster.replicas()[record.idle] == 0


@pytest.mark.parametrize(("backend", "autoscaling", "story"), POSSIBLE)
def test_killed_anywhere_a_command_is_taken_back_even_if_what_is_new_breaks(backend, autoscaling, story):
    old, new = ("b", "a") if story == "deploy after a promotion" else ("a", "b")
    cluster, command = prepared(backend, autoscaling, story)
    command(cluster)
    for lives in range(1, cluster.writes + 1):
        cluster, command = prepared(backend, autoscaling, story)
        cluster.lives = lives
        with pytest.raises(KilledError):
            command(cluster)
        cluster.lives = None
        break_models(cluster, {"iris@2", "iris@3"} - {cluster.env(old)})
        never_more(cluster, new)
        with contextlib.suppress(RefusedError):
            rollback(cluster)
        cluster.settle()
        assert cluster.shares() == {old: 1.0, new: 0.0}, f"killed after write {lives}"
        assert cluster.replicas() == {old: 4, new: 0}, f"killed after write {lives}"
        assert len(cluster.slot_pods(old, ready=True)) == 4


def break_models(cluster, names):
    """Make pods that serve these unready; those that were sent requests lose them."""
    cluster.check = lambda: None
    cluster.broken.update(dict.fromkeys(names, '{"reasons": ["golden outputs differ"]}'))
    cluster.settle()


def never_more(cluster, slot):
    """Check from now on that a slot is sent no more than it is."""
    at_most = cluster.shares()[slot]

    def check():
        assert cluster.shares()[slot] <= at_most

    cluster.check = check


def test_a_rollback_from_an_unfinished_promotion_does_not_finish_it_first():
    cluster = FakeCluster("gateway")
    deploy(cluster, replicas=4)
    cluster.after_write = functools.partial(die_once_promoted, cluster)
    with pytest.raises(KilledError):
        promote(cluster)
    cluster.after_write = lambda: None
    never_more(cluster, "b")
    rollback(cluster)
    assert cluster.shares() == {"a": 1.0, "b": 0.0}


def die_once_promoted(cluster):
    if cluster.record()["stable"] == "b":
        raise KilledError


@pytest.mark.parametrize(("backend", "autoscaling", "story"), POSSIBLE)
def test_helm_upgrade_at_any_moment_is_safe_and_changes_nothing(backend, autoscaling, story):
    expected_cluster, command = prepared(backend, autoscaling, story)
    command(expected_cluster)
    cluster, command = prepared(backend, autoscaling, story)
    busy = []

    def upgrade():
        if not busy and ("ConfigMap", "m-muelle-rollout") in cluster.objects:
            busy.append(1)
            helm_upgrade(cluster)
            busy.clear()

    cluster.after_write = upgrade
    command(cluster)
    assert cluster.state()["record"] == expected_cluster.state()["record"]
    assert cluster.state()["objects"] == expected_cluster.state()["objects"]


def helm_upgrade(cluster):
    """Make the objects what the chart's templates make of the record, all at once."""
    found = operation(cluster)
    record, release = found.record, found.release
    deployments = {slot: cluster.deployment(slot) for slot in SLOTS}
    for slot in SLOTS:
        number = wanted_replicas(record, release, slot, deployments, waking=True)
        write(cluster, "Deployment", f"m-muelle-{slot}", {"replicas": number})
    traffic_now = wanted(record, release)
    service = cluster.objects["Service", "m-muelle"]
    write(cluster, "Service", "m-muelle", selector_fields(release, service, traffic_now.front)["spec"])
    if traffic_now.route is not None:
        route = cluster.objects["HTTPRoute", "m-muelle"]
        write(cluster, "HTTPRoute", "m-muelle", rules_fields(release, route, traffic_now.route)["spec"])
    cluster.check()


def write(cluster, kind, name, spec):
    thing = cluster.objects[kind, name]
    if any(thing["spec"][key] != value for key, value in spec.items()):
        thing["spec"].update(spec)
        cluster.version += 1
        thing["metadata"]["resourceVersion"] = str(cluster.version)
        thing["metadata"]["generation"] += 1


def test_a_canary_begun_by_values_goes_on():
    cluster = FakeCluster("gateway")
    cluster.deployment("b")["spec"]["replicas"] = 2
    cluster.settle()
    cluster.rules()[1]["backendRefs"][0]["weight"] = 90
    cluster.rules()[1]["backendRefs"][1]["weight"] = 10
    found = operation(cluster).record
    assert (found.stable, found.candidate, found.weight, found.header) == ("a", "b", 10, False)
    promote(cluster)
    assert cluster.replicas() == {"a": 0, "b": 4}


def test_a_repeated_deploy_of_the_same_changes_nothing():
    cluster = FakeCluster("gateway")
    deploy(cluster)
    record = cluster.record()
    writes = cluster.writes
    cluster.clock.sleep(5)
    deploy(cluster)
    assert cluster.record() == record
    assert cluster.writes == writes


def test_limits_have_sensible_defaults():
    assert dataclasses.asdict(Limits()) == {"timeout_seconds": 300.0, "drain_seconds": 30.0}
