"""What a rollout needs of a cluster; `muelle.rollout.kube` has it from a real one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Protocol

#: A Kubernetes object as the API writes it: JSON.
Object = dict[str, Any]
Kind = Literal["Service", "Deployment", "HTTPRoute", "ConfigMap"]
ListKind = Literal["Service", "Pod", "EndpointSlice"]


class Cluster(Protocol):
    """One namespace of a cluster. Every method raises `ClusterError` when the API can't be used."""

    @property
    def namespace(self) -> str:
        """The namespace."""

    def read(self, kind: Kind, name: str) -> Object | None:
        """Return an object, or None when there is none of that name."""

    def list(self, kind: ListKind, labels: Mapping[str, str]) -> Sequence[Object]:
        """Return the objects that have all these labels."""

    def apply(self, kind: Kind, name: str, fields: Object, resource_version: str) -> Object:
        """Apply fields as the manager ``muelle``, by force; `ConflictError` when the object is another by now."""

    def disown(self, kind: Kind, name: str, managed_fields: Sequence[Object], resource_version: str) -> Object:
        """Write who manages which field, and nothing else; `ConflictError` as above."""

    def create(self, kind: Kind, document: Object) -> Object:
        """Create an object; `ConflictError` when there is one of that name."""

    def replace(self, kind: Kind, document: Object) -> Object:
        """Replace an object; `ConflictError` when its resourceVersion is no longer the document's."""

    def ask_pod(self, pod: str, port: int, path: str) -> str | None:
        """Return what a pod answers to a GET, whatever the status; None when it does not answer at all."""


class Clock(Protocol):
    """Time, so that tests need not wait."""

    def now(self) -> datetime:
        """Return the time of day."""

    def monotonic(self) -> float:
        """Return seconds since some moment."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


def name_of(thing: Object) -> str:
    """Return an object's name."""
    return str(thing["metadata"]["name"])


def version_of(thing: Object) -> str:
    """Return an object's resourceVersion."""
    return str(thing["metadata"].get("resourceVersion", ""))
