"""The front Service's selector and the HTTPRoute's rules."""

import pytest
from fake_cluster import FakeCluster

from muelle.errors import RecordError
from muelle.rollout.record import Record
from muelle.rollout.release import find_release
from muelle.rollout.traffic import Route, Traffic, rules_fields, seen, selector_fields, wanted


@pytest.fixture
def cluster():
    return FakeCluster("gateway")


def release_of(backend):
    return find_release(FakeCluster(backend), None)


@pytest.mark.parametrize("backend", ["service", "replicas"])
def test_the_selector_takes_one_slot_or_on_purpose_both(backend):
    release = release_of(backend)
    assert wanted(Record("b"), release).front == "b"
    assert wanted(Record("a", "b"), release).front == "a"
    assert wanted(Record("a", "b", weight=100), release).front == "b"
    assert wanted(Record("a", "b", weight=50), release).front is None


def test_behind_a_gateway_the_selector_stays_with_the_stable_slot():
    release = release_of("gateway")
    assert wanted(Record("a", "b", weight=100), release) == Traffic("a", Route((0, 100), "a"))
    assert wanted(Record("b", "a", weight=30, header=True), release) == Traffic("b", Route((30, 70), "a"))
    assert wanted(Record("b"), release) == Traffic("b", Route((0, 100), "b"))
    assert wanted(Record("a", "b", mirror=5), release).route == Route((100, 0), "a", "b", 5)


@pytest.mark.parametrize(
    "wish", [Route((63, 37), "b"), Route((100, 0), "a", "b", 20), Route((0, 100), "b"), Route((100, 0), "a")]
)
def test_rules_that_are_written_are_read_the_same(cluster, wish):
    release = find_release(cluster, None)
    route = cluster.objects["HTTPRoute", "m-muelle"]
    route["spec"] |= rules_fields(release, route, wish)["spec"]
    assert seen(release, cluster.objects["Service", "m-muelle"], route) == Traffic("a", wish)


def test_what_else_is_in_the_rules_stays(cluster):
    release = find_release(cluster, None)
    route = cluster.objects["HTTPRoute", "m-muelle"]
    header = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": []}}
    route["spec"]["rules"][1]["filters"] = [header]
    with_copies = rules_fields(release, route, Route((90, 10), "b", "b", 20))["spec"]["rules"]
    assert with_copies[1]["filters"][0] == header
    assert with_copies[1]["filters"][1]["requestMirror"]["percent"] == 20
    assert [rule["timeouts"] for rule in with_copies] == [{"request": "35s"}] * 2
    assert with_copies[0]["matches"] == route["spec"]["rules"][0]["matches"]
    assert [ref["weight"] for ref in route["spec"]["rules"][1]["backendRefs"]] == [100, 0], "the object is as it was"


def test_a_selector_keeps_what_else_it_selects(cluster):
    release = find_release(cluster, None)
    service = cluster.objects["Service", "m-muelle"]
    service["spec"]["selector"]["team"] = "red"
    selector = selector_fields(release, service, None)["spec"]["selector"]
    assert selector == {**release.labels, "team": "red", "app.kubernetes.io/component": "predictor"}
    service["spec"]["selector"] = selector
    assert selector_fields(release, service, "b")["spec"]["selector"] == {
        **release.labels,
        "team": "red",
        "muelle.io/slot": "b",
    }


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda rules: rules.pop(), "expected a rule for testers and one for all others, got 1 rules"),
        (lambda rules: rules.reverse(), "rules[0]: expected a match on header X-Muelle-Slot, got none"),
        (lambda rules: rules[1]["backendRefs"].pop(), "rules[1].backendRefs: expected the Services of both slots"),
        (lambda rules: rules[0]["backendRefs"].pop(), "rules[0].backendRefs: expected the Service of a slot"),
    ],
)
def test_a_route_that_is_not_the_charts_is_refused(cluster, damage, message):
    damage(cluster.objects["HTTPRoute", "m-muelle"]["spec"]["rules"])
    with pytest.raises(RecordError) as caught:
        seen(
            find_release(cluster, None),
            cluster.objects["Service", "m-muelle"],
            cluster.objects["HTTPRoute", "m-muelle"],
        )
    assert str(caught.value) == f"HTTPRoute m-muelle: {message}"


def test_a_selector_of_no_slot_is_refused(cluster):
    cluster.objects["Service", "m-muelle"]["spec"]["selector"]["muelle.io/slot"] = "c"
    with pytest.raises(RecordError, match=r"Service m-muelle: selector muelle\.io/slot: expected a or b, got 'c'"):
        seen(find_release(cluster, None), cluster.objects["Service", "m-muelle"], None)


@pytest.mark.parametrize(
    ("before", "after", "grown"),
    [
        (Traffic("a"), Traffic("b"), ["b"]),
        (Traffic("a"), Traffic(None), ["b"]),
        (Traffic(None), Traffic("a"), ["a"]),
        (Traffic("a"), Traffic("a"), []),
        (Traffic("a", Route((90, 10), "a")), Traffic("a", Route((80, 20), "a")), ["b"]),
        (Traffic("a", Route((9, 1), "a")), Traffic("a", Route((90, 10), "a")), []),
        (Traffic("a", Route((0, 0), "a")), Traffic("a", Route((100, 0), "a")), ["a"]),
        (Traffic("a", Route((100, 0), "a")), Traffic("a", Route((100, 0), "b")), ["b"]),
        (Traffic("a", Route((100, 0), "a")), Traffic("a", Route((100, 0), "a", "b", 1)), ["b"]),
        (Traffic("a", Route((100, 0), "a", "b", 9)), Traffic("a", Route((100, 0), "a", "b", 1)), []),
        (Traffic("a", Route((50, 50), "b", "b", 9)), Traffic("a", Route((100, 0), "a")), ["a"]),
    ],
)
def test_who_is_sent_more_than_before(before, after, grown):
    assert after.grown_from(before) == grown
