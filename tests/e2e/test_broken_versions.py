"""A version or a change that cannot work takes no request, says why, and leaves what served before alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from cluster import Kube, until
from images import FLIPPED, SKEWED, Images
from release import Release, last_words

Install = Callable[..., Release]
Lossless = Callable[..., None]
Report = Callable[[object], None]

#: Seconds that a candidate is waited for, which takes a few when it is good: the reason is there once it has failed.
PATIENCE = "60"


@pytest.fixture(scope="module")
def release(install: Install) -> Release:
    """Two pods that serve iris@1, and go on doing so whatever is tried beside them."""
    return install("sound", {"models": {"default": "iris"}})


@pytest.fixture
def undisturbed(release: Release) -> Iterator[set[str]]:
    """The pods that serve, which must be the same afterwards; the candidate goes again."""
    before = release.uids("a")
    yield before
    release.muelle("rollback", "--drain-seconds", "1", check=False)
    assert release.uids("a") == before


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize(
    ("version", "reason"), [(FLIPPED, "SHA-256"), (SKEWED, "scikit-learn")], ids=["bad-digest", "wrong-library"]
)
def test_a_candidate_that_is_refused_takes_no_request_and_says_why(
    release: Release, version: str, reason: str, lossless: Lossless, report: Report
) -> None:
    with release.load(versions=["1"]) as load:
        said = release.muelle("deploy", f"iris@{version}", "--timeout", "90", check=False)
        load.wait(sent=50)
    text = (said.stdout + said.stderr).strip()
    report(text.splitlines()[-1])
    assert said.returncode == 1
    assert "does not get ready" in text, "it should not have waited for what never comes"
    assert reason in text
    assert not release.pods("b", ready=True)
    lossless(load)


@pytest.fixture(scope="module")
def fetched(install: Install, images: Images, kube: Kube, namespace: str) -> Release:
    """One pod that fetched iris@1 from a plain web server in the cluster."""
    kube.apply(web_server(images.e2e), namespace)
    kube.wait("condition=Ready", "pod/files", namespace)
    bundle = {"url": "http://files:8000/iris/1", "digest": images.digests["1"]}
    values = {
        "replicas": 1,
        "models": {"from": "fetch", "fetch": {"insecureHttp": True}},
        "slots": {"a": {"fetch": [bundle]}},
    }
    return install("fetched", values)


@pytest.mark.parametrize(
    ("source", "patience", "reason"),
    # `muelle fetch` itself goes on for half a minute when nobody answers.
    [
        ("http://files:9/iris/2@{good}", "100", "files:9"),
        ("http://files:8000/iris/2@{wrong}", PATIENCE, "found sha256:"),
    ],
    ids=["url-down", "another-digest"],
)
def test_a_candidate_that_cannot_be_fetched_takes_no_request_and_says_why(
    fetched: Release,
    images: Images,
    source: str,
    patience: str,
    reason: str,
    lossless: Lossless,
    report: Report,
) -> None:
    before = fetched.uids("a")
    url = source.format(good=images.digests["2"], wrong=f"sha256:{'0' * 64}")
    with fetched.load(versions=["1"]) as load:
        said = fetched.muelle("deploy", "iris@2", "--from", url, "--timeout", patience, check=False)
        load.wait(sent=50)
    text = (said.stdout + said.stderr).strip()
    report(text.splitlines()[-1])
    fetched.muelle("rollback", "--drain-seconds", "1", check=False)
    assert said.returncode == 1
    assert reason in text.splitlines()[-1]
    assert fetched.uids("a") == before
    lossless(load)


def web_server(image: str) -> list[dict[str, Any]]:
    """Return a pod that serves the image's models as plain files, and its Service."""
    container = {
        "name": "files",
        "image": image,
        "command": ["python", "-m", "http.server", "8000", "--directory", "/models"],
        "readinessProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec = {
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    ports = [{"name": f"p{port}", "port": port} for port in (8000, 9)]
    return [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "files", "labels": {"app": "files"}}, "spec": spec},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "files"},
            "spec": {"selector": {"app": "files"}, "ports": ports},
        },
    ]


@pytest.fixture
def mended(release: Release) -> Iterator[Mapping[str, Any]]:
    """The values that work, which a test leaves and this brings back."""
    good = json.loads(json.dumps(release.values))
    before = release.uids()
    yield good
    release.values = dict(good)
    release.upgrade()
    release.wait_settled()
    assert release.uids() == before, "the pods that served were never touched"


def waiting_or_last(release: Release) -> list[Any]:
    """Return the states of containers that are not running, now or before."""
    states = []
    for pod in release.pods(ready=False):
        for status in pod["status"].get("containerStatuses", []):
            states += [*status["state"].values(), *status.get("lastState", {}).values()]
    return states


def problems(release: Release) -> str:
    """Return what `muelle status` says is wrong."""
    return "; ".join(slot["problem"] for slot in release.status()["slots"] if slot["problem"])


@pytest.mark.usefixtures("mended")
def test_a_change_that_crashes_takes_no_request_and_says_why(
    release: Release, lossless: Lossless, report: Report
) -> None:
    """The schema lets no wrong setting by, but a ConfigMap of one's own can hold anything."""
    slip = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tuning"}, "data": {"MUELLE_WRKERS": "2"}}
    release.kube.apply(slip, release.namespace)
    with release.load(versions=["1"]) as load:
        release.upgrade({"extraEnvFrom": [{"configMapRef": {"name": "tuning"}}]}, wait=False)
        until(lambda: release.restarts() >= 1, "a pod that was restarted", 60)
        said = until(lambda: [words for words in last_words(release.pods()) if "WRKERS" in words], "last words", 30)
        load.wait(sent=50)
        shown = problems(release)
    report(f"last words: {said[0].strip()}; muelle status: {shown}")
    assert "did you mean MUELLE_WORKERS" in said[0]
    assert "MUELLE_WRKERS" in shown
    lossless(load)


@pytest.mark.usefixtures("mended")
def test_a_change_that_runs_out_of_memory_takes_no_request_and_says_why(
    release: Release, lossless: Lossless, report: Report
) -> None:
    tiny = {"requests": {"memory": "24Mi"}, "limits": {"memory": "24Mi"}}
    with release.load(versions=["1"]) as load:
        release.upgrade({"resources": tiny, "tmpSizeLimit": "8Mi"}, wait=False)
        reasons = until(
            lambda: {s.get("reason") for s in waiting_or_last(release)} & {"OOMKilled"}, "a pod out of memory", 90
        )
        # Of a later crash the kubelet may know the exit code alone.
        shown = until(lambda: next((said for said in [problems(release)] if "memory" in said), ""), "said so", 60)
        load.wait(sent=50)
    report(f"the new pod: {', '.join(reasons)}; muelle status: {shown}")
    lossless(load)
