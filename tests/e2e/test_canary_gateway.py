"""A canary by a Gateway's exact weights, the testers' header, the mirror, promotion, rollback; and helm in between.

The tests tell one story, in order, of one release; requests come through the gateway, from outside of the cluster.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cluster import Kube, until
from release import GATEWAY, Release

Install = Callable[..., Release]
Lossless = Callable[..., None]
Report = Callable[[object], None]

TESTER = {"X-Muelle-Slot": "candidate"}
#: Standard deviations; of the binomial distribution here, less than 1 in 100 000 is outside of them.
SIGMAS = 4.6
#: Longer than any answer takes here, and much shorter than what a candidate that hangs would cost.
NOT_WAITED_SECONDS = 8.0

SIGNAL_WORKERS = """
import os, signal, sys
from pathlib import Path
for pid in Path("/proc/1/task/1/children").read_text().split():
    os.kill(int(pid), getattr(signal, sys.argv[1]))
"""

pytestmark = pytest.mark.usefixtures("gateway")


@pytest.fixture(scope="module")
def release(install: Install, gateway: None, namespace: str) -> Release:
    """Two pods serve iris@1 behind the gateway, under a host name of their own."""
    parent, _, name = GATEWAY.partition("/")
    host = f"exact.{namespace}.e2e"
    attached = {"parentRefs": [{"name": name, "namespace": parent}], "hostnames": [host]}
    release = install("exact", {"traffic": {"backend": "gateway", "gateway": attached}})
    assert release.host == host
    until(lambda: answers(release) == "1", "the gateway's first answer", 60)
    return release


def answers(release: Release, headers: dict[str, str] | None = None) -> str:
    """Return the version that answers by way of the gateway; no answer is not yet one."""
    try:
        return release.predict_at_gateway(headers)[0]
    except OSError as error:
        raise AssertionError(repr(error)) from error


def weights(release: Release) -> list[int]:
    """Return the weights of a and b in the HTTPRoute's last rule."""
    route = release.kube.get("httproute", release.fullname, release.namespace)
    return [backend["weight"] for backend in route["spec"]["rules"][-1]["backendRefs"]]


def check_share(load: Any, share: float, report: Report) -> None:
    """Check the candidate's share of a load against the bounds that chance alone hardly ever leaves."""
    total, got = load.result.answered, load.result.by_version.get("2", 0)
    spread = SIGMAS * math.sqrt(total * share * (1 - share))
    low, high = total * share - spread, total * share + spread
    report(f"{got} of {total} by the candidate; {low:.0f}…{high:.0f} expected at {share:.0%}")
    assert low <= got <= high


def test_a_candidate_behind_the_gateway_takes_no_request_by_itself(release: Release, lossless: Lossless) -> None:
    with release.load(via="gateway", versions=["1"]) as load:
        release.muelle("deploy", "iris@2")
        load.wait(sent=100)
    assert weights(release) == [100, 0]
    lossless(load)


def test_the_testers_header_reaches_the_candidate_and_nobody_else_does(release: Release, lossless: Lossless) -> None:
    release.muelle("traffic", "--header", "X-Muelle-Slot=candidate")
    until(lambda: answers(release, TESTER) == "2", "the header's effect", 30)
    with release.load(via="gateway", versions=["1"], limit=200) as others:
        with release.load(via="gateway", versions=["2"], headers=TESTER, limit=200) as testers:
            testers.finish()
        others.finish()
    lossless(testers, what="with the header")
    lossless(others, what="without")


def test_a_mirror_reaches_the_candidate_and_its_answers_nobody(
    release: Release, lossless: Lossless, report: Report
) -> None:
    before = release.answered("b")
    release.muelle("traffic", "--mirror", "50")
    with release.load(via="gateway", versions=["1"]) as load:
        until(lambda: release.answered("b") >= before + 100, "100 mirrored requests", 60)
    report(f"the candidate saw {release.answered('b') - before:.0f} copies")
    lossless(load)


@pytest.fixture
def hung(release: Release, kube: Kube) -> Iterator[None]:
    """Candidates that take requests and answer none; soon they are not ready, and nothing takes the copies."""
    pods = release.names("b")
    for pod in pods:
        kube.exec(release.namespace, pod, "python", "-c", SIGNAL_WORKERS, "SIGSTOP")
    yield
    for pod in pods:
        kube.exec(release.namespace, pod, "python", "-c", SIGNAL_WORKERS, "SIGCONT", check=False)
    release.wait_settled()


@pytest.mark.usefixtures("hung")
def test_nobody_waits_on_a_mirror_that_hangs_or_is_gone(release: Release, lossless: Lossless) -> None:
    with release.load(via="gateway", versions=["1"]) as load:
        until(lambda: not release.pods("b", ready=True), "candidates that are not ready", 60)
        load.wait(sent=200)
    lossless(load)
    assert load.result.longest_seconds < NOT_WAITED_SECONDS


def test_ten_percent_are_ten_percent(release: Release, lossless: Lossless, report: Report) -> None:
    release.muelle("traffic", "--mirror", "0")
    release.muelle("traffic", "10")
    until(lambda: weights(release) == [90, 10], "weights 90/10", 30)
    with release.load(via="gateway", rate=120, limit=4800) as load:
        load.finish()
    lossless(load)
    assert load.result.sent >= 4000
    check_share(load, 0.1, report)


def test_helm_upgrade_in_the_midst_of_a_canary_leaves_it_alone(release: Release, lossless: Lossless) -> None:
    before = release.uids()
    record = release.kube.get("configmap", f"{release.fullname}-rollout", release.namespace)["data"]
    with release.load(via="gateway") as load:
        release.upgrade({"networkPolicy": {"enabled": True}})
        load.wait(sent=100)
        assert weights(release) == [90, 10]
        assert release.uids() == before, "nothing in the pods has changed"
        release.upgrade({"settings": {"maxRows": 1000}})
        release.wait_settled()
        load.wait(sent=100)
    assert weights(release) == [90, 10]
    assert release.kube.get("configmap", f"{release.fullname}-rollout", release.namespace)["data"] == record
    assert {env(pod)["MUELLE_SERVE"] for pod in release.pods("b")} == {"iris@2"}
    lossless(load)
    assert set(load.result.by_version) == {"1", "2"}


def env(pod: Any) -> dict[str, str]:
    """Return the environment of a pod's predictor."""
    container = next(c for c in pod["spec"]["containers"] if c["name"] == "predictor")
    return {item["name"]: item.get("value", "") for item in container["env"]}


def test_promotion_by_weight_restarts_nothing(release: Release, lossless: Lossless) -> None:
    candidates = release.uids("b")
    with release.load(via="gateway") as load:
        release.muelle("promote", "--drain-seconds", "5")
        load.wait_version("2", 100)
        release.wait_settled()
        with release.load(via="gateway", versions=["2"], limit=200) as after:
            after.finish()
    assert candidates <= release.uids("b")
    assert release.restarts("b") == 0
    lossless(load)
    lossless(after, what="after promotion")


def test_rollback_by_weight_brings_the_old_version_back(release: Release, lossless: Lossless) -> None:
    with release.load(via="gateway") as load:
        release.muelle("rollback", "--drain-seconds", "5")
        load.wait_version("1", 100)
        release.wait_settled()
        with release.load(via="gateway", versions=["1"], limit=200) as after:
            after.finish()
    lossless(load)
    lossless(after, what="after rollback")
