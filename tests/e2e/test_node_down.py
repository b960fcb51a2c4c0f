"""A node loses its power under load that comes through the gateway. Only where the environment says how that is done.

``MUELLE_E2E_NODE_DOWN`` and ``MUELLE_E2E_NODE_UP`` are the commands that cut a node off and bring it back;
``MUELLE_E2E_NODE`` is its name, by default the last one that `kubectl get nodes` lists.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from cluster import Kube, until
from release import GATEWAY, Release, is_ready
from test_canary_gateway import answers

Install = Callable[..., Release]
Report = Callable[[object], None]

#: Of all requests, with the chart's retries, timeouts and outlier detection on.
MOST_FAILED = 0.002
RECOVERED_SECONDS = 30.0
#: Before and after the cut; with `RATE` it gives the share its meaning: a few hundred requests wouldn't do.
QUIET_SECONDS, AFTERMATH_SECONDS = 20.0, 45.0
RATE = 100.0

pytestmark = pytest.mark.usefixtures("gateway")


@pytest.fixture(scope="module")
def node(kube: Kube) -> str:
    """The node that goes; the gateway's own pods are moved off it first, since it is not they that are tried."""
    names = sorted(node["metadata"]["name"] for node in kube.get("nodes")["items"])
    name = os.environ.get("MUELLE_E2E_NODE", names[-1])
    namespace = GATEWAY.partition("/")[0]
    kube.run("cordon", name)
    for pod in kube.get("pods", namespace=namespace)["items"]:
        if pod["spec"].get("nodeName") == name:
            kube.run("delete", "pod", pod["metadata"]["name"], "-n", namespace, timeout=180)
    until(lambda: all(is_ready(pod) for pod in kube.get("pods", namespace=namespace)["items"]), "the gateway", 120)
    kube.run("uncordon", name)
    return name


@pytest.fixture
def power(kube: Kube, node: str) -> Iterator[Callable[[], None]]:
    """Cuts the node off when called; it is brought back in any case."""
    yield lambda: _command("MUELLE_E2E_NODE_DOWN")
    _command("MUELLE_E2E_NODE_UP")
    kube.run("wait", "--for=condition=Ready", f"node/{node}", "--timeout=120s", timeout=140)
    # Ready is said by the kubelet; that pods may go there again, somewhat later by a controller.
    until(lambda: not away(kube, node), "the taints of a node that is away gone", 60)


def away(kube: Kube, node: str) -> list[str]:
    """Return the taints that a node has from being cut off."""
    taints = kube.get("node", node)["spec"].get("taints", [])
    return [taint["key"] for taint in taints if taint["key"].startswith("node.kubernetes.io/")]


def _command(key: str) -> None:
    subprocess.run(shlex.split(os.environ[key]), check=True, capture_output=True, timeout=180)


@pytest.mark.parametrize("protected", [False, True], ids=["without-retries", "with-retries"])
def test_a_node_cut_off_costs_next_to_nothing(
    protected: bool,
    install: Install,
    namespace: str,
    node: str,
    power: Callable[[], None],
    report: Report,
) -> None:
    name = "shielded" if protected else "plain"
    parent, _, gateway = GATEWAY.partition("/")
    attached = {
        "parentRefs": [{"name": gateway, "namespace": parent}],
        "hostnames": [f"{name}.{namespace}.e2e"],
        "envoy": {"enabled": protected},
    }
    release = install(name, {"traffic": {"backend": "gateway", "gateway": attached}})
    until(lambda: answers(release) == "1", "the gateway's first answer", 60)
    used = {pod["spec"]["nodeName"] for pod in release.pods()}
    assert node in used, "nothing would be cut off"
    assert len(used) > 1, "nothing would be left"
    with release.load(via="gateway", rate=RATE, seconds=200, new=4, kept=4) as load:
        time.sleep(QUIET_SECONDS)
        cut = time.time()
        power()
        time.sleep(AFTERMATH_SECONDS)
    last = (load.result.failed_until or cut) - cut
    share = load.result.failed / load.result.sent
    report(f"{share:.2%} failed, the last one {last:.1f} s after the cut; {load.result}")
    assert last < RECOVERED_SECONDS
    if protected:
        assert share <= MOST_FAILED
