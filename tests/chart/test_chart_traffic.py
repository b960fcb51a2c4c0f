"""Pointer and shares by values, as GitOps has it."""

import pytest
from rendering import GATEWAY, merged, refusal, render

CANARY = {"traffic": {"candidate": "b", "weight": 10}}


def replicas_backend(replicas, weight):
    return {"replicas": replicas, "traffic": {"backend": "replicas", "candidate": "b", "weight": weight}}


def test_the_pointer_is_the_front_services_selector():
    assert render().front_slot() == "a"
    assert render({"traffic": {"stable": "b"}}).front_slot() == "b"
    assert render({"traffic": {"stable": "b"}}).replicas() == {"a": 0, "b": 2}


def test_a_candidate_has_all_its_pods_and_no_request_until_the_pointer_moves():
    release = render({"traffic": {"candidate": "b"}})
    assert release.replicas() == {"a": 2, "b": 2}
    assert release.front_slot() == "a"


def test_all_the_weight_on_the_candidate_moves_the_front_to_it():
    assert render({"traffic": {"candidate": "b", "weight": 100}}).front_slot() == "b"


@pytest.mark.parametrize("values", [{}, {"traffic": {"candidate": "b", "weight": 100}}, replicas_backend(4, 50)])
def test_the_front_says_which_slot_is_the_stable_one_wherever_it_leads(values):
    assert render(values).front()["metadata"]["annotations"]["muelle.io/stable"] == "a"
    other = {"traffic": {"stable": "b"} | ({"candidate": "a"} if values else {})}
    assert render(merged(values, other)).front()["metadata"]["annotations"]["muelle.io/stable"] == "b"


@pytest.mark.parametrize(
    ("replicas", "weight", "a", "b"), [(10, 10, 9, 1), (3, 33, 2, 1), (3, 67, 1, 2), (4, 75, 1, 3), (200, 1, 198, 2)]
)
def test_shares_by_pods_are_the_ratio_of_their_numbers_and_both_slots_are_behind_the_front(replicas, weight, a, b):
    release = render(replicas_backend(replicas, weight))
    assert release.replicas() == {"a": a, "b": b}
    assert release.front_slot() is None
    assert release.front()["spec"]["selector"]["app.kubernetes.io/component"] == "predictor"


def test_the_front_selects_both_slots_only_while_pods_make_the_shares():
    assert render(replicas_backend(4, 0)).front_slot() == "a"
    assert render(replicas_backend(4, 0)).replicas() == {"a": 4, "b": 1}
    assert render(replicas_backend(4, 100)).front_slot() == "b"
    assert render(replicas_backend(4, 100)).replicas() == {"a": 4, "b": 4}
    assert render({"traffic": {"backend": "replicas"}}).front_slot() == "a"


@pytest.mark.parametrize(("replicas", "weight"), [(3, 10), (3, 34), (1, 50), (2, 49), (50, 1)])
def test_a_share_that_whole_pods_cannot_give_is_refused_with_those_they_can(replicas, weight):
    message = refusal(replicas_backend(replicas, weight))
    assert f"traffic.weight is {weight}" in message
    assert f"replicas is {replicas}" in message
    assert ("33, 67" if replicas == 3 else "") in message


def test_a_route_has_both_slots_in_order_and_exact_weights():
    release = render(GATEWAY, CANARY)
    assert release.weights() == {"a": 90, "b": 10}
    assert [ref["name"] for ref in release.rules()[1]["backendRefs"]] == ["m-muelle-a", "m-muelle-b"]
    assert render(GATEWAY).weights() == {"a": 100, "b": 0}
    assert render(GATEWAY, {"traffic": {"stable": "b"}}).weights() == {"a": 0, "b": 100}


def test_with_a_gateway_callers_inside_the_cluster_stay_with_the_stable_slot():
    assert render(GATEWAY, CANARY).front_slot() == "a"
    assert render(GATEWAY, {"traffic": {"candidate": "b", "weight": 100}}).front_slot() == "a"


def test_testers_reach_the_candidate_whatever_its_weight_and_the_stable_slot_when_there_is_none():
    for values, slot in ((CANARY, "b"), ({"traffic": {"candidate": "b"}}, "b"), ({}, "a")):
        testers = render(GATEWAY, values).rules()[0]
        assert testers["matches"][0]["headers"] == [{"type": "Exact", "name": "X-Muelle-Slot", "value": "candidate"}]
        assert [ref["name"] for ref in testers["backendRefs"]] == [f"m-muelle-{slot}"]


