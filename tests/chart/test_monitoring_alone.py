"""What Prometheus, Alertmanager and Grafana read in the standalone way, checked by their own tools where there are."""

import base64
import json

import jsonschema
import pytest
import yaml
from cluster_objects import kubectl
from monitoring_chart import (
    ALL,
    CHART,
    STANDALONE,
    alertmanager_config,
    pods,
    prometheus_config,
    render,
    rule_files,
    template,
    tool,
)
from rendering import command, merged

#: Grafana's documentation, "Provision Grafana", chapters Data sources and Dashboards, version 12: keys and types.
DATASOURCES = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "datasources"],
    "properties": {
        "apiVersion": {"const": 1},
        "prune": {"type": "boolean"},
        "deleteDatasources": {"type": "array"},
        "datasources": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "type", "access"],
                "properties": {
                    "name": {"type": "string"},
                    "type": {"type": "string"},
                    "access": {"enum": ["proxy", "direct"]},
                    "orgId": {"type": "integer"},
                    "uid": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,40}$"},
                    "url": {"type": "string", "pattern": "^http://[a-z0-9.-]+:[0-9]+$"},
                    "user": {"type": "string"},
                    "database": {"type": "string"},
                    "basicAuth": {"type": "boolean"},
                    "basicAuthUser": {"type": "string"},
                    "withCredentials": {"type": "boolean"},
                    "isDefault": {"type": "boolean"},
                    "jsonData": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {
                            "httpMethod": {"enum": ["GET", "POST"]},
                            "timeInterval": {"type": "string", "pattern": "^[0-9]+s$"},
                            "prometheusType": {"enum": ["Prometheus", "Cortex", "Mimir", "Thanos"]},
                            "manageAlerts": {"type": "boolean"},
                            "alertmanagerUid": {"type": "string"},
                            "implementation": {"enum": ["prometheus", "cortex", "mimir"]},
                            "handleGrafanaManagedAlerts": {"type": "boolean"},
                        },
                    },
                    "secureJsonData": {"type": "object"},
                    "version": {"type": "integer"},
                    "editable": {"type": "boolean"},
                },
            },
        },
    },
}
PROVIDERS = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "providers"],
    "properties": {
        "apiVersion": {"const": 1},
        "providers": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "options"],
                "properties": {
                    "name": {"type": "string"},
                    "orgId": {"type": "integer"},
                    "folder": {"type": "string"},
                    "folderUid": {"type": "string"},
                    "type": {"const": "file"},
                    "disableDeletion": {"type": "boolean"},
                    "updateIntervalSeconds": {"type": "integer", "minimum": 1},
                    "allowUiUpdates": {"type": "boolean"},
                    "options": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["path"],
                        "properties": {
                            "path": {"type": "string", "pattern": "^/"},
                            "foldersFromFilesStructure": {"type": "boolean"},
                        },
                    },
                },
            },
        },
    },
}


def arguments(release, component):
    (container,) = pods(release)[component]["containers"]
    return dict(argument.partition("=")[::2] for argument in container["args"])


def environment(release):
    (container,) = pods(release)["grafana"]["containers"]
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in container["env"]}


def provisioning(release):
    files = release.one("ConfigMap", "m-monitoring-grafana")["data"]
    return {name: yaml.safe_load(text) for name, text in files.items()}


# ---- Prometheus


@pytest.mark.parametrize("values", [STANDALONE, ALL], ids=["default", "all"])
def test_promtool_takes_the_configuration_with_the_rules_that_it_names(values, tmp_path):
    release = render(values)
    for name, text in rule_files(release).items():
        (tmp_path / name).write_text(text)
    config = prometheus_config(release)
    assert config["rule_files"] == ["/etc/prometheus/rules/*.yml"]
    path = tmp_path / "prometheus.yaml"
    path.write_text(yaml.safe_dump(config | {"rule_files": [str(tmp_path / "*.yml")]}))
    said = tool("promtool", "check", "config", path)
    assert f"{len(rule_files(release))} rule files found" in said


