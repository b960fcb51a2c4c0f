"""The monitoring chart with a Prometheus and an Alertmanager of its own, on a volume.

Grafana is left out: what it is given is checked by the API server and against its documentation, in tests/chart.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from cluster import Kube, until
from images import FLIPPED, Images
from loader import Load
from release import Release
from watching import (
    ALERTMANAGER_IMAGE,
    PROMETHEUS_IMAGE,
    SECONDS,
    Alertmanager,
    Prometheus,
    Sample,
    check_drift,
    helm,
    image,
)

Report = Callable[[object], None]

CLAIM = "watch-monitoring-prometheus"
POD = "watch-monitoring-prometheus-0"
#: Stands for a chat or a pager: prints what it is sent.
LISTENER = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        print(self.rfile.read(int(self.headers['Content-Length'])).decode(), flush=True)
        self.send_response(200)
        self.end_headers()
HTTPServer(('', 8000), Handler).serve_forever()
"""
VALUES: dict[str, Any] = {
    "scrape": {"intervalSeconds": SECONDS},
    "alerts": {"labels": {"team": "e2e"}, "runbookUrlPrefix": "https://runbooks.example/"},
    "standalone": {
        "enabled": True,
        "prometheus": {
            "image": image(PROMETHEUS_IMAGE),
            "evaluationIntervalSeconds": SECONDS,
            "persistence": {"enabled": True, "size": "1Gi"},
        },
        "alertmanager": {
            "image": image(ALERTMANAGER_IMAGE),
            "receiver": {"webhook_configs": [{"url": "http://pager:8000/"}]},
        },
        "grafana": {"enabled": False},
    },
}


@dataclass(frozen=True)
class Watched:
    """A release, and who watches it."""

    release: Release
    prometheus: Prometheus
    alertmanager: Alertmanager


@pytest.fixture(scope="module")
def prometheus(kube: Kube, images: Images, namespace: str) -> Iterator[Prometheus]:
    """The monitoring chart, and whom it tells."""
    give_back_all(kube, namespace, images.e2e)
    kube.apply(pager(images.e2e), namespace)
    try:
        helm(kube, "install", "watch", namespace, VALUES)
        yield Prometheus(kube, namespace, POD)
    finally:
        kube.helm("uninstall", "watch", "-n", namespace, "--ignore-not-found", "--wait", "--timeout=90s")
        assert kube.exists("persistentvolumeclaim", CLAIM, namespace), "an uninstall should leave the samples"
        # Helm waits for the StatefulSet and not for its pod, which still writes while it stops.
        until(lambda: not kube.exists("pod", POD, namespace), "Prometheus gone from its volume", 120)
        give_back(kube, namespace, images.e2e)


@pytest.fixture(scope="module")
def watched(kube: Kube, namespace: str, prometheus: Prometheus, install: Callable[..., Release]) -> Watched:
    """Two pods of iris@1, and who watches them."""
    return Watched(install("m"), prometheus, Alertmanager(kube, namespace, "watch-monitoring-alertmanager-0"))


def pager(image: str) -> list[dict[str, Any]]:
    """Return a pod that is told of alerts, and its Service; the image is any that has a Python."""
    container = python(image, LISTENER)
    container["readinessProbe"] = {"tcpSocket": {"port": 8000}, "periodSeconds": 1}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "pager"},
        "spec": {"selector": {"app": "pager"}, "ports": [{"port": 8000}]},
    }
    return [pod("pager", container), service]


