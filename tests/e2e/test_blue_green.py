"""Blue/green through the Service's selector: a new version beside the old one, then all requests at once, and back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from release import Release

Install = Callable[..., Release]
Lossless = Callable[..., None]


@pytest.fixture(scope="module")
def release(install: Install) -> Release:
    """Two pods serve iris@1 from slot a."""
    return install("green")


def test_a_candidate_takes_no_request_before_it_is_promoted(release: Release, lossless: Lossless) -> None:
    with release.load(versions=["1"]) as load:
        release.muelle("deploy", "iris@2")
        load.wait(sent=100)
    assert len(release.pods("b", ready=True)) == 2
    assert not release.endpoints() & release.uids("b")
    lossless(load)


def test_promotion_moves_all_requests_and_restarts_nothing(release: Release, lossless: Lossless) -> None:
    candidates = release.uids("b")
    with release.load() as load:
        release.muelle("promote", "--drain-seconds", "5")
        load.wait_version("2", 100)
        release.wait_settled()
        with release.load(versions=["2"], limit=200) as after:
            after.finish()
    assert candidates == release.uids("b")
    assert release.restarts("b") == 0
    lossless(load)
    lossless(after, what="after the switch")


def test_rollback_moves_all_requests_back(release: Release, lossless: Lossless) -> None:
    with release.load() as load:
        release.muelle("rollback", "--drain-seconds", "5")
        load.wait_version("1", 100)
        release.wait_settled()
        with release.load(versions=["1"], limit=200) as after:
            after.finish()
    lossless(load)
    lossless(after, what="after the switch back")
