"""What the monitoring chart makes in each way, under which names and labels, and that the API server takes it."""

import json

import pytest
import yaml
from cluster_objects import kubectl
from monitoring_chart import ALL, CHART, STANDALONE, WAYS, pods, render
from rendering import ROOT, command, merged, no_texts

import muelle

SELECTOR = {"app.kubernetes.io/name": "muelle-monitoring", "app.kubernetes.io/instance": "m"}
PODMONITOR = {"operator": {"podMonitor": {"enabled": True}}}
DASHBOARDS = sorted((CHART / "files" / "dashboards").glob("*.json"))
RULES = sorted((CHART / "files" / "rules").glob("*.yml"))


@pytest.mark.parametrize("values", [PODMONITOR, ALL], ids=["operator", "alone"])
def test_names_of_digits_stay_names(values):
    keep = {"persistence": {"enabled": True, "storageClass": "7"}}
    chosen = merged(values, {"standalone": {"prometheus": keep, "grafana": keep}})
    done = command("helm", "template", "1234", str(CHART), "-n", "2026", "--values", "-", stdin=json.dumps(chosen))
    assert done.returncode == 0, done.stderr
    assert list(no_texts([thing for thing in yaml.safe_load_all(done.stdout) if thing])) == []


def test_for_an_operator_there_are_rules_and_dashboards_and_nothing_else():
    release = render()
    assert release.kinds() == {"PrometheusRule", "ConfigMap"}
    assert set(release.of("PrometheusRule")) == {f"m-monitoring-{path.stem}" for path in RULES}
    assert set(release.of("ConfigMap")) == {f"m-monitoring-dashboard-{path.stem}" for path in DASHBOARDS}
    assert render(PODMONITOR).kinds() == {"PrometheusRule", "ConfigMap", "PodMonitor"}
    assert render({"dashboards": {"enabled": False}}).kinds() == {"PrometheusRule"}


def test_alone_there_are_three_programs_and_nothing_of_the_operators():
    release = render(STANDALONE)
    assert release.kinds() == {
        "ConfigMap",
        "Role",
        "RoleBinding",
        "Secret",
        "Service",
        "ServiceAccount",
        "StatefulSet",
    }
    ports = {name: thing["spec"]["ports"][0]["port"] for name, thing in release.of("Service").items()}
    assert ports == {"m-monitoring-prometheus": 9090, "m-monitoring-alertmanager": 9093, "m-monitoring-grafana": 3000}
    assert {thing["spec"]["type"] for thing in release.of("Service").values()} == {"ClusterIP"}


@pytest.mark.parametrize("component", ["alertmanager", "grafana"])
def test_what_is_switched_off_leaves_nothing_behind(component):
    release = render(STANDALONE, {"standalone": {component: {"enabled": False}}})
    assert not [thing for thing in release.objects if component in json.dumps(thing["metadata"])]


def test_the_operators_prometheus_finds_rules_and_the_monitor_by_labels_that_can_be_chosen():
    for values, wanted in (({}, "kube-prometheus-stack"), ({"operator": {"labels": {"release": "mine"}}}, "mine")):
        release = render(values, PODMONITOR)
        for thing in (*release.of("PrometheusRule").values(), *release.of("PodMonitor").values()):
            assert thing["metadata"]["labels"]["release"] == wanted
    other = render({"operator": {"labels": {"release": None, "prometheus": "ml"}}})
    labels = other.one("PrometheusRule", "m-monitoring-slo")["metadata"]["labels"]
    assert labels["prometheus"] == "ml"
    assert "release" not in labels


