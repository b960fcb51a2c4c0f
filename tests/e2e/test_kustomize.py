"""``k8s/``: every overlay as a user has it, with a folder of one's own on top, as docs/how-to/kustomize.md shows it."""

from __future__ import annotations

import json
import math
import os
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster import Kube, until
from images import ROOT, Images
from release import GATEWAY, Release

Lossless = Callable[..., None]
Report = Callable[[object], None]

GUIDE = (ROOT / "docs" / "how-to" / "kustomize.md").read_text()
#: What differs in tests only: small pods, of which a small machine holds many.
SMALL = {
    "target": {"kind": "Deployment"},
    "patch": json.dumps(
        [
            {
                "op": "replace",
                "path": "/spec/template/spec/containers/0/resources/requests",
                "value": {"cpu": "50m", "memory": "128Mi"},
            },
            {
                "op": "add",
                "path": "/spec/template/spec/containers/0/env/-",
                "value": {"name": "MUELLE_WORKERS", "value": "1"},
            },
        ]
    ),
}
TESTER = {"X-Muelle-Slot": "candidate"}
#: Standard deviations; of the binomial distribution here, less than 1 in 100 000 is outside of them.
SIGMAS = 4.6


@contextmanager
def a_namespace(kube: Kube, name: str) -> Iterator[None]:
    """Make a namespace that enforces restricted Pod Security, and delete it afterwards."""
    kube.run("delete", "namespace", name, "--ignore-not-found", "--wait", timeout=140)
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    try:
        yield
    finally:
        kube.run("delete", "namespace", name, "--wait=false", check=False)


def in_the_guide(command: str, **different: str) -> str:
    """Return a command of the guide, with names that differ here put in."""
    assert command in GUIDE, f"not in the guide: {command}"
    for name, value in different.items():
        command = command.replace(name, value)
    return command


def own_overlay(overlay: str) -> dict[str, Any]:
    """Return the guide's example of a folder of one's own, on top of an overlay."""
    document = yaml.safe_load(GUIDE.partition("```yaml\n")[2].partition("```")[0])
    assert document["resources"] == ["../k8s/overlays/canary"]
    document["resources"] = [f"k8s/overlays/{overlay}"]
    if overlay != "canary":
        *document["patches"], route = document["patches"]
        assert "kind: HTTPRoute" in route["patch"]
    return document


