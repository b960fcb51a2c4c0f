"""`helm upgrade` and other managers of its fields leave each other in peace, on the cluster of the current context."""

import json

import pytest
from cluster_objects import NO_PODS, RECORD, get, helm, kubectl, put_record
from rendering import GATEWAY, command, merged

VALUES = merged(NO_PODS, GATEWAY, {"replicas": 2})
SCALED = merged(NO_PODS, {"autoscaling": {"enabled": True}})


def install(namespace, values):
    went_well, said = helm(namespace, "install", values)
    assert went_well, said


def upgrade(namespace, values, *flags):
    went_well, said = helm(namespace, "upgrade", values, *flags)
    assert went_well, said


@pytest.fixture(autouse=True)
def _uninstalled(namespace):
    yield
    # Not waited for: what is left of one release must not disturb the next of its name.
    done = command("helm", "uninstall", "m", "-n", namespace)
    assert done.returncode == 0, done.stderr


def apply_as_muelle(namespace, kind, name, spec, version="v1"):
    document = {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}
    kubectl(namespace, "apply", "--server-side", "--field-manager=muelle", "--force-conflicts", document=document)


def begin_canary(namespace):
    """Do by hand what `muelle deploy` and `muelle traffic 10 --mirror 20` do: the record first, then the objects."""
    put_record(namespace, RECORD, owner=get(namespace, "service", "m-muelle")["metadata"]["uid"])
    for slot, count in RECORD["replicas"].items():
        variable = {"name": "MUELLE_SERVE", "value": RECORD["slots"][slot]["serve"]}
        pod = {"spec": {"containers": [{"name": "predictor", "env": [variable]}]}}
        apply_as_muelle(namespace, "Deployment", f"m-muelle-{slot}", {"replicas": count, "template": pod}, "apps/v1")
    front = get(namespace, "service", "m-muelle")["spec"]["selector"]
    apply_as_muelle(namespace, "Service", "m-muelle", {"selector": front})
    rules = get(namespace, "httproute", "m-muelle")["spec"]["rules"]
    rules[0]["backendRefs"][0]["name"] = "m-muelle-b"
    rules[1]["backendRefs"][0]["weight"], rules[1]["backendRefs"][1]["weight"] = 90, 10
    copies = {"backendRef": {"name": "m-muelle-b", "port": 80}, "percent": 20}
    rules[1]["filters"] = [{"type": "RequestMirror", "requestMirror": copies}]
    apply_as_muelle(namespace, "HTTPRoute", "m-muelle", {"rules": rules}, "gateway.networking.k8s.io/v1")


CHANGED = (("deployment", "m-muelle-a"), ("deployment", "m-muelle-b"), ("httproute", "m-muelle"))


def generations(namespace):
    return {(kind, name): get(namespace, kind, name)["metadata"]["generation"] for kind, name in CHANGED}


def canary(namespace):
    """What the commands set, as it stands in the cluster."""
    slots = {slot: get(namespace, "deployment", f"m-muelle-{slot}")["spec"] for slot in "ab"}
    variables = {
        slot: {item["name"]: item.get("value", "") for item in spec["template"]["spec"]["containers"][0]["env"]}
        for slot, spec in slots.items()
    }
    return {
        "replicas": {slot: spec["replicas"] for slot, spec in slots.items()},
        "serve": {slot: found["MUELLE_SERVE"] for slot, found in variables.items()},
        "front": get(namespace, "service", "m-muelle")["spec"]["selector"],
        "rules": get(namespace, "httproute", "m-muelle")["spec"]["rules"],
    }


def managers(thing, field):
    return {
        entry["manager"] for entry in thing["metadata"]["managedFields"] if field in entry["fieldsV1"].get("f:spec", {})
    }


def test_an_upgrade_in_the_midst_of_a_canary_changes_no_object_at_all(namespace):
    install(namespace, VALUES)
    begin_canary(namespace)
    before, state = generations(namespace), canary(namespace)
    upgrade(namespace, VALUES)
    assert generations(namespace) == before
    assert canary(namespace) == state


