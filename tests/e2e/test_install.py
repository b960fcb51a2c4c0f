"""From nothing to an answer with no values at all, and back to nothing."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable

import pytest
from cluster import Kube, until
from images import Images
from release import Release

Install = Callable[..., Release]
Report = Callable[[object], None]

#: What everybody waits at most for the first answer, the image being in the node.
FIRST_ANSWER_SECONDS = 60.0
#: Kinds that a namespace has or keeps by itself.
OF_THE_NAMESPACE = {"events", "events.events.k8s.io", "pods.metrics.k8s.io"}

WRITE = """
import errno, pathlib
for folder in ("/", "/opt/muelle", "/models", "/home"):
    try:
        pathlib.Path(folder, "written").write_text("x")
    except OSError as error:
        print(folder, errno.errorcode[error.errno])
    else:
        raise SystemExit(f"{folder}: could be written to")
"""


@pytest.fixture(scope="module")
def bare(install: Install, images: Images) -> tuple[Release, float]:
    """A release without any values, and when it began; the image is in the node already."""
    started = time.monotonic()
    return install("demo", bare=True, wait=False), started


def test_helm_install_without_values_answers_curl_within_a_minute(bare: tuple[Release, float], report: Report) -> None:
    release, started = bare
    release.kube.run("rollout", "status", "deployment", f"{release.fullname}-a", "-n", release.namespace, timeout=180)
    with release.forwarded() as url:
        command = ["curl", "-sS", f"{url}/predict", "-H", "Content-Type: application/json"]
        command += ["-d", '{"features": [5.1, 3.5, 1.4, 0.2]}']
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    seconds = time.monotonic() - started
    report(f"helm install → curl answered {answer.strip()} after {seconds:.1f} s")
    assert json.loads(answer) == {"prediction": 0}
    assert seconds < FIRST_ANSWER_SECONDS


def test_helm_test_sends_a_real_prediction(bare: tuple[Release, float], report: Report) -> None:
    release, _ = bare
    said = release.kube.helm("test", release.name, "-n", release.namespace, "--timeout=90s", "--logs")
    report(said.strip().splitlines()[-1])
    assert "Succeeded" in said


def test_the_file_system_is_read_only_and_the_service_works(bare: tuple[Release, float], report: Report) -> None:
    release, _ = bare
    said = release.kube.exec(release.namespace, release.names()[0], "python", "-c", WRITE)
    report(said.replace("\n", "; "))
    assert "/ EROFS" in said


def test_pods_run_without_root_privileges_or_token(bare: tuple[Release, float]) -> None:
    release, _ = bare
    look = "import os; print(os.getuid(), os.path.exists('/var/run/secrets/kubernetes.io/serviceaccount/token'))"
    assert release.kube.exec(release.namespace, release.names()[0], "python", "-c", look).split() == ["65532", "False"]


def test_uninstall_leaves_nothing_but_claims(install: Install, kube: Kube, namespace: str, report: Report) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "models"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    kube.apply(claim, namespace)
    # While an API that is served by another program is away, kubectl lists no kinds at all.
    before = until(lambda: everything(kube, namespace), "a list of all objects", 60)
    release = install("gone", {"autoscaling": {"enabled": True}, "networkPolicy": {"enabled": True}})
    release.muelle("deploy", "iris@2")
    made = until(lambda: everything(kube, namespace) - before, "a list of what was made", 60)
    release.uninstall()

    def left() -> set[str]:
        return everything(kube, namespace) - before

    until(lambda: not left(), "nothing left", 90)
    until(lambda: "persistentvolumeclaims/models" in everything(kube, namespace), "the claim that stays", 60)
    report(f"{len(made)} objects were there, none is left, and the claim stays")


def everything(kube: Kube, namespace: str) -> set[str]:
    """Return kind and name of every object of a namespace."""
    kinds = kube.run("api-resources", "--namespaced", "--verbs=list", "-o", "name").split()
    wanted = ",".join(sorted(set(kinds) - OF_THE_NAMESPACE))
    names = ["-o", "custom-columns=A:.apiVersion,K:.kind,N:.metadata.name", "--no-headers", "--ignore-not-found"]
    lines = kube.run("get", wanted, "-n", namespace, *names).splitlines()
    return {f"{kind.lower()}s/{name}" for _, kind, name in (line.split() for line in lines)}
