"""The stages of each command, as records: what is refused, and what each says."""

import pytest

from muelle.errors import RefusedError
from muelle.rollout import plan
from muelle.rollout.plan import Wish
from muelle.rollout.record import Record, SlotRecord
from muelle.rollout.release import Release


def release(backend="gateway", *, replicas=10, autoscaling=False, models_from="image"):
    return Release("m", "ns", "m-muelle", "uid", backend, replicas, autoscaling, "X-Muelle-Slot", models_from)


FRESH = Record("a", replicas={"b": 0}, since="then")
CANDIDATE = Record("a", "b", replicas={"b": 1}, slots={"b": SlotRecord("iris@2", since="then")}, since="then")
CONTENT = SlotRecord("iris@2", since="now")


def ends(stages):
    return stages[-1].record


def test_a_candidate_is_small_but_where_it_can_only_take_all():
    assert ends(plan.deploy(FRESH, release("gateway"), CONTENT, replicas=None)).replicas == {"b": 1}
    assert ends(plan.deploy(FRESH, release("replicas"), CONTENT, replicas=None)).replicas == {"b": 1}
    assert ends(plan.deploy(FRESH, release("service"), CONTENT, replicas=None)).replicas == {"b": 10}
    assert ends(plan.deploy(FRESH, release("service"), CONTENT, replicas=3)).replicas == {"b": 3}


def test_a_replaced_candidate_keeps_its_size():
    big = Record("a", "b", replicas={"b": 5}, slots={"b": SlotRecord("iris@2")})
    assert ends(plan.deploy(big, release(), SlotRecord("iris@3"), replicas=None)).replicas == {"b": 5}


def test_the_same_content_again_is_the_same_record():
    (stage,) = plan.deploy(CANDIDATE, release(), CONTENT, replicas=None)
    assert stage.record == CANDIDATE


@pytest.mark.parametrize(("models_from", "said"), [("image", "the image"), ("volume", "a volume")])
def test_sources_are_refused_where_nothing_is_fetched(models_from, said):
    content = SlotRecord("iris@2", fetch="s3://models/iris/2 sha256:0")
    with pytest.raises(RefusedError, match=f"has its models from {said}, .* models.from=fetch"):
        plan.deploy(FRESH, release(models_from=models_from), content, replicas=None)


def test_an_autoscaler_is_not_told_how_many():
    with pytest.raises(RefusedError, match="leave out --replicas"):
        plan.deploy(FRESH, release(autoscaling=True), CONTENT, replicas=2)
    assert ends(plan.deploy(FRESH, release(autoscaling=True), CONTENT, replicas=None)).replicas == {}


@pytest.mark.parametrize(
    "command", [lambda r: plan.set_traffic(r, release(), Wish(10)), lambda r: plan.promote(r, release(), keep=False)]
)
def test_without_a_candidate_the_way_to_one_is_told(command):
    with pytest.raises(RefusedError, match=r"there is no candidate: .*`muelle deploy NAME@VERSION`"):
        command(FRESH)


@pytest.mark.parametrize(
    ("backend", "wish", "message"),
    [
        ("service", Wish(10), "service backend, in which a candidate has 0 or 100 % of the traffic, not 10"),
        ("service", Wish(header=True), "a testers' header and copies of requests need traffic.backend=gateway"),
        ("replicas", Wish(mirror=10), "has the replicas backend: a testers' header and copies"),
        ("replicas", Wish(15), "10 pods can't give 15 %"),
    ],
)
def test_what_a_backend_can_not_do(backend, wish, message):
    with pytest.raises(RefusedError, match=message):
        plan.set_traffic(CANDIDATE, release(backend), wish)


def test_shares_of_pods_need_pods_that_nobody_else_counts():
    with pytest.raises(RefusedError, match=r"has an autoscaler, .* only 0 and 100"):
        plan.set_traffic(CANDIDATE, release("replicas", autoscaling=True), Wish(10))


def test_what_is_not_wished_for_stays():
    shown = Record("a", "b", weight=5, mirror=20, header=True, replicas={"b": 3}, slots=CANDIDATE.slots)
    moved = ends(plan.set_traffic(shown, release(), Wish(weight=7)))
    assert (moved.weight, moved.mirror, moved.header) == (7, 20, True)
    moved = ends(plan.set_traffic(shown, release(), Wish(header=False)))
    assert (moved.weight, moved.mirror, moved.header) == (5, 20, False)


def test_copies_need_pods_like_requests():
    assert ends(plan.set_traffic(CANDIDATE, release(), Wish(weight=20, mirror=30))).replicas == {"b": 5}
    assert ends(plan.set_traffic(CANDIDATE, release(), Wish(weight=100, mirror=30))).replicas == {"b": 10}


def test_pods_come_before_traffic_and_go_after_it():
    raised, moved, lowered = plan.set_traffic(CANDIDATE, release("replicas"), Wish(30))
    assert (raised.record.weight, dict(raised.record.replicas)) == (0, {"b": 3, "a": 10})
    assert raised.ready == ("b",)
    assert (moved.record.weight, dict(moved.record.replicas)) == (30, {"b": 3, "a": 10})
    assert (lowered.record.weight, dict(lowered.record.replicas)) == (30, {"b": 3, "a": 7})


def test_less_traffic_waits_for_the_stable_slot_only():
    half = Record("a", "b", weight=50, replicas={"a": 5, "b": 5}, slots=CANDIDATE.slots)
    raised, _, lowered = plan.set_traffic(half, release("replicas"), Wish(10))
    assert raised.ready == ("a",)
    assert raised.record.replicas == {"a": 9, "b": 5}
    assert lowered.record.replicas == {"a": 9, "b": 1}
    none = plan.set_traffic(half, release("replicas"), Wish(0))
    assert "a" not in none[0].record.replicas


def test_a_promotion_remembers_where_it_came_from():
    full, moved, emptied = plan.promote(CANDIDATE, release(), keep=False)
    assert full.record.replicas == {"b": 10}
    assert moved.record.stable == "b"
    assert moved.record.candidate is None
    assert moved.record.replicas == {"a": 10}
    assert moved.record.slots["a"] == SlotRecord(since="then")
    assert emptied.record.replicas == {"a": 0}
    assert emptied.drain


def test_a_kept_slot_is_whole():
    half = Record("a", "b", weight=50, replicas={"a": 5, "b": 5}, slots=CANDIDATE.slots)
    stages = plan.promote(half, release("replicas"), keep=True)
    assert len(stages) == 2
    assert ends(stages).replicas == {"a": 10}


def test_a_rollback_goes_to_what_the_record_remembers():
    promoted = ends(plan.promote(CANDIDATE, release(), keep=False))
    raised, moved, emptied = plan.rollback(promoted, release())
    assert raised.record.replicas == {"a": 10}
    assert raised.ready == ("a",)
    assert (moved.record.stable, set(moved.record.slots)) == ("a", {"a"})
    assert emptied.record.replicas == {"b": 0}
    with pytest.raises(RefusedError, match="nothing to roll back to: slot a is stable, and slot b holds no earlier"):
        plan.rollback(emptied.record, release())


def test_a_candidate_is_left_before_it_is_emptied():
    canary = Record("a", "b", weight=50, header=True, mirror=1, replicas={"b": 5}, slots=CANDIDATE.slots)
    moved, gone = plan.rollback(canary, release())
    assert not moved.record.gets_requests("b")
    assert moved.record.candidate == "b"
    assert moved.relaxed
    assert (gone.record.candidate, gone.record.replicas, gone.record.slots) == (None, {"b": 0}, {})
    assert gone.drain