class Applied(Release):
    """What was applied from a folder; the rest is as with a release of the chart."""

    def __init__(self, kube: Kube, images: Images, namespace: str, folder: Path, document: Mapping[str, Any]) -> None:
        super().__init__(kube, images, "muelle", namespace, {})
        self.folder = folder
        self.document = dict(document)

    def apply(self, changes: Sequence[Mapping[str, Any]] = (), *, check: bool = True) -> str:
        """Write the folder, with more patches if need be, and apply it; return what kubectl said."""
        tag = {"name": "muelle", "newName": "muelle", "newTag": self.images.e2e.rpartition(":")[2]}
        resources = [os.path.relpath(ROOT / path, self.folder) for path in self.document["resources"]]
        patches = [*self.document.get("patches", []), SMALL, *changes]
        document = {**self.document, "namespace": self.namespace, "resources": resources, "images": [tag]}
        (self.folder / "kustomization.yaml").write_text(yaml.safe_dump({**document, "patches": patches}))
        done = subprocess.run(
            ["kubectl", "apply", "--server-side", "-k", str(self.folder)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def run(self, command: str) -> str:
        """Run a command of the guide in this namespace."""
        there = in_the_guide(command, **{"--namespace muelle": f"--namespace {self.namespace}"})
        program, *arguments = shlex.split(there)
        if program == "muelle":
            return self.muelle(*arguments[: arguments.index("--namespace")]).stdout
        assert program == "kubectl"
        return self.kube.run(*arguments, timeout=200)


@pytest.fixture(scope="module")
def applied(kube: Kube, images: Images, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Apply a folder in a namespace of its own."""

    @contextmanager
    def applied(topic: str, document: Mapping[str, Any]) -> Iterator[Applied]:
        namespace = f"e2e-kustomize-{topic}"
        with a_namespace(kube, namespace):
            release = Applied(kube, images, namespace, tmp_path_factory.mktemp(topic), document)
            release.apply()
            yield release

    return applied


@pytest.fixture(scope="module")
def green(applied: Callable[..., Any]) -> Iterator[Applied]:
    """Blue/green: iris@1 in a, iris@2 in b, both ready."""
    with applied("green", own_overlay("blue-green")) as release:
        release.run("kubectl rollout status deployment/muelle-a --namespace muelle")
        release.run("kubectl rollout status deployment/muelle-b --namespace muelle")
        release.wait_settled()
        yield release


@pytest.fixture(scope="module")
def canary(applied: Callable[..., Any], gateway: None) -> Iterator[Applied]:
    """Canary: 90 % to iris@1 in a, 10 % to iris@2 in b."""
    document = own_overlay("canary")
    namespace, _, name = GATEWAY.partition("/")
    route = document["patches"][-1]
    text = route["patch"].replace("name: eg, namespace: default", f"name: {name}, namespace: {namespace}")
    route["patch"] = text.replace("iris.example.org", "muelle.e2e-kustomize-canary.e2e")
    with applied("canary", document) as release:
        assert release.host == "muelle.e2e-kustomize-canary.e2e"
        release.wait_ready("a")
        release.wait_ready("b")
        until(lambda: answered(release), "the gateway's first answer", 60)
        until(lambda: answered(release, TESTER) == "2", "the candidate's first answer", 60)
        release.wait_settled()
        yield release


def answered(release: Applied, headers: Mapping[str, str] | None = None) -> str:
    """Return the version that answers by way of the gateway; no answer is not yet one."""
    try:
        return release.predict_at_gateway(headers)[0]
    except OSError as error:
        raise AssertionError(repr(error)) from error


def test_an_overlay_as_it_is_serves_the_demo_models(kube: Kube, images: Images, tmp_path: Path) -> None:
    namespace = "e2e-kustomize-demo"
    base = os.path.relpath(ROOT / "k8s" / "overlays" / "blue-green", tmp_path)
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({"namespace": namespace, "resources": [base]}))
    with a_namespace(kube, namespace):
        kube.run("apply", "--server-side", "-k", str(tmp_path))
        kube.run("rollout", "status", "deployment/muelle-a", "-n", namespace, timeout=180)
        with kube.port_forward(namespace, "service/muelle", 80) as url:
            command = (
                "curl -s localhost:8080/predict -H 'Content-Type: application/json' "
                "-d '{\"features\": [5.1, 3.5, 1.4, 0.2]}'"
            )
            there = in_the_guide(command, **{"localhost:8080": url})
            answer = subprocess.run(shlex.split(there), capture_output=True, text=True, check=True, timeout=30).stdout
        assert json.loads(answer) == {"prediction": 0}


def test_dev_is_one_pod_behind_a_node_port_that_logs_everything(applied: Callable[..., Any]) -> None:
    with applied("dev", own_overlay("dev")) as release:
        release.wait_ready("a", 1)
        service = release.kube.get("service", "muelle", release.namespace)
        assert service["spec"]["type"] == "NodePort"
        assert service["spec"]["ports"][0]["nodePort"] > 0
        with release.forwarded() as url:
            assert release.predict(url)[0] == "1"
        (pod,) = release.names()
        lines = release.kube.run("logs", pod, "-n", release.namespace).splitlines()
        assert "debug" in {json.loads(line)["level"] for line in lines}
        assert not release.kube.get("pdb", namespace=release.namespace)["items"]


def test_the_switch_by_one_patch_and_back_loses_no_request(green: Applied, lossless: Lossless) -> None:
    before = green.uids()
    patch = (
        'kubectl patch service muelle --namespace muelle --patch \'{"spec": {"selector": {"muelle.io/slot": "b"}}}\''
    )
    with green.load() as load:
        load.wait_version("1", 100)
        green.run(patch)
        load.wait_version("2", 100)
        back = {"spec": {"selector": {"muelle.io/slot": "a"}}}
        green.kube.run("patch", "service", "muelle", "-n", green.namespace, "--patch", json.dumps(back))
        load.wait_version("1", 100)
    assert green.uids() == before
    lossless(load)


def test_the_commands_go_on_from_what_was_applied(green: Applied, lossless: Lossless) -> None:
    before = green.uids("b")
    with green.load() as load:
        green.run("muelle promote --keep --namespace muelle")
        load.wait_version("2", 100)
        assert green.uids("b") == before
        assert green.endpoints() == before
        green.run("muelle rollback --namespace muelle")
        load.wait_version("1", 100)
    assert green.endpoints() == green.uids("a")
    lossless(load)


def test_an_apply_undoes_nothing_without_saying_so(green: Applied) -> None:
    green.muelle("deploy", "iris@2")
    green.muelle("promote", "--keep")
    said = green.apply(check=False)
    conflict = 'error: Apply failed with 1 conflict: conflict with "muelle": .spec.selector'
    assert in_the_guide(conflict) in said
    assert green.endpoints() == green.uids("b")
    now = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "muelle"}}
    now["spec"] = {"selector": {"muelle.io/slot": "b"}}
    green.apply([{"patch": json.dumps(now)}])
    assert green.endpoints() == green.uids("b")


def test_the_canary_gets_its_share_and_all_testers(canary: Applied, lossless: Lossless, report: Report) -> None:
    with canary.load(via="gateway", limit=1200) as load:
        load.finish()
    lossless(load)
    got, total = load.result.by_version.get("2", 0), load.result.answered
    spread = SIGMAS * math.sqrt(total * 0.1 * 0.9)
    report(f"{got} of {total} by the candidate, {0.1 * total - spread:.0f}…{0.1 * total + spread:.0f} expected")
    assert abs(got - 0.1 * total) <= spread
    with canary.load(via="gateway", versions=["2"], headers=TESTER, limit=60) as testers:
        testers.finish()
    lossless(testers, what="testers")


def test_the_commands_move_the_canary_on(canary: Applied, lossless: Lossless) -> None:
    assert "10" in canary.run("muelle status --namespace muelle")
    before = canary.uids("b")
    with canary.load(via="gateway") as load:
        canary.run("muelle traffic 50 --namespace muelle")
        load.wait_version("2", 100)
        canary.run("muelle promote --namespace muelle")
        with canary.load(via="gateway", versions=["2"], limit=100) as after:
            after.finish()
    assert before <= canary.uids("b")
    lossless(load)
    lossless(after, what="after the promotion")