def test_each_dashboard_is_a_config_map_with_what_a_sidecar_looks_for():
    release = render()
    for path in DASHBOARDS:
        thing = release.one("ConfigMap", f"m-monitoring-dashboard-{path.stem}")
        assert thing["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert thing["metadata"]["annotations"] == {"grafana_folder": "Muelle"}
        assert thing["data"] == {path.name: path.read_text()}
    own = {
        "dashboards": {"labels": {"grafana_dashboard": None, "board": "yes"}, "folder": "ML", "folderAnnotation": "f"}
    }
    meta = render(own).one("ConfigMap", "m-monitoring-dashboard-service")["metadata"]
    assert meta["annotations"] == {"f": "ML"}
    assert meta["labels"]["board"] == "yes"
    assert "grafana_dashboard" not in meta["labels"]
    assert "annotations" not in render({"dashboards": {"folder": ""}}).one("ConfigMap", meta["name"])["metadata"]


def test_no_other_grafana_takes_the_dashboards_of_the_one_here():
    meta = render(STANDALONE).one("ConfigMap", "m-monitoring-dashboard-service")["metadata"]
    assert "grafana_dashboard" not in meta["labels"]
    assert "annotations" not in meta


def predictor_labels():
    done = command("helm", "template", "m", str(ROOT / "charts" / "muelle"))
    (first, *_) = [t for t in yaml.safe_load_all(done.stdout) if t and t["kind"] == "Deployment"]
    return first["spec"]["template"]


def test_the_pod_monitor_selects_the_predictors_and_their_metrics_port():
    (monitor,) = render(PODMONITOR).of("PodMonitor").values()
    pod = predictor_labels()
    assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    ports = [port["name"] for container in pod["spec"]["containers"] for port in container["ports"]]
    assert ports.count(endpoint["port"]) == 1
    assert endpoint["interval"] == "15s"


def test_the_pod_monitor_names_its_series_as_a_releases_own_does():
    (ours,) = render(PODMONITOR).of("PodMonitor").values()
    arguments = ("helm", "template", "m", str(ROOT / "charts" / "muelle"), "--set", "podMonitor.enabled=true")
    things = yaml.safe_load_all(command(*arguments).stdout)
    (own,) = [thing for thing in things if thing and thing["kind"] == "PodMonitor"]
    key = "podMetricsEndpoints"
    assert ours["spec"][key][0]["relabelings"] == own["spec"][key][0]["relabelings"]
    assert ours["spec"][key][0]["port"] == own["spec"][key][0]["port"]


def test_the_pod_monitor_looks_where_it_is_told():
    def where(values):
        (monitor,) = render(PODMONITOR, values).of("PodMonitor").values()
        return monitor["spec"]["namespaceSelector"]

    assert where({}) == {"matchNames": ["watch"]}
    assert where({"scrape": {"namespaces": ["a", "b"]}}) == {"matchNames": ["a", "b"]}
    assert where({"scrape": {"wholeCluster": True}}) == {"any": True}


@pytest.mark.parametrize("way", [*WAYS.values(), PODMONITOR], ids=[*WAYS, "podmonitor"])
def test_every_object_carries_the_labels_that_tell_whose_it_is(way):
    for thing in render(way).objects:
        labels = thing["metadata"]["labels"]
        assert labels.items() >= SELECTOR.items()
        assert {"app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart"} <= labels.keys()


def test_none_of_its_pods_is_taken_for_a_predictor():
    for thing in render(STANDALONE).of("StatefulSet").values():
        labels = thing["spec"]["template"]["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] != "muelle"
        # Nor does a new chart version restart one.
        assert set(labels) == {*SELECTOR, "app.kubernetes.io/component"}


def test_the_longest_release_name_gives_names_that_kubernetes_takes():
    done = command("helm", "template", "r" * 53, str(CHART), "--values", "-", stdin=json.dumps(merged(ALL)))
    assert done.returncode == 0, done.stderr
    names = [
        thing["metadata"]["name"]
        for thing in yaml.safe_load_all(done.stdout)
        if thing and thing["kind"] in ("Service", "StatefulSet")
    ]
    # A pod of a StatefulSet has in a label of at most 63: that name, a dash, and a hash of ten.
    assert max(map(len, names)) <= 63 - 11


def test_a_release_that_says_monitoring_is_not_called_so_twice():
    done = command("helm", "template", "ml-monitoring", str(CHART), "--set", "standalone.enabled=true")
    names = [thing["metadata"]["name"] for thing in yaml.safe_load_all(done.stdout) if thing]
    assert "ml-monitoring-prometheus" in names


def test_the_charts_version_of_muelle_is_the_packages():
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == muelle.__version__


def test_helm_finds_nothing_to_complain_of():
    for values in WAYS.values():
        done = command("helm", "lint", str(CHART), "--strict", "--values", "-", stdin=json.dumps(values))
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def others(namespace):
    """Two more namespaces, for rights in them."""
    names = [f"{namespace}-{letter}" for letter in ("x", "y")]
    for name in names:
        kubectl("default", "delete", "namespace", name, "--ignore-not-found", "--timeout=100s")
        kubectl("default", "create", "namespace", name)
    yield names
    for name in names:
        kubectl("default", "delete", "namespace", name, "--wait=false")


@pytest.mark.parametrize("way", [*WAYS.values(), PODMONITOR], ids=[*WAYS, "podmonitor"])
def test_the_api_server_takes_every_field_and_pod_security_has_nothing_to_warn_of(way, namespace, others):
    own = merged(way, {"scrape": {"namespaces": others}})
    arguments = ("helm", "template", "m", str(CHART), "-n", namespace, "--values", "-")
    done = command(*arguments, stdin=json.dumps(own))
    objects = [thing for thing in yaml.safe_load_all(done.stdout) if thing]
    document = {"apiVersion": "v1", "kind": "List", "items": objects}
    apply = ("kubectl", "apply", "--server-side", "--dry-run=server", "--filename", "-")
    done = command(*apply, stdin=json.dumps(document))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == len(objects)


def test_the_whole_cluster_is_taken_by_the_api_server_too():
    values = json.dumps(merged(STANDALONE, {"scrape": {"wholeCluster": True}}))
    arguments = ("helm", "template", "m", str(CHART), "-n", "default", "--values", "-")
    rendered = command(*arguments, stdin=values).stdout
    done = command("kubectl", "apply", "--server-side", "--dry-run=server", "--filename", "-", stdin=rendered)
    assert done.returncode == 0, done.stderr


def test_pods_are_restricted_and_their_root_is_read_only():
    for component, pod in pods(render(ALL)).items():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is (component == "prometheus")
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]
            assert ":" in container["image"].rpartition("/")[2]


def test_images_are_taken_by_digest_when_one_is_given():
    digest = "sha256:" + "a" * 64
    release = render(STANDALONE, {"standalone": {"grafana": {"image": {"digest": digest}}}})
    assert pods(release)["grafana"]["containers"][0]["image"] == f"docker.io/grafana/grafana@{digest}"
