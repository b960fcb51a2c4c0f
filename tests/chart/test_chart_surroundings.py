"""Network, monitoring and the operator's rights."""

from rendering import DIGEST, GATEWAY, merged, refusal, render

FETCH = {"models": {"from": "fetch", "fetch": {"bundles": [{"url": "s3://b/iris/1", "digest": DIGEST}]}}}
CLOSED = {"networkPolicy": {"enabled": True}}
NO_FEEDBACK = {"settings": {"feedbackRows": 0}}


def policy(*values):
    return render(CLOSED, *values).one("NetworkPolicy", "m-muelle")["spec"]


def test_a_network_policy_lets_callers_in_at_the_http_port_and_the_pods_out_nowhere():
    spec = policy(NO_FEEDBACK)
    assert spec["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "predictor"
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    assert spec["ingress"] == [{"ports": [{"port": port, "protocol": "TCP"}]} for port in ("http", "metrics")]
    assert spec["egress"] == []
    assert "NetworkPolicy" not in render().kinds()


def test_fetching_pods_may_ask_dns_and_https():
    (rule,) = policy(FETCH, NO_FEEDBACK)["egress"]
    assert {(port["port"], port["protocol"]) for port in rule["ports"]} == {(53, "UDP"), (53, "TCP"), (443, "TCP")}


def test_more_ways_out_are_added():
    more = {"networkPolicy": {"egress": [{"ports": [{"port": 9000}]}]}}
    assert policy(more, NO_FEEDBACK)["egress"] == [{"ports": [{"port": 9000}]}]
    assert len(policy(FETCH, more, NO_FEEDBACK)["egress"]) == 2
    assert len(policy(FETCH, more)["egress"]) == 3


def test_replicas_reach_each_other_and_dns_for_labels():
    dns, others = policy()["egress"]
    assert {(port["port"], port["protocol"]) for port in dns["ports"]} == {(53, "UDP"), (53, "TCP")}
    assert others["ports"] == [{"port": 8080, "protocol": "TCP"}]
    labels = render().deployment()["spec"]["template"]["metadata"]["labels"]
    web = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "web"}}}
    callers = policy({"networkPolicy": {"from": [web]}})["ingress"][0]["from"]
    for peer in (others["to"][0], callers[-1]):
        assert peer["podSelector"]["matchLabels"].items() <= labels.items()
    assert len(policy(NO_FEEDBACK, {"networkPolicy": {"from": [web]}})["ingress"][0]["from"]) == len(callers) - 1
    assert [port["port"] for port in policy(FETCH)["egress"][0]["ports"]] == [53, 53, 443]


def test_helm_test_gets_through_where_callers_are_named():
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "web"}}}
    rule = policy({"networkPolicy": {"from": [peer]}})["ingress"][0]
    labels = render().one("Pod", "m-muelle-test")["metadata"]["labels"]
    assert rule["from"][0] == peer
    assert rule["from"][1]["podSelector"]["matchLabels"].items() <= labels.items()


def test_scrapes_come_from_their_own_peers_or_from_where_callers_do():
    web, monitoring = (
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}} for name in ("web", "monitoring")
    )
    same = policy({"networkPolicy": {"from": [web]}})["ingress"][1]
    assert (same["ports"][0]["port"], same["from"]) == ("metrics", [web])
    own = policy({"networkPolicy": {"from": [web], "metricsFrom": [monitoring]}})["ingress"]
    assert (own[0]["from"][0], own[1]["from"]) == (web, [monitoring])
    only = policy({"networkPolicy": {"metricsFrom": [monitoring]}})["ingress"]
    assert ("from" in only[0], only[1]["from"]) == (False, [monitoring])
    without = policy({"metrics": {"port": 0}})["ingress"]
    assert [rule["ports"][0]["port"] for rule in without] == ["http"]


