"""Waiting for the cluster, with an end."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from muelle.errors import StuckError
from muelle.rollout.cluster import Clock, Cluster, Object, name_of
from muelle.rollout.health import Progress, deployment_progress, endpoints_progress, newest, route_progress
from muelle.rollout.objects import PREDICTOR, replicas_of
from muelle.rollout.record import SLOTS, Slot
from muelle.rollout.release import SLOT_LABEL, Release

_POLL_SECONDS: Final = 1.0
#: What looks hopeless must do so this many times in a row: a controller may be in the middle of something.
_PATIENCE: Final = 5
_READY_PATH: Final = "/readyz"
_DEFAULT_PORT: Final = 8080
#: Pods whose `/readyz` is read in one look.
_ASKED: Final = 2

Say = Callable[[str], None]


class Waiter:
    """Waits for a release's objects.

    Parameters
    ----------
    cluster, release : Cluster, Release
    clock : Clock
    timeout_seconds : float
        For each thing that is waited for.
    say : callable
        Takes a line about what it waits for, each time that it is another.
    """

    def __init__(self, cluster: Cluster, release: Release, clock: Clock, timeout_seconds: float, say: Say) -> None:
        self._cluster = cluster
        self._release = release
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._say = say

    def slot(self, slot: Slot, at_most_seconds: float = math.inf) -> None:
        """Wait until all pods of a slot are ready; raises `StuckError` with the reason."""
        self._until(f"slot {slot}", lambda: self._look_at_slot(slot), at_most_seconds)

    def route(self) -> None:
        """Wait until the gateway serves the route as it is; raises `StuckError` with the reason."""
        name = self._release.fullname

        def look() -> Progress:
            route = self._cluster.read("HTTPRoute", name)
            return Progress(False, "it is gone", True) if route is None else route_progress(route)

        self._until(f"HTTPRoute {name}", look)

    def front(self, front: Slot | None) -> None:
        """Wait until the front Service's endpoints are pods of this slot, or of both; raises `StuckError`."""
        name = self._release.fullname

        def look() -> Progress:
            slices = self._cluster.list("EndpointSlice", {"kubernetes.io/service-name": name})
            pods = {slot: frozenset(map(name_of, pods_of(self._cluster, self._release, slot))) for slot in SLOTS}
            wanted = [pods[slot] for slot in SLOTS if front in (None, slot) and not self._sleeps(slot)]
            others = frozenset[str]() if front is None else frozenset().union(*pods.values()) - pods[front]
            return endpoints_progress(slices, wanted, others)

        self._until(f"Service {name}", look)

    def _sleeps(self, slot: Slot) -> bool:
        """Whether an autoscaler has taken all pods, so that there are no endpoints to wait for."""
        deployment = self._cluster.read("Deployment", self._release.slot_name(slot))
        return self._release.autoscaling and deployment is not None and not replicas_of(deployment)

    def _look_at_slot(self, slot: Slot) -> Progress:
        name = self._release.slot_name(slot)
        deployment = self._cluster.read("Deployment", name)
        if deployment is None:
            return Progress(False, f"Deployment {name} is gone", True)
        pods = pods_of(self._cluster, self._release, slot)
        found = deployment_progress(deployment, pods, {})
        if found.ready:
            return found
        # Not those of an earlier attempt, which stay until the new ones are ready.
        asked = [pod for pod in newest(pods) if _runs_unready(pod)][:_ASKED]
        answers = {name_of(pod): self._cluster.ask_pod(name_of(pod), port_of(pod), _READY_PATH) for pod in asked}
        return deployment_progress(deployment, pods, {pod: text for pod, text in answers.items() if text is not None})

    def _until(self, what: str, look: Callable[[], Progress], at_most_seconds: float = math.inf) -> None:
        seconds = min(self._timeout_seconds, at_most_seconds)
        end = self._clock.monotonic() + seconds
        told, hopeless = "", 0
        while not (found := look()).ready:
            hopeless = hopeless + 1 if found.hopeless else 0
            if hopeless >= _PATIENCE:
                raise StuckError(f"{what} does not get ready: {found.reason}")
            if self._clock.monotonic() >= end:
                raise StuckError(f"{what} is not ready after {seconds:g} s: {found.reason}")
            if found.reason != told:
                told = found.reason
                self._say(f"  {what}: {told}")
            self._clock.sleep(_POLL_SECONDS)


def pods_of(cluster: Cluster, release: Release, slot: Slot) -> list[Object]:
    """Return a slot's pods."""
    return list(cluster.list("Pod", {**release.labels, SLOT_LABEL: slot}))


def port_of(pod: Object) -> int:
    """Return the port that a pod's predictor answers on."""
    for container in pod["spec"].get("containers") or []:
        for port in container.get("ports") or []:
            if container["name"] == PREDICTOR and port.get("name") == "http":
                return int(port["containerPort"])
    return _DEFAULT_PORT


def _runs_unready(pod: Object) -> bool:
    status = pod.get("status") or {}
    ready = any(item.get("type") == "Ready" and item.get("status") == "True" for item in status.get("conditions") or [])
    return status.get("phase") == "Running" and not ready
