"""API keys from an existing Secret: who has none is refused, and a new Secret counts without a restart."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
from collections.abc import Callable

import pytest
from cluster import Kube, until
from release import Release

Install = Callable[..., Release]
Report = Callable[[object], None]

#: The kubelet's minute, and its cache's.
ROTATION_SECONDS = 150.0


def make_key(name: str) -> tuple[str, str]:
    """Make a key as an operator does; the key, and the line for the file."""
    command = [sys.executable, "-m", "muelle.cli", "api-key", name]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    key, line = [text.strip() for text in lines if text.startswith("  ")]
    return key, line


def put_secret(kube: Kube, namespace: str, *lines: str) -> None:
    """Write the Secret with the file of keys."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "callers"},
        "stringData": {"api-keys": "\n".join(lines) + "\n"},
    }
    kube.apply(secret, namespace)


def status(release: Release, url: str, key: str | None) -> int:
    """Return the status of one request."""
    try:
        release.predict(url, {"X-API-Key": key} if key else None)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    return 200


@pytest.fixture(scope="module")
def keys() -> dict[str, tuple[str, str]]:
    """An old key and a new one, and their lines."""
    return {name: make_key(name) for name in ("old", "new")}


@pytest.fixture(scope="module")
def release(install: Install, kube: Kube, namespace: str, keys: dict[str, tuple[str, str]]) -> Release:
    """One pod that takes the old key."""
    put_secret(kube, namespace, keys["old"][1])
    return install("closed", {"replicas": 1, "auth": {"existingSecret": "callers"}})


def test_a_wrong_key_or_none_is_refused(release: Release, keys: dict[str, tuple[str, str]]) -> None:
    with release.forwarded() as url:
        assert status(release, url, keys["old"][0]) == 200
        assert status(release, url, keys["new"][0]) == 403
        assert status(release, url, None) == 401


def test_a_rotated_secret_counts_without_a_restart(
    release: Release, kube: Kube, namespace: str, keys: dict[str, tuple[str, str]], report: Report
) -> None:
    before = release.uids()
    put_secret(kube, namespace, keys["new"][1])
    # Any change of the pod makes the kubelet look at its Secrets now; by itself it does so every minute or so.
    kube.run("annotate", "pod", *release.names(), "-n", namespace, "e2e=look")
    with release.forwarded() as url:
        until(lambda: status(release, url, keys["new"][0]) == 200, "the new key's success", ROTATION_SECONDS, 2)
        until(lambda: status(release, url, keys["old"][0]) == 403, "the old key's end", 10)
    assert release.uids() == before
    assert release.restarts() == 0
