"""The monitoring chart for the Prometheus Operator, whose Prometheus finds rules and the PodMonitor by labels."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from cluster import Kube, until
from release import Release
from watching import PROMETHEUS_IMAGE, SECONDS, Prometheus, check_drift, helm

Report = Callable[[object], None]

NAME = "watcher"
CHOSEN = {"release": "e2e-stack"}
VALUES: dict[str, Any] = {
    "scrape": {"intervalSeconds": SECONDS},
    "operator": {"labels": CHOSEN, "podMonitor": {"enabled": True}},
}
#: Stops, or lets go on, whoever answers scrapes in a pod: all but the first process that hold the listening socket.
SIGNAL = """
import contextlib, os, pathlib, signal, sys
port, what = sys.argv[1:]
lines = pathlib.Path('/proc/net/tcp').read_text().splitlines()[1:]
lines += pathlib.Path('/proc/net/tcp6').read_text().splitlines()[1:]
rows = [line.split() for line in lines]
sockets = {f'socket:[{row[9]}]' for row in rows if row[3] == '0A' and int(row[1].rpartition(':')[2], 16) == int(port)}
found = 0
for process in pathlib.Path('/proc').glob('[0-9]*'):
    links = set()
    # Files are closed and processes end while one looks.
    with contextlib.suppress(OSError):
        for link in (process / 'fd').iterdir():
            with contextlib.suppress(OSError):
                links.add(os.readlink(link))
    if process.name != '1' and sockets & links:
        os.kill(int(process.name), getattr(signal, what))
        found += 1
print(found)
"""


@pytest.fixture(scope="module")
def prometheus(kube: Kube, namespace: str) -> Prometheus:
    """A Prometheus made by the Operator, which looks for its own in this namespace only."""
    if not kube.exists("crd", "prometheuses.monitoring.coreos.com"):
        pytest.skip("the cluster has no Prometheus Operator")
    kube.apply(objects(namespace), namespace)
    return Prometheus(kube, namespace, f"prometheus-{NAME}-0")


def objects(namespace: str) -> list[dict[str, Any]]:
    """Return a Prometheus and the rights that it needs."""
    meta = {"name": NAME}
    selector = {"matchLabels": CHOSEN}
    spec = {
        "serviceAccountName": NAME,
        "image": PROMETHEUS_IMAGE,
        # The image's tag may be none of Prometheus' versions, by which the Operator decides what to write.
        "version": "v3.5.0",
        "replicas": 1,
        "scrapeInterval": "30s",
        "evaluationInterval": f"{SECONDS}s",
        "ruleSelector": selector,
        "podMonitorSelector": selector,
        "serviceMonitorSelector": selector,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65534,
            "fsGroup": 65534,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
    }
    rbac = "rbac.authorization.k8s.io"
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": meta, "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": NAME},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": namespace}],
        },
        {"apiVersion": "monitoring.coreos.com/v1", "kind": "Prometheus", "metadata": meta, "spec": spec},
    ]


@pytest.fixture(scope="module")
def release(kube: Kube, namespace: str, prometheus: Prometheus, install: Callable[..., Release]) -> Release:
    """Two pods of iris@1, and the monitoring chart."""
    helm(kube, "install", "watch", namespace, VALUES)
    release = install("m")
    prometheus.wait_ready()
    return release


@dataclass(frozen=True)
class Stuck:
    """A pod whose metrics don't come any more, and since when."""

    pod: str
    since: float


@pytest.fixture(scope="module")
def stuck(kube: Kube, release: Release, prometheus: Prometheus) -> Stuck:
    """One of the pods, its metrics process stopped in its tracks; the alert needs two minutes of that."""
    prometheus.wait_targets_up(release)
    name = release.names()[0]
    assert int(signal_metrics(kube, release, name, "SIGSTOP")) == 1
    return Stuck(name, time.monotonic())


def signal_metrics(kube: Kube, release: Release, pod: str, signal: str) -> str:
    """Send a signal to what answers scrapes in a pod, and return how many processes that were."""
    ports = {
        port["name"]: str(port["containerPort"])
        for container in kube.get("pod", pod, release.namespace)["spec"]["containers"]
        for port in container["ports"]
    }
    command = ("python", "-c", SIGNAL, ports["metrics"], signal)
    return kube.exec(release.namespace, pod, *command, container="predictor").strip()


def test_the_operators_prometheus_scrapes_each_pod_once(prometheus: Prometheus, release: Release) -> None:
    # The Operator writes a new configuration first, and Prometheus has to find it.
    targets = prometheus.wait_targets_up(release, 150)
    assert len(targets) == len(prometheus.targets()) == 2
    for target in targets:
        labels = target["labels"]
        assert (labels["namespace"], labels["release_slot"]) == (release.namespace, "a")
    assert {target["scrapeInterval"] for target in targets} == {f"{SECONDS}s"}


def test_the_operators_prometheus_has_every_rule_and_evaluates_it_without_an_error(
    prometheus: Prometheus, release: Release, report: Report
) -> None:
    report(f"{prometheus.wait_rules_healthy(240)} rules of {release.name}, all healthy")


def test_drift_rises_when_drifted_rows_are_sent_while_one_pod_is_not_seen(
    stuck: Stuck, prometheus: Prometheus, release: Release, kube: Kube, report: Report
) -> None:
    # Through the pod that is seen; a Service would choose either.
    other = next(name for name in release.names() if name != stuck.pod)
    report(check_drift(prometheus, release, other))


def test_an_alert_tells_of_the_pod_that_does_not_answer_and_ends_when_it_is_mended(
    stuck: Stuck, prometheus: Prometheus, release: Release, kube: Kube, report: Report
) -> None:
    name = "MuelleTargetDown"
    until(lambda: prometheus.alerts(name), f"{name} firing", 200)
    fired = time.monotonic() - stuck.since
    (labels,) = prometheus.alerts(name)
    assert labels.items() >= {"pod": stuck.pod, "namespace": release.namespace, "severity": "page"}.items()
    # It serves all the same: nothing else alarms.
    with release.forwarded(f"pod/{stuck.pod}", 8080) as url:
        assert release.predict(url)[0] == "1"
    mended = time.monotonic()
    assert int(signal_metrics(kube, release, stuck.pod, "SIGCONT")) == 1
    until(lambda: not prometheus.alerts(name), f"{name} over", 60)
    over = time.monotonic() - mended
    report(f"{name}: fired {fired:.0f} s after the process stopped, over {over:.0f} s after it went on")
