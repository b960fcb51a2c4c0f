"""A release: the facts that the chart writes on its front Service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, cast

from muelle.errors import RecordError, RefusedError
from muelle.rollout.cluster import Cluster, Object, name_of
from muelle.rollout.record import Slot

Backend = Literal["service", "replicas", "gateway"]
ModelsFrom = Literal["image", "volume", "fetch"]

SLOT_LABEL: Final = "muelle.io/slot"
NAME_LABEL: Final = "app.kubernetes.io/name"
INSTANCE_LABEL: Final = "app.kubernetes.io/instance"
COMPONENT_LABEL: Final = "app.kubernetes.io/component"
#: The pods that answer requests.
COMPONENT: Final = "predictor"
APP: Final = "muelle"
#: What a tester's request has in the header.
TESTERS_VALUE: Final = "candidate"
_PREFIX: Final = "muelle.io/"
_BACKENDS: Final = ("service", "replicas", "gateway")
_SOURCES: Final = ("image", "volume", "fetch")


@dataclass(frozen=True)
class Release:
    """What doesn't change between two `helm upgrade`.

    Attributes
    ----------
    name, namespace : str
        Helm's names.
    fullname : str
        The name of the front Service, and how the slots' names begin.
    uid : str
        The front Service's, for the record's owner reference.
    backend : {"service", "replicas", "gateway"}
        What shares requests out.
    replicas : int
        Pods of a full slot; under an autoscaler its minimum.
    autoscaling : bool
        Whether an autoscaler owns the slots' replicas.
    header : str
        The testers' header.
    models_from : {"image", "volume", "fetch"}
        Where the pods have their models from.
    """

    name: str
    namespace: str
    fullname: str
    uid: str
    backend: Backend
    replicas: int
    autoscaling: bool
    header: str
    models_from: ModelsFrom

    @property
    def labels(self) -> dict[str, str]:
        """The labels that every object of the release has."""
        return {NAME_LABEL: APP, INSTANCE_LABEL: self.name}

    @property
    def record_name(self) -> str:
        """The name of the ConfigMap with the record."""
        return f"{self.fullname}-rollout"

    def slot_name(self, slot: Slot) -> str:
        """Return the name of a slot's Deployment and Service."""
        return f"{self.fullname}-{slot}"

    def __str__(self) -> str:
        return f"release {self.name} in namespace {self.namespace}"

    @classmethod
    def from_service(cls, service: Object, namespace: str) -> Release:
        """Read the facts from the front Service's annotations.

        Raises
        ------
        RecordError
            When one is missing or has no known value.
        """
        meta = service["metadata"]
        where = f"Service {name_of(service)}"
        annotations = meta.get("annotations") or {}

        def fact(key: str, allowed: Sequence[str] = ()) -> str:
            value = annotations.get(_PREFIX + key)
            if not value or (allowed and value not in allowed):
                expected = f"one of {', '.join(allowed)}" if allowed else "a value"
                raise RecordError(f"{where}: annotation {_PREFIX}{key}: expected {expected}, got {value!r}")
            return str(value)

        replicas = fact("replicas")
        if not (replicas.isascii() and replicas.isdecimal() and int(replicas) >= 1):
            raise RecordError(f"{where}: annotation {_PREFIX}replicas: expected a positive number, got {replicas!r}")
        return cls(
            name=(meta.get("labels") or {})[INSTANCE_LABEL],
            namespace=namespace,
            fullname=name_of(service),
            uid=str(meta["uid"]),
            backend=cast("Backend", fact("backend", _BACKENDS)),
            replicas=int(replicas),
            autoscaling=fact("autoscaling", ("true", "false")) == "true",
            header=fact("header"),
            models_from=cast("ModelsFrom", fact("models-from", _SOURCES)),
        )


def find_release(cluster: Cluster, name: str | None) -> Release:
    """Return the release of that name, or the only one in the namespace.

    Raises
    ------
    RefusedError
        When there is none, or there are several and none was named.
    RecordError
        When its facts can't be read.
    """
    fronts = {
        str(service["metadata"]["labels"].get(INSTANCE_LABEL)): service
        for service in cluster.list("Service", {NAME_LABEL: APP})
        if f"{_PREFIX}backend" in (service["metadata"].get("annotations") or {})
    }
    known = ", ".join(sorted(fronts))
    if name is not None:
        if name not in fronts:
            raise RefusedError(
                f"no release {name!r} of Muelle in namespace {cluster.namespace}; there is {known or 'none'}"
            )
        return Release.from_service(fronts[name], cluster.namespace)
    if not fronts:
        raise RefusedError(
            f"no release of Muelle in namespace {cluster.namespace}: install one with helm, "
            "or name another namespace with --namespace"
        )
    if len(fronts) > 1:
        raise RefusedError(f"several releases in namespace {cluster.namespace}: name one with --release: {known}")
    return Release.from_service(next(iter(fronts.values())), cluster.namespace)
