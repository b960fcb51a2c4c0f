"""What the `muelle` commands have written down goes before the values. On the cluster of the current context."""

from collections.abc import Callable, Iterator

import pytest
from cluster_objects import RECORD, forget_record, kubectl, put_record, record_map
from rendering import DIGEST, GATEWAY, Rendered, environment, merged, refusal, render

FETCH = {"models": {"from": "fetch", "fetch": {"bundles": [{"url": "s3://b/iris/1", "digest": DIGEST}]}}}


@pytest.fixture
def recorded(namespace: str) -> Iterator[Callable[..., Rendered]]:
    """Renders as `helm upgrade` does, with a record in the cluster that differs from `RECORD` as told."""

    def render_with(*values: dict[str, object], **changes: object) -> Rendered:
        put_record(namespace, RECORD | changes)
        return render(*values, namespace=namespace, look=True)

    yield render_with
    forget_record(namespace)


def test_a_canary_by_gateway_stays_what_it_is(recorded):
    release = recorded(GATEWAY)
    assert release.weights() == {"a": 90, "b": 10}
    assert release.rules()[0]["backendRefs"][0]["name"] == "m-muelle-b"
    assert release.rules()[1]["filters"][0]["requestMirror"]["percent"] == 20
    assert release.replicas() == {"a": 9, "b": 1}
    assert release.front_slot() == "a"
    assert {slot: release.environment(slot)["MUELLE_SERVE"] for slot in "ab"} == {"a": "iris@1", "b": "iris@2"}


def test_a_canary_by_pods_keeps_both_slots_behind_the_front_even_where_values_could_not_give_the_share(recorded):
    release = recorded({"traffic": {"backend": "replicas"}, "replicas": 3}, mirror=0, header=False)
    assert release.front_slot() is None
    assert release.replicas() == {"a": 9, "b": 1}


def test_a_candidate_with_all_the_weight_has_the_front(recorded):
    assert recorded(mirror=0, header=False, weight=100).front_slot() == "b"


def test_after_a_promotion_the_pointer_stays_swapped_and_the_values_say_how_many_pods(recorded):
    promoted = {"stable": "b", "candidate": None, "weight": 0, "mirror": 0, "header": False, "replicas": {"a": 0}}
    release = recorded({"replicas": 4}, **promoted)
    assert release.front_slot() == "b"
    assert release.replicas() == {"a": 0, "b": 4}


def test_an_old_slot_that_is_kept_warm_keeps_its_pods(recorded):
    kept = {"stable": "b", "candidate": None, "weight": 0, "mirror": 0, "header": False, "replicas": {"a": 2}}
    assert recorded(**kept).replicas() == {"a": 2, "b": 2}


def test_testers_stay_with_the_stable_slot_until_they_are_let_to_the_candidate(recorded):
    testers = recorded(GATEWAY, header=False).rules()[0]
    assert testers["backendRefs"][0]["name"] == "m-muelle-a"


def test_what_a_slot_fetches_and_which_image_it_runs_come_from_the_record(recorded):
    slots = {"b": {"serve": "iris@2", "fetch": f"s3://b/iris/2 {DIGEST}", "image": "muelle:other", "since": ""}}
    release = recorded(FETCH, slots=slots, mirror=0, header=False, weight=0)
    assert environment(release.fetcher("b"))["MUELLE_FETCH"] == f"s3://b/iris/2 {DIGEST}"
    assert (release.predictor("b")["image"], release.fetcher("b")["image"]) == ("muelle:other", "muelle:other")
    assert environment(release.fetcher("a"))["MUELLE_FETCH"] == f"s3://b/iris/1 {DIGEST}"


def test_what_the_record_leaves_empty_is_as_the_values_say(recorded):
    empty = {slot: {"serve": "", "fetch": "", "image": "", "since": ""} for slot in "ab"}
    release = recorded({"models": {"serve": ["iris@7"]}, "image": {"tag": "new"}}, slots=empty)
    for slot in "ab":
        assert release.environment(slot)["MUELLE_SERVE"] == "iris@7"
        assert release.predictor(slot)["image"] == "muelle:new"


def test_helm_test_runs_the_stable_slots_image(recorded):
    slots = {"b": {"serve": "", "fetch": "", "image": "muelle:other", "since": ""}}
    release = recorded(stable="b", candidate="a", slots=slots)
    assert release.one("Pod", "m-muelle-test")["spec"]["containers"][0]["image"] == "muelle:other"


def test_gitops_by_values_alone_does_not_look(recorded):
    release = recorded({"rollout": {"ignoreRecord": True}})
    assert release.replicas() == {"a": 2, "b": 0}
    assert release.environment()["MUELLE_SERVE"] == ""


def test_the_record_of_an_uninstalled_release_of_the_same_name_counts_for_nothing(namespace):
    # Kubernetes sweeps it away some seconds after the Service that it belongs to; a new install may be faster.
    document = record_map(RECORD, owner="00000000-0000-0000-0000-000000000000")
    try:
        kubectl(namespace, "create", document=document)
        assert render(namespace=namespace, look=True).replicas() == {"a": 2, "b": 0}
    finally:
        forget_record(namespace)


def test_a_record_of_a_format_of_the_future_is_refused(namespace):
    put_record(namespace, RECORD | {"format_version": 2})
    try:
        message = refusal(namespace=namespace, look=True)
    finally:
        forget_record(namespace)
    assert "ConfigMap m-muelle-rollout: expected format_version 1, got 2" in message


def test_switching_off_fetching_under_a_slot_that_fetches_is_refused(namespace):
    slots = merged(RECORD["slots"], {"b": {"fetch": f"s3://b/iris/2 {DIGEST}"}})
    put_record(namespace, RECORD | {"slots": slots})
    try:
        message = refusal(namespace=namespace, look=True)
    finally:
        forget_record(namespace)
    assert "slot b runs what `muelle deploy` let it fetch, but models.from is image" in message
