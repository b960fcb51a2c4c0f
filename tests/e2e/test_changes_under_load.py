"""Whatever changes a release that serves, or hits it, no request is lost; requests come through the Service."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import loader
import pytest
from cluster import Kube, until
from release import Release

Install = Callable[..., Release]
Lossless = Callable[..., None]
Report = Callable[[object], None]

#: Kills one worker of the service; the arbiter is process 1.
KILL_A_WORKER = """
import os, signal
from pathlib import Path
children = Path("/proc/1/task/1/children").read_text().split()
workers = [pid for pid in children if b"gunicorn" in Path(f"/proc/{pid}/cmdline").read_bytes()]
os.kill(int(workers[0]), signal.SIGKILL)
print(workers[0])
"""
#: A label of the node that a test has cordoned, so that the next run knows it if this one is killed.
CORDONED = "muelle.io/e2e-cordoned"


@pytest.fixture(scope="module")
def release(install: Install, kube: Kube) -> Release:
    """Two pods of two workers each, with the chart's own patience."""
    uncordon(kube)
    return install("busy", {"settings": {"workers": 2}})


def test_helm_upgrade_of_the_image_loses_no_request(release: Release, lossless: Lossless) -> None:
    before = release.uids()
    with release.load() as load:
        release.upgrade({"image": {"tag": "e2e-2"}})
        release.wait_settled()
        load.wait(sent=100)
    assert not before & release.uids()
    lossless(load)


def test_a_changed_setting_rolls_the_pods_and_loses_no_request(release: Release, lossless: Lossless) -> None:
    before = release.uids()
    with release.load() as load:
        release.upgrade({"settings": {"maxRows": 1000}})
        release.wait_settled()
        load.wait(sent=100)
    assert not before & release.uids()
    lossless(load)


def test_scaling_from_1_to_4_and_back_loses_no_request(release: Release, lossless: Lossless) -> None:
    release.upgrade({"replicas": 1})
    release.wait_settled()
    with release.load() as load:
        for replicas in (4, 1):
            release.upgrade({"replicas": replicas})
            release.wait_ready(replicas=replicas)
            release.wait_settled()
            load.wait(sent=100)
    lossless(load)
    release.upgrade({"replicas": 2})


def test_a_deleted_pod_loses_no_request(release: Release, kube: Kube, lossless: Lossless) -> None:
    release.wait_settled()
    before = release.uids()
    with release.load() as load:
        kube.run("delete", "pod", release.names()[0], "-n", release.namespace, "--wait=false")
        until(lambda: len(before & release.uids()) == 1, "a pod on its way out")
        release.wait_ready(replicas=2)
        release.wait_settled()
        load.wait(sent=100)
    lossless(load)


def test_a_killed_worker_takes_only_what_it_had_in_hand(
    release: Release, kube: Kube, lossless: Lossless, report: Report
) -> None:
    """Nobody can save a request whose process is gone in the midst of it; each client has at most one such."""
    release.wait_settled()
    clients, kills = 4, 5
    with release.load(new=clients // 2, kept=clients // 2) as load:
        for number in range(kills):
            pod = release.names()[number % 2]
            killed = kube.exec(release.namespace, pod, "python", "-c", KILL_A_WORKER).strip()
            assert killed.isdecimal()
            load.wait(sent=100)
    report(f"{kills} workers killed; what they had in hand, at most {clients} requests each, may be lost")
    lossless(load, most=kills * clients)
    assert release.restarts() == 0, "a worker's death is the arbiter's business, not the pod's"


def uncordon(kube: Kube) -> None:
    """Let pods onto the nodes again that this run, or one that was killed, has cordoned."""
    kube.run("uncordon", "--selector", CORDONED)
    kube.run("label", "nodes", "--selector", CORDONED, f"{CORDONED}-")


@pytest.fixture
def drained(release: Release, kube: Kube) -> Iterator[str]:
    """The node to drain: it has one of the release's pods, and not the load."""
    nodes = {node["metadata"]["name"] for node in kube.get("nodes")["items"] if not node["spec"].get("unschedulable")}
    if len(nodes) < 2:
        pytest.skip("draining a node needs another one to go to")
    with release.load(limit=10):
        pass
    release.wait_settled()
    loads_node = kube.get("pod", loader.POD, release.namespace)["spec"]["nodeName"]
    used = {pod["spec"]["nodeName"] for pod in release.pods()} - {loads_node}
    assert used, "topology spread should have put one pod on another node than the load's"
    node = min(used)
    kube.run("label", "node", node, f"{CORDONED}=true", "--overwrite")
    yield node
    uncordon(kube)


def test_a_drained_node_loses_no_request(release: Release, kube: Kube, drained: str, lossless: Lossless) -> None:
    """Only the release's own pods are evicted: the cluster may be somebody's."""
    with release.load() as load:
        selector = f"--pod-selector={release.selector()}"
        kube.run(
            "drain", drained, selector, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s", timeout=140
        )
        release.wait_ready(replicas=2)
        release.wait_settled()
        load.wait(sent=100)
    assert all(pod["spec"]["nodeName"] != drained for pod in release.pods())
    lossless(load)


@pytest.mark.usefixtures("cpu_figures")
def test_the_autoscaler_goes_up_under_load_and_down_again_and_loses_no_request(
    release: Release, lossless: Lossless, report: Report
) -> None:
    autoscaling = {
        "enabled": True,
        "minReplicas": 1,
        "maxReplicas": 3,
        "targetCPUUtilizationPercent": 60,
        "behavior": {
            "scaleDown": {
                "stabilizationWindowSeconds": 10,
                "policies": [{"type": "Pods", "value": 3, "periodSeconds": 15}],
            }
        },
    }
    release.upgrade({"autoscaling": autoscaling, "resources": {"requests": {"cpu": "100m"}}})
    with release.load(rate=10, new=1, kept=1) as light:
        release.wait_ready(replicas=1, seconds=120)
        with release.load(rate=150, seconds=200) as heavy:
            until(lambda: len(release.pods(ready=True)) >= 2, "more pods under load", 120)
            most = len(release.pods(ready=True))
            heavy.wait(sent=200)
        until(lambda: len(release.pods()) == 1, "one pod when the load has gone", 150)
        release.wait_settled()
        light.wait(sent=20)
    report(f"1 → {most} or more → 1 pods")
    lossless(heavy, what="heavy load")
    lossless(light, what="light load, all the time")
