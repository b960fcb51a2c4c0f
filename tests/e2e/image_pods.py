"""Pods of an image alone, without the chart: `docker run`, under the strictest rules that a cluster has."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cluster import Kube, until

CONTAINER = "muelle"
#: Nobody's: no user of the image has this number, or a home.
ANY_UID = 1_234_567
#: Stands in for whoever has to look at a pod after it has ended.
FINALIZER = "muelle.io/e2e"


@dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Pod:
    """One pod that there is."""

    kube: Kube
    namespace: str
    name: str

    def ready(self, seconds: float = 180.0) -> Pod:
        """Wait until it is ready."""

        def now() -> bool:
            status = self.status()
            if status.get("phase") in ("Failed", "Succeeded"):
                raise RuntimeError(f"pod {self.name} ended: {json.dumps(status)}\n{self.logs()}")
            conditions = {condition["type"]: condition["status"] for condition in status.get("conditions", [])}
            assert conditions.get("Ready") == "True", f"{json.dumps(status.get('containerStatuses'))}\n{self.logs()}"
            return True

        until(now, f"pod {self.name} ready", seconds)
        return self

    def ended(self, seconds: float = 180.0) -> int:
        """Wait until its container has ended and return the exit code."""

        def code() -> list[int]:
            statuses = self.status().get("containerStatuses", [])
            return [state["exitCode"] for status in statuses if (state := status["state"].get("terminated"))]

        return until(code, f"pod {self.name} ended", seconds)[0]

    def status(self) -> dict[str, Any]:
        """Return its status."""
        status: dict[str, Any] = self.kube.get("pod", self.name, self.namespace)["status"]
        return status

    def logs(self) -> str:
        """Return what its container printed."""
        return self.kube.run("logs", "-n", self.namespace, self.name, "-c", CONTAINER, check=False)

    def python(self, code: str) -> str:
        """Run some Python in it and return what it printed."""
        return self.kube.exec(self.namespace, self.name, "python", "-c", code, container=CONTAINER).strip()

    def shell(self, line: str) -> str:
        """Run a shell's line in it and return what it printed."""
        return self.kube.exec(self.namespace, self.name, "sh", "-c", line, container=CONTAINER).strip()

    @contextmanager
    def url(self, port: int) -> Iterator[str]:
        """Forward a local port to it; the value is the URL."""
        with self.kube.port_forward(self.namespace, f"pod/{self.name}", port) as url:
            yield url

    def delete(self) -> None:
        """Ask for its end, with the usual 30 s of grace, and return at once."""
        self.kube.run("delete", "pod", self.name, "-n", self.namespace, "--wait=false")

    def release(self) -> None:
        """Let a pod that `FINALIZER` keeps go."""
        patch = json.dumps({"metadata": {"finalizers": None}})
        self.kube.run("patch", "pod", self.name, "-n", self.namespace, "--type=merge", "-p", patch)


def ask(url: str, path: str, document: object = None) -> Answer:
    """Send a GET, or a POST of JSON, and return the answer whatever its status."""
    data = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"} if data else {})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return Answer(response.status, response.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.read())


def manifest(
    name: str,
    image: str,
    args: Sequence[str] = (),
    *,
    env: Mapping[str, str] | None = None,
    port: int = 8080,
    uid: int | None = None,
    mounts: Mapping[str, str] | None = None,
    init: Mapping[str, str] | None = None,
    kept: bool = False,
) -> dict[str, Any]:
    """Return a pod that Pod Security calls restricted, with a read-only root file system.

    Parameters
    ----------
    name, image, args, env : see Kubernetes
    port : int
        Where it answers /readyz.
    uid : int, optional
        What to run as; by default as the image says, which must then be a number that isn't 0.
    mounts : mapping
        Empty volumes: name to path. /tmp is always one.
    init : mapping
        Python code that runs before, in the same image: the name of a volume to code, which finds it at /scratch.
    kept : bool
        Whether the pod is to be seen after it has ended, until `Pod.release`.
    """
    volumes = {"tmp": "/tmp", **(mounts or {})}
    secured = {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    user = {} if uid is None else {"runAsUser": uid}
    container = {
        "name": CONTAINER,
        "image": image,
        "securityContext": secured,
        "volumeMounts": [{"name": volume, "mountPath": path} for volume, path in volumes.items()],
        "env": [{"name": key, "value": value} for key, value in (env or {}).items()],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": port}, "periodSeconds": 1},
        # Several start at once; without a request they would get what all others leave.
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
    }
    if args:
        container["args"] = list(args)
    before = [
        {
            "name": f"init-{volume}",
            "image": image,
            "command": ["python", "-c", code],
            "securityContext": secured,
            "volumeMounts": [{"name": volume, "mountPath": "/scratch"}, {"name": "tmp", "mountPath": "/tmp"}],
        }
        for volume, code in (init or {}).items()
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **({"finalizers": [FINALIZER]} if kept else {})},
        "spec": {
            "automountServiceAccountToken": False,
            "restartPolicy": "Never",
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}, **user},
            "initContainers": before,
            "containers": [container],
            "volumes": [{"name": volume, "emptyDir": {}} for volume in volumes],
        },
    }
