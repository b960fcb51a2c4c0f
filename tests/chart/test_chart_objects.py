"""What a release consists of, with no values at all and by name."""

import pytest
import yaml
from rendering import CHART, EXAMPLES, GATEWAY, merged, no_texts, render

import muelle

SELECTOR = {"app.kubernetes.io/name": "muelle", "app.kubernetes.io/instance": "m"}


def test_with_no_values_one_slot_has_two_pods_and_nothing_optional_is_made():
    release = render()
    assert release.replicas() == {"a": 2, "b": 0}
    assert release.kinds() == {
        "Deployment",
        "Service",
        "ServiceAccount",
        "Role",
        "RoleBinding",
        "PodDisruptionBudget",
        "Pod",
    }
    assert set(release.of("Service")) == {"m-muelle", "m-muelle-a", "m-muelle-b", "m-muelle-pods"}


def test_a_release_whose_name_says_muelle_is_not_called_muelle_twice():
    assert set(render(release="muelle-eu").of("Service")) == {f"muelle-eu{end}" for end in ("", "-a", "-b", "-pods")}


def test_the_longest_release_name_that_helm_takes_gives_names_that_kubernetes_takes():
    release = render(release="r" * 53)
    assert (
        max(len(thing["metadata"]["name"]) for kind in ("Service", "Deployment") for thing in release.of(kind).values())
        <= 63
    )


def test_names_of_digits_stay_names():
    values = {
        "models": {"from": "volume", "volume": {"existingClaim": "7"}},
        "auth": {"existingSecret": "8"},
        "tests": {"apiKey": {"existingSecret": "9"}},
        "serviceAccount": {"name": "10"},
        "priorityClassName": "11",
        "networkPolicy": {"enabled": True},
        "podMonitor": {"enabled": True},
        "traffic": {"header": "12"},
    }
    release = render(GATEWAY, values, release="1234", namespace="2026")
    assert list(no_texts(release.objects)) == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_object_carries_the_labels_that_tell_whose_it_is(example):
    for thing in render(example).objects:
        labels = thing["metadata"]["labels"]
        assert labels.items() >= SELECTOR.items()
        assert {"app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart"} <= labels.keys()
        assert thing["metadata"].get("namespace") == "default"


def test_selectors_carry_name_instance_and_slot_and_never_a_version():
    release = render()
    for slot in ("a", "b"):
        wanted = SELECTOR | {"muelle.io/slot": slot}
        assert release.deployment(slot)["spec"]["selector"]["matchLabels"] == wanted
        assert release.one("Service", f"m-muelle-{slot}")["spec"]["selector"] == wanted
        assert release.one("PodDisruptionBudget", f"m-muelle-{slot}")["spec"]["selector"]["matchLabels"] == wanted
        assert release.deployment(slot)["spec"]["template"]["metadata"]["labels"].items() >= wanted.items()
    assert release.front()["spec"]["selector"] == SELECTOR | {"muelle.io/slot": "a"}


def test_a_new_chart_version_alone_rolls_no_pods():
    # A label or annotation with a version in the pod template would.
    meta = render().deployment()["spec"]["template"]["metadata"]
    assert set(meta["labels"]) == {*SELECTOR, "app.kubernetes.io/component", "muelle.io/slot"}
    assert set(meta["annotations"]) == {"kubectl.kubernetes.io/default-container"}


def test_the_test_pod_is_selected_by_no_service_and_no_budget():
    release = render()
    labels = release.one("Pod", "m-muelle-test")["metadata"]["labels"]
    for service in release.of("Service").values():
        assert not service["spec"]["selector"].items() <= labels.items()
    canary = {"traffic": {"backend": "replicas", "candidate": "b", "weight": 50}}
    assert not render(canary).front()["spec"]["selector"].items() <= labels.items()


def test_the_front_service_tells_the_commands_what_kind_of_release_this_is():
    def facts(*values):
        return {
            key.removeprefix("muelle.io/"): value
            for key, value in render(*values).front()["metadata"]["annotations"].items()
        }

    assert facts() == {
        "backend": "service",
        "replicas": "2",
        "autoscaling": "false",
        "header": "X-Muelle-Slot",
        "models-from": "image",
        "stable": "a",
    }
    scaled = {"autoscaling": {"enabled": True, "minReplicas": 3}, "traffic": {"header": "X-Try"}}
    assert facts(scaled).items() >= {"replicas": "3", "autoscaling": "true", "header": "X-Try"}.items()


