"""What a release looks like now: its slots, models, pods and shares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from prometheus_client.parser import text_string_to_metric_families

from muelle.rollout.cluster import Cluster, Object, name_of
from muelle.rollout.health import deployment_progress
from muelle.rollout.objects import replicas_of, serves
from muelle.rollout.operate import load_record
from muelle.rollout.reconcile import Live, read_live, unfinished
from muelle.rollout.record import SLOTS, Record, Slot
from muelle.rollout.release import Release
from muelle.rollout.wait import pods_of, port_of

Role = Literal["stable", "candidate", "idle"]
_METRICS_PATH: Final = "/metrics"
_READY_PATH: Final = "/readyz"
_INFO: Final = "muelle_model_info"
#: Pods of a slot that are asked; all serve the same but during an update.
_ASKED: Final = 3


@dataclass(frozen=True)
class Model:
    """A model that a pod says it has loaded; without a digest, one that it was only told to serve."""

    model: str
    version: str
    digest: str | None = None
    engine: str | None = None

    def __str__(self) -> str:
        return f"{self.model}@{self.version}" if self.version else self.model


@dataclass(frozen=True)
class SlotStatus:
    """One slot.

    Attributes
    ----------
    slot, role : str
    models : tuple of Model
        What its pods say; when none answers, what they were told to serve. Empty: all that there are.
    ready, wanted : int
        Pods.
    weight : int
        Its share of the requests, in per cent.
    since : str
        When its models were put there; empty when the chart's values did that.
    problem : str
        Why it isn't ready, if it isn't.
    """

    slot: Slot
    role: Role
    models: tuple[Model, ...]
    ready: int
    wanted: int
    weight: int
    since: str
    problem: str


@dataclass(frozen=True)
class Status:
    """A release.

    Attributes
    ----------
    stable, candidate : {"a", "b"}
    weight, mirror : int
        Per cent of the requests that the candidate gets, and sees copies of.
    header : str
        The testers' header when it leads to the candidate, such as ``X-Muelle-Slot``; else empty.
    since : str
        When traffic was last changed.
    unfinished : bool
        Whether the objects in the cluster are not as the record says.
    """

    release: str
    namespace: str
    backend: str
    stable: Slot
    candidate: Slot | None
    weight: int
    mirror: int
    header: str
    since: str
    unfinished: bool
    slots: tuple[SlotStatus, ...]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON document."""
        return asdict(self)


def read_status(cluster: Cluster, release: Release) -> Status:
    """Ask the cluster and the pods.

    Raises
    ------
    RolloutError
        When the API can't be used, or the release isn't as the chart makes it.
    """
    stored, record = load_record(cluster, release)
    live = read_live(cluster, release)
    return Status(
        release=release.name,
        namespace=release.namespace,
        backend=release.backend,
        stable=record.stable,
        candidate=record.candidate,
        weight=record.weight,
        mirror=record.mirror,
        header=release.header if record.header else "",
        since=record.since,
        unfinished=stored is not None and unfinished(record, release, live),
        slots=tuple(_slot_status(cluster, release, record, live, slot) for slot in SLOTS),
    )


def _slot_status(cluster: Cluster, release: Release, record: Record, live: Live, slot: Slot) -> SlotStatus:
    deployment = live.deployments[slot]
    wanted = replicas_of(deployment)
    pods = pods_of(cluster, release, slot) if wanted else []
    # What an empty slot would serve that no rollback goes to is nobody's concern.
    told = _told(serves(deployment)) if wanted or slot in record.slots else ()
    said = _said(cluster, [pod for pod in pods if _is_ready(pod)])
    answers = {
        name_of(pod): text
        for pod in [pod for pod in pods if not _is_ready(pod)][:_ASKED]
        if (text := cluster.ask_pod(name_of(pod), port_of(pod), _READY_PATH)) is not None
    }
    progress = deployment_progress(deployment, pods, answers)
    entry = record.slots.get(slot)
    return SlotStatus(
        slot=slot,
        role=_role(record, slot),
        models=said or told,
        ready=int((deployment.get("status") or {}).get("readyReplicas", 0)),
        wanted=wanted,
        weight=_weight(record, slot),
        since=entry.since if entry is not None else "",
        problem="" if progress.ready or not wanted else progress.reason,
    )


def _said(cluster: Cluster, pods: Sequence[Object]) -> tuple[Model, ...]:
    found: dict[Model, None] = {}
    for pod in pods[:_ASKED]:
        where = name_of(pod), port_of(pod), _METRICS_PATH
        # A pod that serves does answer: what was in the way the first time has hardly to do with it.
        text = cluster.ask_pod(*where) or cluster.ask_pod(*where)
        found.update(dict.fromkeys(_loaded(text or "")))
    return tuple(found)


def _loaded(text: str) -> Iterable[Model]:
    """Return the models in a page of metrics; none when it is no such page."""
    try:
        families = [family for family in text_string_to_metric_families(text) if family.name == _INFO]
    except ValueError:
        return
    for family in families:
        for sample in family.samples:
            labels = sample.labels
            yield Model(labels.get("model", ""), labels.get("version", ""), labels.get("digest"), labels.get("engine"))


def _told(serve: str) -> tuple[Model, ...]:
    parts = [item.strip().partition("@") for item in serve.split(",") if item.strip()]
    return tuple(Model(name, version) for name, _, version in parts)


def _role(record: Record, slot: Slot) -> Role:
    if slot == record.stable:
        return "stable"
    return "candidate" if slot == record.candidate else "idle"


def _weight(record: Record, slot: Slot) -> int:
    if slot == record.stable:
        return 100 - record.weight
    return record.weight if slot == record.candidate else 0


def _is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(item.get("type") == "Ready" and item.get("status") == "True" for item in conditions)
