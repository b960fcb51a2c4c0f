"""A canary by the count of pods: no parts but Kubernetes', and shares that whole pods can give."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from cluster import until
from release import Release

Install = Callable[..., Release]
Lossless = Callable[..., None]
Report = Callable[[object], None]

#: Standard deviations; of the binomial distribution here, less than 1 in 100 000 is outside of them.
SIGMAS = 4.6
SHARE = 0.25


@pytest.fixture(scope="module")
def release(install: Install) -> Release:
    """Four small pods: one of them is a quarter."""
    values = {"replicas": 4, "traffic": {"backend": "replicas"}, "resources": {"requests": {"cpu": "30m"}}}
    return install("ratio", values)


def test_a_share_that_whole_pods_cannot_give_is_refused(release: Release, report: Report) -> None:
    release.muelle("deploy", "iris@2")
    said = release.muelle("traffic", "10", check=False)
    report((said.stdout + said.stderr).strip().splitlines()[-1])
    assert said.returncode != 0
    assert "25" in said.stdout + said.stderr


def test_a_quarter_of_the_connections_reaches_a_quarter_of_the_pods(
    release: Release, lossless: Lossless, report: Report
) -> None:
    """kube-proxy chooses a pod for each connection, so the clients that count open one for each request."""
    with release.load() as load:
        release.muelle("traffic", "25")
        release.wait_settled()
        load.wait(sent=100)
    lossless(load, what="while pods come and go")
    until(lambda: (len(release.pods("a")), len(release.pods("b"))) == (3, 1), "three pods and one")
    release.wait_settled()
    with release.load(new=3, kept=0, rate=100, limit=2000) as fresh:
        fresh.finish()
    lossless(fresh, what="new connections")
    total, got = fresh.result.answered, fresh.result.by_version.get("2", 0)
    spread = SIGMAS * math.sqrt(total * SHARE * (1 - SHARE))
    report(f"{got} of {total} by the candidate, {SHARE:.0%} expected ± {spread:.0f}")
    assert abs(got - total * SHARE) <= spread


def test_promotion_by_replicas_restarts_no_candidate(release: Release, lossless: Lossless) -> None:
    candidates = release.uids("b")
    with release.load() as load:
        release.muelle("promote", "--drain-seconds", "5")
        release.wait_settled()
        with release.load(versions=["2"], limit=200) as after:
            after.finish()
    assert candidates <= release.uids("b")
    assert release.restarts("b") == 0
    lossless(load)
    lossless(after, what="after promotion")


def test_rollback_by_replicas_brings_the_old_version_back(release: Release, lossless: Lossless) -> None:
    with release.load() as load:
        release.muelle("rollback", "--drain-seconds", "5")
        release.wait_settled()
        with release.load(versions=["1"], limit=200) as after:
            after.finish()
    lossless(load)
    lossless(after, what="after rollback")
