"""One release of the chart: installed, changed, looked at, asked and put under load as a user would."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import loader
from cluster import Kube, until
from images import DOCUMENT, ROOT, Images
from load import Order

CHART = ROOT / "charts" / "muelle"
GATEWAY = os.environ.get("MUELLE_E2E_GATEWAY", "envoy-gateway-system/local")
GATEWAY_URL = os.environ.get("MUELLE_E2E_GATEWAY_URL", "http://127.0.0.1:30080")
INFER = "/v2/models/iris/infer"


def has_gateway(kube: Kube) -> bool:
    """Whether the cluster has the Gateway that `GATEWAY` names."""
    namespace, _, name = GATEWAY.partition("/")
    kind = "gateways.gateway.networking.k8s.io"
    return kube.exists("crd", kind) and kube.exists(kind, name, namespace)


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge values as helm does: maps key by key, everything else replaced."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


class Release:
    """A release in a namespace.

    Parameters
    ----------
    kube : Kube
        Where.
    images : Images
        What the models answer.
    name, namespace : str
        Of the release.
    values : mapping
        What it is installed with; `upgrade` merges into them.
    """

    def __init__(self, kube: Kube, images: Images, name: str, namespace: str, values: Mapping[str, Any]) -> None:
        self.kube = kube
        self.images = images
        self.name = name
        self.namespace = namespace
        self.values = dict(values)
        self.fullname = name if "muelle" in name else f"{name}-muelle"
        self.host = f"{name}.{namespace}.e2e"

    def install(self, *, wait: bool = True) -> None:
        """Install the chart."""
        self._helm("install", wait=wait)

    def upgrade(self, values: Mapping[str, Any] | None = None, *, wait: bool = True) -> None:
        """Upgrade with values merged over those it has."""
        self.values = merged(self.values, values or {})
        self._helm("upgrade", wait=wait)

    def uninstall(self) -> None:
        """Uninstall and wait until helm says so."""
        self.kube.helm("uninstall", self.name, "-n", self.namespace, "--ignore-not-found", "--wait", "--timeout=90s")

    def muelle(self, *args: str, check: bool = True, timeout: float = 180.0) -> subprocess.CompletedProcess[str]:
        """Run one of the operators' commands on this release."""
        where = ["--release", self.name, "--namespace", self.namespace]
        command = [sys.executable, "-m", "muelle.cli", *args, *where]
        # What steers the tests is none of the service's settings, of which an unknown one is an error.
        environ = {key: value for key, value in os.environ.items() if not key.startswith("MUELLE_")}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False, cwd=ROOT, env=environ
        )
        said = f"muelle {' '.join(args)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        assert not check or done.returncode == 0, said
        return done

    def status(self) -> Any:
        """Return what `muelle status` says, as a document."""
        return json.loads(self.muelle("status", "--output", "json").stdout)

    def selector(self, slot: str | None = None) -> str:
        """Return the label selector of its pods."""
        labels = f"app.kubernetes.io/instance={self.name},app.kubernetes.io/component=predictor"
        return labels + (f",muelle.io/slot={slot}" if slot else "")

    def pods(self, slot: str | None = None, *, ready: bool | None = None) -> list[Any]:
        """Return its pods that are not on their way out."""
        items = self.kube.get("pods", namespace=self.namespace, selector=self.selector(slot))["items"]
        there = [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]
        return [pod for pod in there if ready is None or is_ready(pod) == ready]

    def names(self, slot: str | None = None) -> list[str]:
        """Return its pods' names."""
        return sorted(pod["metadata"]["name"] for pod in self.pods(slot))

    def uids(self, slot: str | None = None) -> set[str]:
        """Return what tells its pods from any others, of the same name too."""
        return {pod["metadata"]["uid"] for pod in self.pods(slot)}

    def restarts(self, slot: str | None = None) -> int:
        """Return how often its containers were restarted."""
        return sum(
            status["restartCount"] for pod in self.pods(slot) for status in pod["status"].get("containerStatuses", [])
        )

    def wait_ready(self, slot: str = "a", replicas: int | None = None, seconds: float = 150.0) -> None:
        """Wait until a slot has that many ready pods, and no others; by default as many as its Deployment wants."""

        def complete() -> bool:
            wanted = self.deployment(slot)["spec"]["replicas"] if replicas is None else replicas
            return len(self.pods(slot)) == len(self.pods(slot, ready=True)) == wanted

        until(complete, f"{self.fullname}-{slot} ready with {replicas} pods", seconds)

    def wait_settled(self, seconds: float = 120.0) -> None:
        """Wait until every pod is ready, and those on their way out are gone: until then requests may be lost."""

        def settled() -> bool:
            items = self.kube.get("pods", namespace=self.namespace, selector=self.selector())["items"]
            return all("deletionTimestamp" not in pod["metadata"] and is_ready(pod) for pod in items)

        until(settled, f"{self.fullname} settled", seconds)

    def deployment(self, slot: str) -> Any:
        """Return a slot's Deployment."""
        return self.kube.get("deployment", f"{self.fullname}-{slot}", self.namespace)

    def endpoints(self, service: str | None = None) -> set[str]:
        """Return the uids of the pods that a Service (by default the front one) sends requests to."""
        selector = f"kubernetes.io/service-name={service or self.fullname}"
        slices = self.kube.get("endpointslices", namespace=self.namespace, selector=selector)["items"]
        return {
            endpoint["targetRef"]["uid"]
            for item in slices
            for endpoint in item.get("endpoints") or []
            if endpoint["conditions"].get("ready")
        }

    @contextlib.contextmanager
    def forwarded(self, target: str | None = None, port: int = 80) -> Iterator[str]:
        """Forward to the front Service, or another target; the value is its URL."""
        with self.kube.port_forward(self.namespace, target or f"service/{self.fullname}", port) as url:
            yield url

    def predict(self, url: str, headers: Mapping[str, str] | None = None) -> tuple[str, list[float]]:
        """Ask once; the version that answered and its probabilities."""
        body = json.dumps(DOCUMENT).encode()
        request = urllib.request.Request(
            url + INFER, body, {"Content-Type": "application/json", "Connection": "close", **(headers or {})}
        )
        with urllib.request.urlopen(request, timeout=15) as response:
            answer = json.load(response)
        return answer["model_version"], answer["outputs"][0]["data"]

    def predict_at_gateway(self, headers: Mapping[str, str] | None = None) -> tuple[str, list[float]]:
        """Ask once by way of the gateway."""
        return self.predict(GATEWAY_URL, {"Host": self.host, **(headers or {})})

    def metrics(self, pod: str) -> str:
        """Return a pod's metrics page."""
        return self.kube.run("get", "--raw", f"/api/v1/namespaces/{self.namespace}/pods/{pod}:8080/proxy/metrics")

    def answered(self, slot: str) -> float:
        """Return how many requests for predictions the pods of a slot have answered."""
        pages = [self.metrics(pod["metadata"]["name"]) for pod in self.pods(slot, ready=True)]
        lines = [line for page in pages for line in page.splitlines() if line.startswith("muelle_requests_total{")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def load(
        self,
        *,
        via: str = "service",
        rate: float = 60.0,
        seconds: float = 600.0,
        limit: int = 50_000,
        headers: Mapping[str, str] | None = None,
        versions: Sequence[str] = ("1", "2"),
        service: str | None = None,
        new: int = 2,
        kept: int = 2,
    ) -> loader.Load:
        """Return a load on the front Service, from a pod beside it, or on the gateway, from here.

        Parameters
        ----------
        via : {"service", "gateway"}
            The way in.
        rate, seconds, limit : float, float, int
            Of requests a second, and when it ends if nobody stops it.
        versions : sequence of str
            Which versions may answer.
        service : str, optional
            Another Service than the front one.
        new, kept : int
            Clients of each kind.
        """
        inside = via == "service"
        order = Order(
            url=(f"http://{service or self.fullname}" if inside else GATEWAY_URL) + INFER,
            document=DOCUMENT,
            expected={version: self.images.expected[version] for version in versions},
            headers={**({} if inside else {"Host": self.host}), **(headers or {})},
            rate=rate,
            seconds=seconds,
            limit=limit,
            new=new,
            kept=kept,
        )
        if not inside:
            return loader.Load(loader.local_command(), order)
        if not self.kube.exists("pod", loader.POD, self.namespace):
            loader.start_pod(self.kube, self.namespace, self.images.e2e)
        return loader.Load(loader.pod_command(self.namespace), order)

    def explain(self) -> str:
        """Return what a failure's message should end with: pods, and what happened last."""
        pods = self.kube.run("get", "pods", "-n", self.namespace, "-o", "wide", check=False)
        words = "\n".join(last_words(self.pods(ready=False)))
        return f"{pods}\n{words}\n{self.kube.events(self.namespace)}"

    def _helm(self, verb: str, *, wait: bool) -> None:
        flags = ["--wait", "--timeout=180s"] if wait else []
        try:
            self.kube.helm(
                verb,
                self.name,
                str(CHART),
                "-n",
                self.namespace,
                "-f",
                "-",
                *flags,
                stdin=json.dumps(self.values),
            )
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.explain()}") from error


def last_words(pods: Sequence[Any]) -> list[str]:
    """Return what containers that ended said last, init containers first."""
    words = []
    for pod in pods:
        for kind in ("initContainerStatuses", "containerStatuses"):
            for status in pod["status"].get(kind, []):
                ends = [state.get("terminated") for state in (status["state"], status.get("lastState", {}))]
                words += [f"{status['name']}: {end.get('reason')}: {end.get('message', '')}" for end in ends if end]
    return words


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod takes requests."""
    conditions = pod["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