def test_targets_are_the_predictors_of_the_namespaces_that_prometheus_may_read():
    release = render(ALL)
    (sd,) = prometheus_config(release)["scrape_configs"][0]["kubernetes_sd_configs"]
    assert sd["role"] == "pod"
    assert sd["namespaces"] == {"names": ["models", "more-models"]}
    # By namespace: they have the same name in each.
    roles, bindings = (
        {thing["metadata"]["namespace"]: thing for thing in release.objects if thing["kind"] == kind}
        for kind in ("Role", "RoleBinding")
    )
    assert set(roles) == set(bindings) == {"models", "more-models"}
    for namespace, role in roles.items():
        assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
        assert bindings[namespace]["roleRef"]["name"] == role["metadata"]["name"]
        assert bindings[namespace]["subjects"] == [
            {"kind": "ServiceAccount", "name": "m-monitoring-prometheus", "namespace": "watch"}
        ]


def test_with_nothing_said_it_looks_in_its_own_namespace_only():
    release = render(STANDALONE)
    (sd,) = prometheus_config(release)["scrape_configs"][0]["kubernetes_sd_configs"]
    assert sd["namespaces"] == {"names": ["watch"]}
    assert release.one("Role", "m-monitoring-prometheus")["metadata"]["namespace"] == "watch"


def test_the_whole_cluster_needs_a_cluster_role_that_reads_pods_and_nothing_else():
    release = render(STANDALONE, {"scrape": {"wholeCluster": True}})
    (sd,) = prometheus_config(release)["scrape_configs"][0]["kubernetes_sd_configs"]
    assert "namespaces" not in sd
    role = release.one("ClusterRole", "watch-m-monitoring-prometheus")
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    (binding,) = release.of("ClusterRoleBinding").values()
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert not {"Role", "RoleBinding"} & release.kinds()


def test_each_pod_is_one_target_with_the_labels_that_the_dashboards_ask_for():
    rules = prometheus_config(render(STANDALONE))["scrape_configs"][0]["relabel_configs"]
    kept = [rule for rule in rules if rule["action"] == "keep"]
    assert kept == [
        {"action": "keep", "source_labels": ["__meta_kubernetes_pod_container_port_name"], "regex": "metrics"}
    ]
    targets = {rule["target_label"] for rule in rules if rule["action"] == "replace"}
    assert targets == {"namespace", "pod", "release", "release_slot"}


def test_retention_volume_and_more_targets_are_the_values():
    release = render(ALL)
    assert (
        arguments(release, "prometheus").items()
        >= {
            "--storage.tsdb.path": "/prometheus",
            "--storage.tsdb.retention.time": "15d",
            "--storage.tsdb.retention.size": "6GB",
        }.items()
    )
    assert prometheus_config(release)["global"] == {"scrape_interval": "30s", "evaluation_interval": "30s"}
    assert [job["job_name"] for job in prometheus_config(release)["scrape_configs"]] == ["muelle", "more"]
    assert "--storage.tsdb.retention.size" not in arguments(render(STANDALONE), "prometheus")


def test_samples_are_on_a_claim_that_outlives_an_uninstall_when_asked_for():
    def data(release, component):
        return next(volume for volume in pods(release)[component]["volumes"] if volume["name"] == "data")

    assert data(render(STANDALONE), "prometheus") == {"name": "data", "emptyDir": {}}
    assert "PersistentVolumeClaim" not in render(STANDALONE).kinds()
    release = render(ALL)
    claims = release.of("PersistentVolumeClaim")
    assert set(claims) == {"m-monitoring-prometheus", "m-monitoring-alertmanager"}
    for claim in claims.values():
        assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert claims["m-monitoring-alertmanager"]["spec"]["storageClassName"] == "fast"
    assert "storageClassName" not in claims["m-monitoring-prometheus"]["spec"]
    assert data(release, "prometheus")["persistentVolumeClaim"] == {"claimName": "m-monitoring-prometheus"}
    assert data(release, "grafana")["persistentVolumeClaim"] == {"claimName": "mine"}


def test_two_programs_never_write_to_one_volume():
    # A Deployment starts the next pod while the last one is still going.
    for thing in render(ALL).of("StatefulSet").values():
        assert thing["spec"]["replicas"] == 1
    assert "Deployment" not in render(ALL).kinds()