def test_services_lead_to_the_predictors_http_port():
    release = render()
    assert {"name": "http", "containerPort": 8080, "protocol": "TCP"} in release.predictor()["ports"]
    assert release.environment()["MUELLE_PORT"] == "8080"
    for name in ("m-muelle", "m-muelle-a", "m-muelle-b"):
        port = release.one("Service", name)["spec"]["ports"][0]
        assert (port["name"], port["port"], port["targetPort"]) == ("http", 80, "http")


def test_the_metrics_port_is_on_the_slots_services_alone():
    release = render({"metrics": {"port": 9100}})
    assert {"name": "metrics", "containerPort": 9100, "protocol": "TCP"} in release.predictor()["ports"]
    assert release.environment()["MUELLE_METRICS_PORT"] == "9100"
    for slot in "ab":
        port = release.one("Service", f"m-muelle-{slot}")["spec"]["ports"][1]
        assert (port["name"], port["port"], port["targetPort"]) == ("metrics", 9100, "metrics")
    # Whoever comes from outside comes through the front, or to port 80 of a slot.
    assert [port["name"] for port in release.front()["spec"]["ports"]] == ["http"]
    outside = {"ingress": {"enabled": True, "hosts": ["a.example"]}}
    (rule,) = render(outside).one("Ingress", "m-muelle")["spec"]["rules"]
    assert [path["backend"]["service"]["port"] for path in rule["http"]["paths"]] == [{"name": "http"}]
    assert {ref["port"] for rule in render(GATEWAY).rules() for ref in rule["backendRefs"]} == {80}


def test_without_a_metrics_port_there_is_none():
    release = render({"metrics": {"port": 0}})
    assert [port["name"] for port in release.predictor()["ports"]] == ["http"]
    assert "MUELLE_METRICS_PORT" not in release.environment()
    assert all(port["name"] == "http" for thing in release.of("Service").values() for port in thing["spec"]["ports"])


def test_replicas_find_each_other_by_a_service_of_all_of_them():
    release = render()
    service = release.one("Service", "m-muelle-pods")
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == SELECTOR | {"app.kubernetes.io/component": "predictor"}
    for slot in ("a", "b"):
        labels = release.deployment(slot)["spec"]["template"]["metadata"]["labels"]
        assert service["spec"]["selector"].items() <= labels.items()
    # Each address is a pod's own, so the port is the pods' own too.
    (port,) = service["spec"]["ports"]
    assert release.environment()["MUELLE_FEEDBACK_PEERS"] == f"m-muelle-pods:{port['port']}"
    assert port["port"] == int(release.environment()["MUELLE_PORT"])


def test_without_feedback_nobody_is_asked():
    release = render({"settings": {"feedbackRows": 0}})
    assert "m-muelle-pods" not in release.of("Service")
    assert "MUELLE_FEEDBACK_PEERS" not in release.environment()
    assert release.environment()["MUELLE_FEEDBACK_ROWS"] == "0"


def test_the_front_service_can_be_a_node_port_and_be_annotated():
    service = {"service": {"type": "NodePort", "nodePort": 30123, "annotations": {"x": "y"}}}
    front = render(service).front()
    assert front["spec"]["type"] == "NodePort"
    assert front["spec"]["ports"][0]["nodePort"] == 30123
    assert front["metadata"]["annotations"]["x"] == "y"
    assert "nodePort" not in render().front()["spec"]["ports"][0]


def test_the_charts_version_of_muelle_is_the_packages():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == muelle.__version__
    assert render().predictor()["image"] == f"muelle:{muelle.__version__}"


def test_the_image_is_taken_by_digest_when_one_is_given():
    digest = "sha256:" + "a" * 64
    named = {"image": {"repository": "r.example/m", "tag": "7"}}
    assert render(named).predictor()["image"] == "r.example/m:7"
    pinned = merged(named, {"image": {"digest": digest}})
    assert render(pinned).predictor()["image"] == f"r.example/m@{digest}"
    assert render(pinned).one("Pod", "m-muelle-test")["spec"]["containers"][0]["image"] == f"r.example/m@{digest}"


def test_a_slots_own_tag_is_not_overruled_by_the_common_digest():
    values = {"image": {"digest": "sha256:" + "a" * 64}, "slots": {"b": {"image": {"tag": "8"}}}}
    assert render(values).predictor("b")["image"] == "muelle:8"
    assert render(values).predictor("a")["image"] == "muelle@sha256:" + "a" * 64


def test_helm_finds_nothing_to_complain_of():
    from rendering import command

    done = command("helm", "lint", str(CHART), "--strict")
    assert done.returncode == 0, done.stdout + done.stderr