def test_a_service_monitor_scrapes_each_slots_pods_once():
    release = render({"serviceMonitor": {"enabled": True, "intervalSeconds": 7, "labels": {"release": "p"}}})
    monitor = release.one("ServiceMonitor", "m-muelle")
    (expression,) = monitor["spec"]["selector"]["matchExpressions"]
    assert expression == {"key": "muelle.io/slot", "operator": "Exists"}
    # Of the Services only the slots' have that label, and between them each pod once.
    assert "muelle.io/slot" not in release.front()["metadata"]["labels"]
    assert "muelle.io/slot" not in release.one("Service", "m-muelle-pods")["metadata"]["labels"]
    assert release.one("Service", "m-muelle-a")["metadata"]["labels"]["muelle.io/slot"] == "a"
    (endpoint,) = monitor["spec"]["endpoints"]
    assert (endpoint["port"], endpoint["path"], endpoint["interval"]) == ("metrics", "/metrics", "7s")
    assert monitor["metadata"]["labels"]["release"] == "p"


def test_a_pod_monitor_selects_the_predictors():
    release = render({"podMonitor": {"enabled": True}})
    labels = release.one("PodMonitor", "m-muelle")["spec"]["selector"]["matchLabels"]
    assert labels.items() <= release.deployment()["spec"]["template"]["metadata"]["labels"].items()
    assert not labels.items() <= release.one("Pod", "m-muelle-test")["metadata"]["labels"].items()


def test_scraped_series_tell_slot_and_release_without_covering_a_label_of_ours():
    for kind, key in (("ServiceMonitor", "endpoints"), ("PodMonitor", "podMetricsEndpoints")):
        (endpoint,) = render({f"{kind[0].lower()}{kind[1:]}": {"enabled": True}}).one(kind, "m-muelle")["spec"][key]
        assert {rule["targetLabel"] for rule in endpoint["relabelings"]} == {"release_slot", "release"}


def test_monitors_ask_at_the_metrics_port_where_there_is_one():
    for kind, key in (("ServiceMonitor", "endpoints"), ("PodMonitor", "podMetricsEndpoints")):
        for number, name in ((9090, "metrics"), (0, "http")):
            values = {f"{kind[0].lower()}{kind[1:]}": {"enabled": True}, "metrics": {"port": number}}
            assert [item["port"] for item in render(values).one(kind, "m-muelle")["spec"][key]] == [name]


def test_scraping_each_pod_twice_is_refused():
    both = {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}
    assert "would scrape each pod twice" in refusal(both)


def test_the_operators_role_is_namespaced_and_has_no_wildcard():
    release = render(GATEWAY)
    assert not {"ClusterRole", "ClusterRoleBinding"} & release.kinds()
    for rule in release.one("Role", "m-muelle-operator")["rules"]:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        assert "secrets" not in rule["resources"]
        assert not {"delete", "deletecollection", "escalate", "bind", "impersonate"} & set(rule["verbs"])


def test_what_the_operator_may_change_is_named():
    for rule in render(GATEWAY).one("Role", "m-muelle-operator")["rules"]:
        if {"patch", "update"} & set(rule["verbs"]):
            assert all(name.startswith("m-muelle") for name in rule["resourceNames"])


def test_the_operators_role_reaches_routes_only_with_the_gateway():
    def resources(*values):
        rules = render(*values).one("Role", "m-muelle-operator")["rules"]
        return {resource for rule in rules for resource in rule["resources"]}

    assert resources(GATEWAY) - resources() == {"httproutes"}


def test_people_can_be_given_the_operators_role_and_it_can_be_left_out():
    people = [{"kind": "Group", "name": "ml", "apiGroup": "rbac.authorization.k8s.io"}]
    subjects = render({"operator": {"subjects": people}}).one("RoleBinding", "m-muelle-operator")["subjects"]
    assert subjects == [{"kind": "ServiceAccount", "name": "m-muelle-operator", "namespace": "default"}, *people]
    without = render(merged(GATEWAY, {"operator": {"create": False}}))
    assert not {"Role", "RoleBinding"} & without.kinds()
    assert set(without.of("ServiceAccount")) == {"m-muelle"}