def test_an_upgrade_of_something_else_in_the_midst_of_a_canary_changes_only_that(namespace):
    install(namespace, VALUES)
    begin_canary(namespace)
    state = canary(namespace)
    upgrade(namespace, merged(VALUES, {"settings": {"maxRows": 5}, "image": {"tag": "another"}}))
    assert canary(namespace) == state
    container = get(namespace, "deployment", "m-muelle-b")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "muelle:another"
    assert {"name": "MUELLE_MAX_ROWS", "value": "5"} in container["env"]


def test_a_forced_upgrade_takes_the_fields_but_not_the_canary(namespace):
    # What a change of the route itself needs while the commands hold its rules, which are one field.
    install(namespace, VALUES)
    begin_canary(namespace)
    state = canary(namespace)
    slower = merged(VALUES, {"timeouts": {"requestSeconds": 40}})
    went_well, said = helm(namespace, "upgrade", slower)
    assert not went_well
    assert 'conflict with "muelle": .spec.rules' in said
    upgrade(namespace, slower, "--force-conflicts")
    for rule in state["rules"]:
        rule["timeouts"]["request"] = "45s"
    assert canary(namespace) == state


def test_helm_and_the_commands_own_what_both_say(namespace):
    install(namespace, VALUES)
    begin_canary(namespace)
    upgrade(namespace, VALUES)
    assert {"helm", "muelle"} <= managers(get(namespace, "httproute", "m-muelle"), "f:rules")
    assert {"helm", "muelle"} <= managers(get(namespace, "deployment", "m-muelle-b"), "f:replicas")


def test_what_an_autoscaler_has_chosen_survives_upgrades(namespace):
    install(namespace, SCALED)
    kubectl(namespace, "scale", "deployment", "m-muelle-a", "--replicas=5")
    before = get(namespace, "deployment", "m-muelle-a")["metadata"]["generation"]
    upgrade(namespace, SCALED)
    live = get(namespace, "deployment", "m-muelle-a")
    assert (live["spec"]["replicas"], live["metadata"]["generation"]) == (5, before)
    kubectl(namespace, "scale", "deployment", "m-muelle-a", "--replicas=4")
    upgrade(namespace, merged(SCALED, {"settings": {"maxRows": 5}}))
    assert get(namespace, "deployment", "m-muelle-a")["spec"]["replicas"] == 4
    assert get(namespace, "deployment", "m-muelle-b")["spec"]["replicas"] == 0


def test_switching_autoscaling_on_drops_no_pod(namespace):
    fixed = merged(NO_PODS, {"replicas": 3})
    install(namespace, fixed)
    upgrade(namespace, merged(fixed, {"autoscaling": {"enabled": True, "minReplicas": 3}}))
    assert get(namespace, "deployment", "m-muelle-a")["spec"]["replicas"] == 3


def test_a_pointer_is_not_moved_to_a_slot_without_a_ready_pod(namespace):
    install(namespace, NO_PODS)
    went_well, said = helm(namespace, "upgrade", merged(NO_PODS, {"traffic": {"stable": "b"}}))
    assert not went_well
    assert "traffic.stable is b, which has no ready pod, while slot a answers" in said
    assert get(namespace, "service", "m-muelle")["spec"]["selector"]["muelle.io/slot"] == "a"


def test_uninstalling_leaves_nothing_not_even_the_record(namespace):
    install(namespace, VALUES)
    begin_canary(namespace)
    done = command("helm", "uninstall", "m", "-n", namespace, "--wait")
    assert done.returncode == 0, done.stderr
    kubectl(namespace, "wait", "--for=delete", "configmap/m-muelle-rollout", "--timeout=60s")
    kinds = "deployments,services,httproutes,serviceaccounts,roles,rolebindings,poddisruptionbudgets,configmaps"
    left = json.loads(kubectl(namespace, "get", kinds, "-l", "app.kubernetes.io/instance=m", "--output", "json"))
    assert left["items"] == []
    install(namespace, NO_PODS)
