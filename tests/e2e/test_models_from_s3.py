"""Models that live in an object store: pushed, installed from there by digest, and moved to the next version."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from cluster import Kube, until
from images import ROOT, Images
from release import Release

ACCESS = {"AWS_ACCESS_KEY_ID": "muelle", "AWS_SECRET_ACCESS_KEY": "correct-horse", "AWS_REGION": "us-east-1"}
ENDPOINT = "http://s3:7070"


def server(image: str) -> list[dict[str, Any]]:
    """Return an S3 server, and the Secret with which the release is let in; the image is any that has a Python."""
    common = {
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    # A folder in the server's own is a bucket.
    bucket = {
        "name": "bucket",
        "image": image,
        "command": ["python", "-c", "import os; os.makedirs('/data/models')"],
        **common,
    }
    container = {
        "name": "s3",
        "image": os.environ["MUELLE_E2E_S3_IMAGE"],
        "imagePullPolicy": "IfNotPresent",
        "args": ["--port", ":7070", "--region", "us-east-1", "posix", "--nometa", "/data"],
        "env": [
            {"name": "ROOT_ACCESS_KEY_ID", "value": ACCESS["AWS_ACCESS_KEY_ID"]},
            {"name": "ROOT_SECRET_ACCESS_KEY", "value": ACCESS["AWS_SECRET_ACCESS_KEY"]},
        ],
        "readinessProbe": {"tcpSocket": {"port": 7070}, "periodSeconds": 1},
        **common,
    }
    spec = {
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [bucket],
        "containers": [container],
        "volumes": [{"name": "data", "emptyDir": {}}],
    }
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "store"}, "stringData": ACCESS}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "s3", "labels": {"app": "s3"}}, "spec": spec}
    ports = [{"name": "s3", "port": 7070}]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s3"},
        "spec": {"selector": {"app": "s3"}, "ports": ports},
    }
    return [secret, pod, service]


def push(url: str, bundle: str, target: str) -> str:
    """Push a bundle as a user would, and return the line that it prints: URL@digest."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("MUELLE_")}
    done = subprocess.run(
        [sys.executable, "-m", "muelle.cli", "push", bundle, target, "--insecure"],
        env={**own, **ACCESS, "AWS_ENDPOINT_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split()[0]


def entry(reference: str) -> Mapping[str, str]:
    """Return a reference as the chart's values have it."""
    url, _, digest = reference.rpartition("@")
    return {"url": url, "digest": digest}


@pytest.fixture(scope="module")
def pushed(
    kube: Kube, namespace: str, images: Images, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Bundle to its reference in the store: two versions of iris and one of another model."""
    kube.apply(server(images.e2e), namespace)
    kube.wait("condition=Ready", "pod/s3", namespace)
    folder = tmp_path_factory.mktemp("models")
    run = [sys.executable, "-m", "muelle.cli", "train", "linear", "--repository", str(folder)]
    subprocess.run(run, check=True, capture_output=True, cwd=ROOT, timeout=120)
    bundles = {f"iris@{version}": images.repository / "iris" / version for version in ("1", "2")}
    bundles["linear"] = next((folder / "linear").iterdir())
    with kube.port_forward(namespace, "pod/s3", 7070) as url:
        yield {name: push(url, str(path), f"s3://models/{name.replace('@', '/')}") for name, path in bundles.items()}


@pytest.fixture(scope="module")
def release(install: Callable[..., Release], pushed: dict[str, str]) -> Release:
    """A release of two models from the store."""
    fetch = {
        "existingSecret": "store",
        "env": [{"name": "AWS_ENDPOINT_URL", "value": ENDPOINT}],
        "insecureHttp": True,
        "bundles": [entry(pushed["iris@1"]), entry(pushed["linear"])],
    }
    values = {"replicas": 1, "slots": {"a": {"serve": []}}, "models": {"from": "fetch", "fetch": fetch}}
    return install("stored", values)


def test_a_release_serves_two_models_from_an_object_store(release: Release, images: Images) -> None:
    status = release.status()
    served = {model["model"]: model for slot in status["slots"] if slot["slot"] == "a" for model in slot["models"]}
    assert set(served) == {"iris", "linear"}
    assert served["iris"]["digest"] == images.digests["1"]
    with release.forwarded() as url:
        assert release.predict(url) == ("1", pytest.approx(images.expected["1"]))


def test_the_next_version_is_deployed_from_the_store_and_promoted_without_a_lost_request(
    release: Release, pushed: dict[str, str], lossless: Callable[..., None]
) -> None:
    with release.load() as load:
        load.wait(sent=50)
        release.muelle("deploy", "iris@2", "--from", pushed["iris@2"])
        release.muelle("promote", "--drain-seconds", "10")
        load.wait_version("2")
    lossless(load)
    until(lambda: len(release.pods()) == 1, "only the new slot left")