def python(image: str, code: str) -> dict[str, Any]:
    """Return a container that runs some Python."""
    return {
        "name": "python",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", code],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }


def pod(name: str, container: dict[str, Any], volumes: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    """Return a pod that runs once, as the user whose files Prometheus' are."""
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65534, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": list(volumes),
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


def give_back(kube: Kube, namespace: str, image: str) -> None:
    """Empty the volume and let others have it, where the cluster keeps volumes and doesn't do so itself."""
    volume = kube.get("persistentvolumeclaim", CLAIM, namespace)["spec"]["volumeName"]
    code = "import os, shutil; [shutil.rmtree(f.path) if f.is_dir() else os.unlink(f) for f in os.scandir('/data')]"
    container = python(image, code) | {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    data = {"name": "data", "persistentVolumeClaim": {"claimName": CLAIM}}
    kube.apply(pod("sweeper", container, (data,)), namespace)
    kube.wait("jsonpath={.status.phase}=Succeeded", "pod/sweeper", namespace)
    kube.run("delete", "pod/sweeper", f"persistentvolumeclaim/{CLAIM}", "-n", namespace, "--timeout=60s")
    if kube.exists("persistentvolume", volume, namespace):
        policy = kube.get("persistentvolume", volume)["spec"]["persistentVolumeReclaimPolicy"]
        if policy == "Retain":
            kube.run("patch", "persistentvolume", volume, "--type=merge", "-p", '{"spec": {"claimRef": null}}')


def give_back_all(kube: Kube, namespace: str, image: str) -> None:
    """Give back what killed runs have kept: the namespace is new, so no volume is one of its claims'."""
    for volume in kube.get("persistentvolumes")["items"]:
        spec = volume["spec"]
        if spec.get("claimRef", {}).get("namespace") != namespace or spec["persistentVolumeReclaimPolicy"] != "Retain":
            continue
        name = volume["metadata"]["name"]
        kube.run("patch", "persistentvolume", name, "--type=merge", "-p", '{"spec": {"claimRef": null}}')
        wanted = {
            "volumeName": name,
            "storageClassName": spec.get("storageClassName", ""),
            "accessModes": spec["accessModes"][:1],
            "resources": {"requests": {"storage": spec["capacity"]["storage"]}},
        }
        claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": CLAIM}, "spec": wanted}
        kube.apply(claim, namespace)
        give_back(kube, namespace, image)


def test_each_pod_is_scraped_once_and_its_series_say_whose_they_are(watched: Watched) -> None:
    targets = watched.prometheus.wait_targets_up(watched.release)
    assert len(targets) == len(watched.prometheus.targets()) == 2
    for target in targets:
        labels = target["labels"]
        assert (labels["namespace"], labels["release_slot"]) == (watched.release.namespace, "a")
    samples = until(lambda: all_models(watched), "each pod's model", 30)
    assert all(sample.labels.keys() >= {"model", "version", "release", "release_slot"} for sample in samples)


def all_models(watched: Watched) -> list[Sample]:
    """Return the pods' models; a first scrape may be from before a pod had loaded its own."""
    samples = watched.prometheus.query("muelle_model_info")
    assert {sample.labels["pod"] for sample in samples} == set(watched.release.names())
    return samples


def test_every_rule_is_loaded_and_evaluated_without_an_error(watched: Watched, report: Report) -> None:
    report(f"{watched.prometheus.wait_rules_healthy()} rules, all healthy")


def test_drift_rises_when_drifted_rows_are_sent(watched: Watched, report: Report) -> None:
    report(check_drift(watched.prometheus, watched.release))


def test_another_budget_counts_without_a_restart(watched: Watched, kube: Kube, report: Report) -> None:
    budget = 'muelle:slo_budget:ratio{slo="latency"}'
    prometheus = watched.prometheus
    until(lambda: prometheus.value(budget) == 0.01, "the budget of the values", 60)
    before = kube.get("pod", prometheus.pod, prometheus.namespace)["metadata"]["uid"]
    began = time.monotonic()
    helm(kube, "upgrade", "watch", prometheus.namespace, VALUES | {"slo": {"latencyBudget": 0.02}})
    # A kubelet refreshes a ConfigMap's files within a minute or two, and Prometheus looks twice a minute.
    until(lambda: prometheus.value(budget) == 0.02, "the new budget", 180, every=2)
    report(f"a new budget counted {time.monotonic() - began:.0f} s after `helm upgrade` began")
    assert kube.get("pod", prometheus.pod, prometheus.namespace)["metadata"]["uid"] == before


def test_counts_go_on_over_a_restart_of_prometheus(
    watched: Watched, kube: Kube, lossless: Callable[[Load], None], report: Report
) -> None:
    prometheus, release = watched.prometheus, watched.release
    answered = f'sum(muelle_requests_total{{namespace="{release.namespace}",protocol="oip",code="200"}})'
    at_first = release.answered("a")
    until(lambda: prometheus.value(answered) == at_first, "all that was answered before scraped", 30)
    began = time.time()
    with release.load(rate=40, seconds=400) as load:
        load.wait(sent=600)
        # A moment of which nothing is on its way any more.
        seen_at = time.time() - 2 * SECONDS
        seen = prometheus.value(answered, at=seen_at)
        assert seen > at_first
        gone = time.time()
        uid = kube.get("pod", prometheus.pod, prometheus.namespace)["metadata"]["uid"]
        kube.run("delete", "pod", prometheus.pod, "-n", prometheus.namespace, "--timeout=90s", timeout=100)
        prometheus.wait_ready()
        back = time.time()
        load.wait(sent=200)
    lossless(load)
    assert kube.get("pod", prometheus.pod, prometheus.namespace)["metadata"]["uid"] != uid
    until(lambda: prometheus.value(answered) == at_first + load.result.sent, "all requests scraped", 30)
    # What it knew before is there; what came while it was away is in the counters, and so in the increase.
    assert prometheus.value(answered, at=seen_at) == seen
    window = f"{time.time() - began + 2 * SECONDS:.0f}s"
    increase = prometheus.value(f"sum(increase(muelle_requests_total{{namespace='{release.namespace}'}}[{window}]))")
    # `increase` extends what it saw to the ends of the window, by up to a scrape interval at each.
    share = increase / load.result.sent
    report(f"away for {back - gone:.0f} s; {load.result.sent} requests, increase {increase:.1f} ({share:.3f} of them)")
    assert 0.95 < share < 1.05 + 2 * SECONDS / (time.time() - began)


def test_an_alert_reaches_whom_it_should_and_ends_when_the_pod_is_mended(
    watched: Watched, kube: Kube, report: Report
) -> None:
    name, prometheus, release = "MuelleModelNotLoaded", watched.prometheus, watched.release
    assert prometheus.alerts(name) == []
    broken = {"traffic": {"candidate": "b"}, "slots": {"b": {"serve": [f"iris@{FLIPPED}"]}}}
    began = time.monotonic()
    release.upgrade(broken, wait=False)
    (labels,) = until(lambda: prometheus.alerts(name), f"{name} firing", 90)
    fired = time.monotonic() - began
    assert labels.items() >= {"namespace": release.namespace, "model": "iris", "version": FLIPPED}.items()
    # A message that was lost is sent again after a minute.
    until(lambda: watched.alertmanager.alerts(name), f"{name} at Alertmanager", 100)
    told = until(lambda: messages(kube, prometheus.namespace, name), "the receiver told", 60)
    assert told[0]["labels"].items() >= {"severity": "warning", "team": "e2e", "version": FLIPPED}.items()
    assert told[0]["annotations"]["runbook_url"] == "https://runbooks.example/docs/runbooks/model-not-loaded.md"
    # A typing error, so that there is no model that the alert could name.
    release.upgrade({"slots": {"b": {"serve": ["irsi"]}}}, wait=False)
    until(lambda: [found for found in prometheus.alerts(name) if found["model"] == "unknown"], f"{name}: unknown", 90)
    mended = time.monotonic()
    release.upgrade({"slots": {"b": {"serve": ["iris@2"]}}})
    until(lambda: not prometheus.alerts(name), f"{name} over in Prometheus", 90)
    until(lambda: not watched.alertmanager.alerts(name), f"{name} over at Alertmanager", 100)
    report(f"{name}: fired {fired:.0f} s after the upgrade, over {time.monotonic() - mended:.0f} s after the next")


def messages(kube: Kube, namespace: str, alert: str) -> list[Any]:
    """Return the alerts of that name of which the receiver was told."""
    lines = kube.run("logs", "pager", "-n", namespace).splitlines()
    sent = [item for line in lines if line.startswith("{") for item in json.loads(line)["alerts"]]
    return [item for item in sent if item["labels"]["alertname"] == alert]