def test_changed_rules_restart_nothing_and_are_read_all_the_same():
    template = [
        render(STANDALONE, values).one("StatefulSet", "m-monitoring-prometheus")["spec"]["template"]
        for values in ({}, {"slo": {"latencyBudget": 0.02}, "scrape": {"intervalSeconds": 10}})
    ]
    assert template[0] == template[1]
    assert "--config.auto-reload" in arguments(render(STANDALONE), "prometheus")
    # Files of a subPath never change.
    (container,) = template[0]["spec"]["containers"]
    assert all("subPath" not in mount for mount in container["volumeMounts"])


# ---- Alertmanager


@pytest.mark.parametrize("values", [STANDALONE, ALL], ids=["nobody", "team"])
def test_alertmanager_has_the_one_receiver_that_its_route_names(values):
    config = alertmanager_config(render(values))
    names = [receiver["name"] for receiver in config["receivers"]]
    assert config["route"]["receiver"] in names
    assert len(names) == len(set(names)) == 1


def test_nobody_is_told_until_a_receiver_is_named():
    assert alertmanager_config(render(STANDALONE))["receivers"] == [{"name": "nobody"}]
    assert alertmanager_config(render(ALL))["receivers"] == [
        {"name": "team", "webhook_configs": [{"url": "http://chat.example/hook"}]}
    ]


def test_another_receiver_restarts_alertmanager_which_reads_it_at_the_start_only():
    def checksum(*values):
        thing = render(*values).one("StatefulSet", "m-monitoring-alertmanager")
        return thing["spec"]["template"]["metadata"]["annotations"]["checksum/config"]

    assert checksum(STANDALONE) == checksum(STANDALONE, {"slo": {"latencyBudget": 0.02}})
    assert checksum(STANDALONE) != checksum(ALL)


def test_a_whole_configuration_can_be_in_a_secret_of_ones_own():
    own = {"standalone": {"alertmanager": {"existingSecret": "pagers", "key": "am.yml"}}}
    release = render(STANDALONE, own)
    assert "m-monitoring-alertmanager" not in release.of("Secret")
    assert arguments(release, "alertmanager")["--config.file"] == "/etc/alertmanager/am.yml"
    volume = next(volume for volume in pods(release)["alertmanager"]["volumes"] if volume["name"] == "config")
    assert volume["secret"] == {"secretName": "pagers"}


def test_prometheus_knows_the_alertmanager_by_its_service():
    config = prometheus_config(render(STANDALONE))
    (target,) = config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    name, _, port = target.partition(":")
    (service,) = render(STANDALONE).one("Service", name)["spec"]["ports"]
    assert str(service["port"]) == port
    without = render(STANDALONE, {"standalone": {"alertmanager": {"enabled": False}}})
    assert "alerting" not in prometheus_config(without)


# ---- Grafana


@pytest.mark.parametrize("values", [STANDALONE, ALL], ids=["default", "all"])
def test_the_provisioning_files_are_what_grafana_documents(values):
    files = provisioning(render(values))
    jsonschema.validate(files["datasources.yaml"], DATASOURCES)
    jsonschema.validate(files["providers.yaml"], PROVIDERS)


def test_the_data_sources_are_the_services_and_just_one_is_the_default():
    release = render(STANDALONE)
    sources = {source["type"]: source for source in provisioning(release)["datasources.yaml"]["datasources"]}
    for kind, source in sources.items():
        (port,) = release.one("Service", f"m-monitoring-{kind}")["spec"]["ports"]
        assert source["url"] == f"http://m-monitoring-{kind}:{port['port']}"
    assert [kind for kind, source in sources.items() if source["isDefault"]] == ["prometheus"]
    assert sources["prometheus"]["jsonData"]["alertmanagerUid"] == sources["alertmanager"]["uid"]
    assert sources["prometheus"]["jsonData"]["timeInterval"] == "15s"
    without = render(STANDALONE, {"standalone": {"alertmanager": {"enabled": False}}})
    (only,) = provisioning(without)["datasources.yaml"]["datasources"]
    assert "alertmanagerUid" not in only["jsonData"]


