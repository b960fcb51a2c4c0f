"""The slots' Deployments: which fields of them the record speaks of, and what they must be. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from muelle.errors import RecordError
from muelle.rollout.cluster import Object, name_of
from muelle.rollout.owned import Path, item, owns
from muelle.rollout.record import Record, Slot, SlotRecord, other
from muelle.rollout.release import Release

SERVE_ENV: Final = "MUELLE_SERVE"
FETCH_ENV: Final = "MUELLE_FETCH"
PREDICTOR: Final = "predictor"
FETCHER: Final = "fetch"
_REPLICAS: Final[Path] = ("f:spec", "f:replicas")
_POD: Final[Path] = ("f:spec", "f:template", "f:spec")


@dataclass(frozen=True)
class Change:
    """What to do to an object.

    Attributes
    ----------
    fields : object, optional
        What to apply; None when the values are right.
    given_up : tuple of paths
        Fields that are not ours afterwards; their values stay.
    """

    fields: Object | None
    given_up: tuple[Path, ...] = ()

    def __bool__(self) -> bool:
        return self.fields is not None or bool(self.given_up)


@dataclass(frozen=True)
class _Field:
    """One field of a pod template: its container, and the name of an environment variable, or "" for the image."""

    group: str
    container: str
    variable: str

    @property
    def path(self) -> Path:
        """The field in managedFields."""
        start = (*_POD, f"f:{self.group}", item(name=self.container))
        return (*start, "f:env", item(name=self.variable)) if self.variable else (*start, "f:image")

    def value(self, deployment: Object) -> str | None:
        """Return what it is in a Deployment."""
        container = _container(deployment, self.group, self.container)
        if container is None:
            return None
        if not self.variable:
            return str(container.get("image", ""))
        return next(
            (str(env.get("value", "")) for env in container.get("env") or [] if env["name"] == self.variable), None
        )


_IMAGE: Final = _Field("containers", PREDICTOR, "")
_SERVE: Final = _Field("containers", PREDICTOR, SERVE_ENV)
_FETCHER_IMAGE: Final = _Field("initContainers", FETCHER, "")
_FETCH: Final = _Field("initContainers", FETCHER, FETCH_ENV)


def replicas_of(deployment: Object) -> int:
    """Return how many pods a Deployment asks for."""
    return int(deployment["spec"].get("replicas", 1))


def serves(deployment: Object) -> str:
    """Return the models that a Deployment's pods are told to serve; empty means all that there are."""
    return _SERVE.value(deployment) or ""


def wanted_replicas(
    record: Record, release: Release, slot: Slot, deployments: Mapping[Slot, Object], *, waking: bool = False
) -> int:
    """Return how many pods a slot must have.

    Parameters
    ----------
    deployments : mapping
        Both slots', as they are.
    waking : bool
        Whether no pod is too few, even if an autoscaler has it so.
    """
    if slot in record.replicas:
        return record.replicas[slot]
    if not release.autoscaling:
        return release.replicas if slot in (record.stable, record.candidate) else 0
    now = replicas_of(deployments[slot])
    if now or not waking:
        return now
    # The autoscaler does nothing about 0; begin with what the load needs in the other slot now.
    return max(release.replicas, replicas_of(deployments[other(slot)]))


def deployment_change(
    record: Record,
    release: Release,
    slot: Slot,
    deployments: Mapping[Slot, Object],
    *,
    lower: bool,
    waking: bool = False,
) -> Change:
    """Return what to do to a slot's Deployment.

    Parameters
    ----------
    deployments : mapping
        Both slots', as they are.
    lower : bool
        Whether it may lose pods; if not, a number that is higher than wanted stays.
    waking : bool
        As for `wanted_replicas`.
    """
    mine = deployments[slot]
    if _container(mine, "containers", PREDICTOR) is None:
        raise RecordError(f"Deployment {name_of(mine)}: expected a container {PREDICTOR}")
    have = replicas_of(mine)
    number = wanted_replicas(record, release, slot, deployments, waking=waking)
    number = number if lower else max(number, have)
    values: dict[_Field, str] = {}
    given_up: list[Path] = []
    for field, pinned in _pins(record, release, slot):
        ours = owns(mine, field.path)
        if pinned:
            values[field] = pinned
        elif ours and (slot in record.slots or number == 0):
            # Back to what the chart's values say, which the other slot has, unless the record says something of it too:
            # then this one takes the same.
            values[field] = field.value(deployments[other(slot)]) or ""
            given_up.append(field.path)
        elif ours:
            values[field] = field.value(mine) or ""
    wrong = number != have or any(field.value(mine) != value for field, value in values.items())
    ours = owns(mine, _REPLICAS)
    sized = slot in record.replicas or ours or number != have
    if slot not in record.replicas and sized:
        given_up.append(_REPLICAS)
    return Change(_fields(number if sized else None, values) if wrong else None, tuple(given_up))


def _pins(record: Record, release: Release, slot: Slot) -> list[tuple[_Field, str]]:
    """Return the template's fields that a record may speak of, and what it says; empty when it says nothing."""
    entry = record.slots.get(slot, SlotRecord())
    pins = [(_SERVE, entry.serve), (_IMAGE, entry.image)]
    if release.models_from == "fetch":
        pins += [(_FETCH, entry.fetch), (_FETCHER_IMAGE, entry.image)]
    return pins


def _fields(replicas: int | None, values: Mapping[_Field, str]) -> Object:
    spec: Object = {} if replicas is None else {"replicas": replicas}
    containers: dict[tuple[str, str], Object] = {}
    for field, value in values.items():
        container = containers.setdefault((field.group, field.container), {"name": field.container})
        if field.variable:
            container.setdefault("env", []).append({"name": field.variable, "value": value})
        else:
            container["image"] = value
    if containers:
        pod: Object = {}
        for (group, _), container in containers.items():
            pod.setdefault(group, []).append(container)
        spec["template"] = {"spec": pod}
    return {"spec": spec}


def _container(deployment: Object, group: str, name: str) -> Any:
    found = deployment["spec"]["template"]["spec"].get(group) or []
    return next((container for container in found if container["name"] == name), None)
