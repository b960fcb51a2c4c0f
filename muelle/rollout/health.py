"""Why something isn't ready, in the words of the cluster. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from muelle.rollout.cluster import Object, name_of
from muelle.rollout.objects import FETCHER, PREDICTOR, replicas_of

#: Waiting for these ends by itself only when a person does something.
_HOPELESS_WAITING: Final = frozenset(
    {
        "CreateContainerConfigError",
        "CreateContainerError",
        "ErrImageNeverPull",
        "ImagePullBackOff",
        "InvalidImageName",
        "RunContainerError",
    }
)
#: A container that ended badly so often does so for a reason that lasts; once may be a server that was away.
_HOPELESS_RESTARTS: Final = 2
_HASH_LABEL: Final = "pod-template-hash"
_MESSAGE_CHARACTERS: Final = 500


@dataclass(frozen=True)
class Progress:
    """Whether something is as it must be.

    Attributes
    ----------
    ready : bool
    reason : str
        What it waits for; empty when ready.
    hopeless : bool
        Whether waiting will not help.
    """

    ready: bool
    reason: str = ""
    hopeless: bool = False


READY: Final = Progress(True)


def deployment_progress(deployment: Object, pods: Sequence[Object], answers: Mapping[str, str]) -> Progress:
    """Say whether all pods of a Deployment are of its newest template and ready.

    Parameters
    ----------
    deployment : object
    pods : sequence of objects
        Its pods, old ones among them.
    answers : mapping
        Name of a pod to what its ``/readyz`` answered.
    """
    status = deployment.get("status") or {}
    want = replicas_of(deployment)
    if status.get("observedGeneration", 0) < deployment["metadata"].get("generation", 0):
        return Progress(False, "the cluster has not seen the change yet")
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    if updated >= want and status.get("replicas", 0) <= updated and min(available, updated) >= want:
        return READY
    troubles = [trouble for pod in newest(pods) if (trouble := pod_trouble(pod, answers.get(name_of(pod))))]
    failure = _condition(status, "ReplicaFailure")
    if failure.get("status") == "True":
        message = str(failure.get("message", ""))
        # A quota has room again when other pods have gone.
        troubles.insert(0, Progress(False, message, hopeless="exceeded quota" not in message))
    counts = f"{min(available, updated)} of {want} pods ready"
    if not troubles:
        return Progress(False, counts)
    worst = next((trouble for trouble in troubles if trouble.hopeless), troubles[0])
    return Progress(False, f"{counts}; {worst.reason}", worst.hopeless)


def pod_trouble(pod: Object, answer: str | None) -> Progress | None:
    """Return what keeps a pod from being ready; None when it is."""
    status = pod.get("status") or {}
    if _condition(status, "Ready").get("status") == "True":
        return None
    found = _why(status, answer)
    return Progress(False, f"pod {name_of(pod)}: {found.reason}", found.hopeless)


def _why(status: Any, answer: str | None) -> Progress:
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("status") == "False":
        return Progress(False, f"no node takes it: {scheduled.get('message') or scheduled.get('reason')}")
    if status.get("phase") == "Failed":
        return Progress(False, f"it failed: {status.get('message') or status.get('reason')}")
    starting = "it is starting"
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(kind) or []:
            if found := _container_trouble(container):
                return found
            if container["name"] == FETCHER and "running" in (container.get("state") or {}):
                last = (container.get("lastState") or {}).get("terminated")
                starting = "it fetches its models" + (f" again: container {FETCHER} {_ended(last)}" if last else "")
    running = [item for item in status.get("containerStatuses") or [] if "running" in (item.get("state") or {})]
    predictor = next((item for item in running if item["name"] == PREDICTOR), None)
    if predictor is None:
        return Progress(False, starting)
    found = _not_ready(answer)
    last = (predictor.get("lastState") or {}).get("terminated")
    # Between two crashes it looks as if it were only slow.
    return Progress(False, f"{found.reason}; before, it {_ended(last)}", found.hopeless) if last else found


def _container_trouble(container: Any) -> Progress | None:
    state, restarts = container.get("state") or {}, int(container.get("restartCount", 0))
    name = container["name"]
    waiting, terminated = state.get("waiting") or {}, state.get("terminated") or {}
    reason = waiting.get("reason", "")
    if reason == "CrashLoopBackOff":
        last = (container.get("lastState") or {}).get("terminated") or {}
        return Progress(False, f"container {name} {_ended(last)}", restarts >= _HOPELESS_RESTARTS)
    if reason in _HOPELESS_WAITING or reason == "ErrImagePull":
        message = _short(waiting.get("message", ""))
        return Progress(False, f"container {name}: {reason}: {message}", reason in _HOPELESS_WAITING)
    if terminated and terminated.get("exitCode") != 0:
        return Progress(False, f"container {name} {_ended(terminated)}", restarts >= _HOPELESS_RESTARTS)
    return None


def _ended(terminated: Any) -> str:
    code, reason = terminated.get("exitCode"), terminated.get("reason")
    said = _short(terminated.get("message") or "")
    if reason == "OOMKilled":
        return "was killed because it used more memory than its limit"
    return f"ended with exit code {code}" + (f": {said}" if said else f" ({reason})" if reason else "")


def _not_ready(answer: str | None) -> Progress:
    """Read what ``/readyz`` says: a list of reasons, in which what still loads says so."""
    try:
        reasons = json.loads(answer or "")["reasons"]
        texts = [str(reason) for reason in reasons]
    except (ValueError, TypeError, KeyError):
        return Progress(False, "it runs, and is not ready yet")
    if not texts:
        return Progress(False, "it runs, and is not ready yet")
    loading = any(text == "loading" or text.endswith(": loading") for text in texts)
    return Progress(False, _short("; ".join(texts)), hopeless=not loading)


def route_progress(route: Object) -> Progress:
    """Say whether every gateway that has the route serves it as it is now."""
    generation = route["metadata"].get("generation", 0)
    namespace = route["metadata"].get("namespace")
    said_by = {
        _gateway(parent["parentRef"], namespace): parent for parent in (route.get("status") or {}).get("parents") or []
    }
    for ref in route["spec"].get("parentRefs") or []:
        gateway = ref["name"]
        parent = said_by.get(_gateway(ref, namespace))
        if parent is None:
            return Progress(False, f"gateway {gateway} has not taken it up: is there one of that name?")
        for kind in ("Accepted", "ResolvedRefs"):
            condition = _condition(parent, kind)
            if condition.get("observedGeneration", 0) < generation:
                return Progress(False, f"gateway {gateway} has not seen the change yet")
            if condition.get("status") != "True":
                said = f"{condition.get('reason')}: {condition.get('message')}"
                return Progress(False, f"gateway {gateway} says {kind} is {condition.get('status')}: {said}", True)
    return READY


def _gateway(ref: Any, namespace: str | None) -> tuple[object, ...]:
    """Return what tells one reference to a gateway from another."""
    return ref.get("namespace") or namespace, ref["name"], ref.get("sectionName"), ref.get("port")


def endpoints_progress(slices: Sequence[Object], wanted: Sequence[frozenset[str]], others: frozenset[str]) -> Progress:
    """Say whether a Service's endpoints are those of the right pods.

    Parameters
    ----------
    slices : sequence of objects
        The Service's EndpointSlices.
    wanted : sequence of sets
        For each slot that the Service selects, its pods' names: of each there must be one.
    others : set
        Names of pods that must not be among them.
    """
    names = {
        str((endpoint.get("targetRef") or {}).get("name"))
        for part in slices
        for endpoint in part.get("endpoints") or []
        if (endpoint.get("conditions") or {}).get("ready", True)
    }
    if names & others or not all(names & pods for pods in wanted):
        return Progress(False, "its endpoints have not changed yet")
    return READY


def newest(pods: Sequence[Object]) -> list[Object]:
    """Return the pods of the newest template, of which there may be none yet."""
    alive = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    alive.sort(key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), reverse=True)

    def hash_of(pod: Object) -> str:
        return str((pod["metadata"].get("labels") or {}).get(_HASH_LABEL, ""))

    return [pod for pod in alive if hash_of(pod) == hash_of(alive[0])]


def _condition(status: Any, kind: str) -> Any:
    return next((item for item in status.get("conditions") or [] if item.get("type") == kind), {})


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MESSAGE_CHARACTERS else "…" + text[1 - _MESSAGE_CHARACTERS :]