def test_every_dashboard_is_mounted_where_the_provider_looks_and_one_is_home():
    release = render(STANDALONE)
    (pod,) = [pod for name, pod in pods(release).items() if name == "grafana"]
    (provider,) = provisioning(release)["providers.yaml"]["providers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts["dashboards"] == provider["options"]["path"]
    volume = next(volume for volume in pod["volumes"] if volume["name"] == "dashboards")
    maps = [source["configMap"]["name"] for source in volume["projected"]["sources"]]
    boards = {name for name in release.of("ConfigMap") if "-dashboard-" in name}
    assert set(maps) == boards
    files = [f"{mounts['dashboards']}/{key}" for name in boards for key in release.one("ConfigMap", name)["data"]]
    assert environment(release)["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] in files


def test_nobody_gets_in_without_a_password_unless_it_is_asked_for():
    assert environment(render(STANDALONE))["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    asked = environment(render(ALL))
    assert (asked["GF_AUTH_ANONYMOUS_ENABLED"], asked["GF_AUTH_ANONYMOUS_ORG_ROLE"]) == ("true", "Viewer")


def test_grafana_writes_only_where_there_is_a_volume():
    (pod,) = [pod for name, pod in pods(render(STANDALONE)).items() if name == "grafana"]
    written = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"] if not mount.get("readOnly")}
    assert written == {"/var/lib/grafana", "/tmp"}
    for key, value in environment(render(STANDALONE)).items():
        if key.startswith("GF_PATHS_"):
            assert value.startswith("/var/lib/grafana")


def test_the_password_is_from_a_secret_of_ones_own_or_made_up():
    own = {"standalone": {"grafana": {"admin": {"existingSecret": "grafana-admin", "key": "pw"}}}}
    release = render(STANDALONE, own)
    assert "m-monitoring-grafana" not in release.of("Secret")
    wanted = {"secretKeyRef": {"name": "grafana-admin", "key": "pw"}}
    assert environment(release)["GF_SECURITY_ADMIN_PASSWORD"] == wanted
    made = [
        base64.b64decode(
            render(STANDALONE, {"cost": {"cpuCoreHourPrice": price}}).one("Secret", "m-monitoring-grafana")["data"][
                "admin-password"
            ]
        )
        for price in (1, 2)
    ]
    assert made[0] != made[1]
    assert all(len(password) == 24 for password in made)


@pytest.mark.parametrize("kept", [True, False])
def test_the_made_up_password_stays_as_long_as_the_database_that_has_it(kept):
    release = render(STANDALONE, {"standalone": {"grafana": {"persistence": {"enabled": kept}}}})
    annotations = release.one("Secret", "m-monitoring-grafana")["metadata"].get("annotations", {})
    assert annotations == ({"helm.sh/resource-policy": "keep"} if kept else {})


def test_a_made_up_password_is_kept_by_upgrades(namespace):
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "m-monitoring-grafana"},
        "stringData": {"admin-password": "as it was"},
    }
    kubectl(namespace, "apply", "--server-side", document=secret)
    arguments = ("helm", "template", "m", str(CHART), "-n", namespace, "--is-upgrade", "--dry-run=server")
    done = command(*arguments, "--values", "-", stdin=json.dumps(STANDALONE))
    assert done.returncode == 0, done.stderr
    things = [thing for thing in yaml.safe_load_all(done.stdout) if thing and thing["kind"] == "Secret"]
    (found,) = [thing for thing in things if thing["metadata"]["name"] == "m-monitoring-grafana"]
    assert base64.b64decode(found["data"]["admin-password"]) == b"as it was"


def test_a_dashboard_that_changes_restarts_nothing():
    values = merged(STANDALONE, {"standalone": {"prometheus": {"retentionDays": 3}}})
    first, second = (
        next(
            t
            for t in yaml.safe_load_all(template(v).stdout)
            if t and t["metadata"]["name"] == "m-monitoring-grafana" and t["kind"] == "StatefulSet"
        )
        for v in (STANDALONE, values)
    )
    assert first["spec"]["template"] == second["spec"]["template"]
