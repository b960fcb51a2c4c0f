"""What the end-to-end tests share: the cluster of the current context, images in its nodes, a namespace a module.

Nothing here knows what kind of cluster it is, but for how images get into its nodes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import cgroups
from cluster import Kube, until
from image_pods import FINALIZER, Pod
from images import Images, prepare_once
from loader import Load
from release import GATEWAY, Release, has_gateway, merged

#: Small enough that a laptop runs the whole of it.
DEFAULTS: dict[str, Any] = {
    "image": {"repository": "muelle", "tag": "e2e"},
    "slots": {"a": {"serve": ["iris@1"]}},
    "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
    "settings": {"workers": 1},
}

#: Files that take long; several processes share the work best when these begin first.
FIRST = (
    "test_howto.py",
    "test_operator_commands.py",
    "test_monitoring_standalone.py",
    "test_monitoring_operator.py",
    "test_changes_under_load.py",
    "test_canary_gateway.py",
    "test_broken_versions.py",
)
#: What only a cluster can do that says how a node's power is cut, or has an image of an S3 server.
OPT_IN = {"test_node_down.py": "MUELLE_E2E_NODE_DOWN", "test_models_from_s3.py": "MUELLE_E2E_S3_IMAGE"}
NEEDS = OPT_IN | {"test_cgroup_truth.py": "root, to make a cgroup in /sys/fs/cgroup"}
collect_ignore = [file for file, key in OPT_IN.items() if not os.environ.get(key)]
if not cgroups.writable():
    collect_ignore.append("test_cgroup_truth.py")


def pytest_report_header() -> list[str]:
    """Say what is left out, and how to have it."""
    return [f"e2e: without {file}, which needs {NEEDS[file]}" for file in collect_ignore]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first."""
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))


class Reports:
    """Prints what tests have reported, also those that ran in another process."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Print when a test is over, whether output is captured or not."""
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if report.when != "teardown" or reporter is None:
            return
        for name, text in report.user_properties:
            if name == "report":
                reporter.ensure_newline()
                reporter.write_line(f"  {report.nodeid.rpartition('::')[2]}: {text}")


def pytest_configure(config: pytest.Config) -> None:
    """Have reports printed."""
    config.pluginmanager.register(Reports(config), "e2e-reports")


@pytest.fixture(scope="session")
def kube() -> Kube:
    """The cluster."""
    return Kube()


@pytest.fixture(scope="session")
def images(kube: Kube) -> Images:
    """The images, in every node."""
    return prepare_once(kube.context)


@pytest.fixture(scope="module")
def namespace(kube: Kube, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the module's own, in which Pod Security is restricted."""
    name = namespace_for(request.module.__name__)
    with a_namespace(kube, name):
        yield name


@pytest.fixture(scope="module")
def install(kube: Kube, images: Images, namespace: str) -> Iterator[Callable[..., Release]]:
    """Install releases of the chart, that go again at the end of the module."""
    made: list[Release] = []

    def install(
        name: str = "m", values: Mapping[str, Any] | None = None, *, wait: bool = True, bare: bool = False
    ) -> Release:
        release = Release(kube, images, name, namespace, (values or {}) if bare else merged(DEFAULTS, values or {}))
        made.append(release)
        release.install(wait=wait)
        return release

    yield install
    for release in made:
        release.uninstall()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[object], None]:
    """Print a line when the test is over, passed or not."""

    def report(text: object) -> None:
        request.node.user_properties.append(("report", str(text)))

    return report


@pytest.fixture
def lossless(report: Callable[[object], None]) -> Callable[..., None]:
    """Report a load that has ended, and hold it to its bar: no failed request, unless a test says why some may."""

    def lossless(load: Load, *, most: int = 0, what: str = "") -> None:
        report(f"{what}: {load.result}" if what else load.result)
        assert load.result.failed <= most, f"{load.result.failed} of {load.result.sent} failed\n{load.result}"

    return lossless


@pytest.fixture(scope="session")
def gateway(kube: Kube) -> None:
    """A Gateway, the one that MUELLE_E2E_GATEWAY names."""
    if not has_gateway(kube):
        pytest.skip(f"the cluster has no Gateway {GATEWAY} (MUELLE_E2E_GATEWAY)")


@pytest.fixture(scope="session")
def cpu_figures(kube: Kube) -> None:
    """A metrics API, as metrics-server brings it."""
    if not kube.exists("apiservice", "v1beta1.metrics.k8s.io"):
        pytest.skip("the cluster has no metrics API: install metrics-server")
    until(lambda: kube.run("get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes"), "figures of metrics-server", 120)


def namespace_for(module: str) -> str:
    """Return a module's namespace: the same at every run, so that a killed run leaves nothing that piles up."""
    return f"e2e-{module.removeprefix('test_').replace('_', '-')[:40]}-{zlib.crc32(module.encode()) & 0xFFF:03x}"


@contextlib.contextmanager
def a_namespace(kube: Kube, name: str) -> Iterator[None]:
    """Make a namespace afresh and delete it afterwards."""
    release_pods(kube, name)
    kube.run("delete", "namespace", name, "--ignore-not-found", "--wait", "--timeout=120s", timeout=140)
    labels = {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/enforce-version": "latest",
    }
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    try:
        yield
    finally:
        kube.run("delete", "namespace", name, "--wait=false", check=False)


def release_pods(kube: Kube, namespace: str) -> None:
    """Let the pods go that a killed run's finalizer keeps, and the namespace with them."""
    for pod in kube.get("pods", namespace=namespace)["items"]:
        if FINALIZER in pod["metadata"].get("finalizers", []):
            Pod(kube, namespace, pod["metadata"]["name"]).release()