def test_copies_of_requests_go_to_the_candidate_with_a_percentage():
    mirrored = {"traffic": {"candidate": "b", "mirror": 20}}
    (copy,) = render(GATEWAY, mirrored).rules()[1]["filters"]
    assert copy["requestMirror"]["percent"] == 20
    assert copy["requestMirror"]["backendRef"]["name"] == "m-muelle-b"
    assert "filters" not in render(GATEWAY, CANARY).rules()[1]


def test_every_default_of_the_rules_is_written_out():
    # `rules` is atomic: two managers can share it only when what they apply is what the server stores, to the letter.
    for rule in render(GATEWAY, CANARY).rules():
        assert all(ref.keys() == {"group", "kind", "name", "port", "weight"} for ref in rule["backendRefs"])
        assert rule["matches"][0]["path"] == {"type": "PathPrefix", "value": "/"}


def test_the_route_attaches_where_it_is_told():
    gateway = {
        "hostnames": ["h.example"],
        "path": "/ml",
        "parentRefs": [{"name": "g", "namespace": "n", "sectionName": "s"}],
    }
    spec = render(GATEWAY, {"traffic": {"gateway": gateway}}).one("HTTPRoute", "m-muelle")["spec"]
    assert spec["hostnames"] == ["h.example"]
    assert spec["parentRefs"] == [
        {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g", "namespace": "n", "sectionName": "s"}
    ]
    assert all(rule["matches"][0]["path"]["value"] == "/ml" for rule in spec["rules"])


def test_the_gateway_waits_longer_than_the_service():
    release = render(GATEWAY, {"timeouts": {"requestSeconds": 7}})
    assert [rule["timeouts"]["request"] for rule in release.rules()] == ["12s", "12s"]


def test_envoys_policy_tries_elsewhere_but_ejects_nobody_for_shedding_load():
    envoy = {"traffic": {"gateway": {"envoy": {"enabled": True, "retries": 2, "perTryTimeoutSeconds": 3}}}}
    spec = render(GATEWAY, envoy).one("BackendTrafficPolicy", "m-muelle")["spec"]
    assert spec["targetRefs"][0] == {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "m-muelle"}
    assert spec["retry"]["numRetries"] == 2
    assert spec["retry"]["perRetry"]["timeout"] == "3s"
    assert {"connect-failure", "reset"} <= set(spec["retry"]["retryOn"]["triggers"])
    passive = spec["healthCheck"]["passive"]
    assert passive["splitExternalLocalOriginErrors"] is True
    assert passive["consecutive5XxErrors"] == 0
    assert "BackendTrafficPolicy" not in render(GATEWAY).kinds()


def test_there_is_a_route_only_with_the_gateway():
    assert "HTTPRoute" not in render().kinds()
    assert "HTTPRoute" in render(GATEWAY).kinds()


def test_an_ingress_leads_to_the_front():
    ingress = {
        "enabled": True,
        "hosts": ["h.example"],
        "className": "c",
        "tls": [{"secretName": "s", "hosts": ["h.example"]}],
    }
    spec = render({"ingress": ingress}).one("Ingress", "m-muelle")["spec"]
    (path,) = spec["rules"][0]["http"]["paths"]
    assert path["backend"]["service"] == {"name": "m-muelle", "port": {"name": "http"}}
    assert (spec["ingressClassName"], spec["rules"][0]["host"]) == ("c", "h.example")
    assert spec["tls"] == [{"secretName": "s", "hosts": ["h.example"]}]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"traffic": {"candidate": "a"}}, "traffic.candidate is a, the stable slot itself"),
        ({"traffic": {"weight": 5}}, "without a traffic.candidate"),
        (CANARY, "traffic.weight is 10, but traffic.backend service sends everything to one slot"),
        ({"traffic": {"candidate": "b", "mirror": 5}}, "traffic.mirror needs traffic.backend gateway, not service"),
        ({"traffic": {"backend": "gateway"}}, "traffic.gateway.parentRefs must name a Gateway"),
        ({"traffic": {"gateway": {"envoy": {"enabled": True}}}}, "envoy.enabled needs traffic.backend gateway"),
        (
            merged(GATEWAY, {"timeouts": {"requestSeconds": 3}, "traffic": {"gateway": {"envoy": {"enabled": True}}}}),
            "perTryTimeoutSeconds is 5, longer than timeouts.requestSeconds, 3",
        ),
        (
            merged(GATEWAY, {"ingress": {"enabled": True, "hosts": ["h"]}}),
            "an Ingress would go around the route's weights",
        ),
        ({"ingress": {"enabled": True}}, "ingress.hosts must name at least one host"),
        (
            {"traffic": {"backend": "replicas"}, "autoscaling": {"enabled": True}},
            "shares by the count of pods, which an autoscaler would change",
        ),
    ],
)
def test_values_that_contradict_each_other_are_refused_with_a_sentence(values, sentence):
    assert sentence in refusal(values)
