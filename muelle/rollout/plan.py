"""From a command and the record to the records that lead where the command wants to be. Pure.

Each stage's record is safe to be brought about by anybody at any time, `helm upgrade` included: pods are added in one
stage, traffic moves in the next, and what lost it loses its pods in a third. A command that was killed can be repeated:
it plans from the record that it left behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from muelle.errors import RefusedError
from muelle.rollout.record import Record, Slot, SlotRecord
from muelle.rollout.release import Release
from muelle.rollout.shares import pods_for, pods_to_carry

_SOURCES: Final = {"image": "the image", "volume": "a volume", "fetch": "a store"}
_NO_CANDIDATE: Final = "there is no candidate: put one into the idle slot with `muelle deploy NAME@VERSION`"


@dataclass(frozen=True)
class Stage:
    """One record on the way, and what must hold before the next.

    Attributes
    ----------
    record : Record
        What is wanted.
    doing : str
        The line that tells of it.
    ready : tuple of slots
        Whose pods must all be ready at the end, besides those of slots whose share of the traffic grows.
    drain : bool
        Whether the slot that lost its traffic has time to end its connections before this begins.
    relaxed : bool
        Whether a single ready pod of a slot is enough when the others don't come.
    settled : bool
        Whether the gateway and the front Service's endpoints must have followed, be it that an earlier command changed
        them. They are waited for in any case when this stage does.
    pods_only : bool
        Whether traffic stays where the objects have it, even where an earlier command wanted more: what it was about to
        go to may be what is being left.
    """

    record: Record
    doing: str
    ready: tuple[Slot, ...] = ()
    drain: bool = False
    relaxed: bool = False
    settled: bool = False
    pods_only: bool = False


@dataclass(frozen=True)
class Wish:
    """What `muelle traffic` is to change; None stays as it is."""

    weight: int | None = None
    mirror: int | None = None
    header: bool | None = None


def deploy(record: Record, release: Release, content: SlotRecord, *, replicas: int | None) -> tuple[Stage, ...]:
    """Put models into the slot that isn't stable, without traffic.

    What `content` leaves empty is as in the stable slot.

    Raises
    ------
    RefusedError
        When the candidate gets requests, or the release can't do what is asked.
    """
    slot = record.idle
    if record.candidate is not None and record.weight:
        raise RefusedError(
            f"slot {slot} is a candidate with {record.weight} % of the traffic: "
            "`muelle promote` or `muelle rollback` it first"
        )
    if content.fetch and release.models_from != "fetch":
        raise RefusedError(
            f"{release} has its models from {_SOURCES[release.models_from]}, so --from has no meaning here: "
            "models.from=fetch in the chart's values lets pods fetch them"
        )
    if replicas is not None and release.autoscaling:
        raise RefusedError(f"{release} has an autoscaler, which says how many pods there are: leave out --replicas")
    stable = record.slots.get(record.stable, SlotRecord())
    content = replace(content, fetch=content.fetch or stable.fetch, image=content.image or stable.image)
    old = record.slots.get(slot)
    if old is not None and old.same_content(content):
        content = old
    stages = []
    if record.gets_requests(slot):
        quiet = replace(record, mirror=0, header=False)
        stages.append(Stage(quiet, f"no more copies or testers' requests to slot {slot}"))
        record = quiet
    size = replicas
    if size is None:
        size = release.replicas if release.backend == "service" else 1
        if record.candidate is not None:
            size = max(size, record.replicas.get(slot, 1))
    wanted = replace(
        record,
        candidate=slot,
        replicas=_sized(record, release, {slot: size}),
        slots={**record.slots, slot: content},
    )
    stages.append(Stage(wanted, f"putting {content.serve} into slot {slot}", ready=(slot,)))
    return tuple(stages)


def set_traffic(record: Record, release: Release, wish: Wish) -> tuple[Stage, ...]:
    """Give the candidate a share of the requests, the testers' requests, or copies.

    Raises
    ------
    RefusedError
        When there is no candidate, or the release can't give that share.
    """
    candidate = record.candidate
    if candidate is None:
        raise RefusedError(_NO_CANDIDATE)
    weight = record.weight if wish.weight is None else wish.weight
    mirror = record.mirror if wish.mirror is None else wish.mirror
    header = record.header if wish.header is None else wish.header
    if release.backend != "gateway":
        if mirror or header:
            raise RefusedError(
                f"{release} has the {release.backend} backend: "
                "a testers' header and copies of requests need traffic.backend=gateway"
            )
        if release.backend == "service" and weight not in (0, 100):
            raise RefusedError(
                f"{release} has the service backend, in which a candidate has 0 or 100 % of the traffic, not {weight}: "
                "shares need traffic.backend=gateway, or replicas"
            )
    target = _pods(record, release, candidate, weight, mirror)
    enough = {slot: max(count, record.replicas.get(slot, release.replicas)) for slot, count in target.items()}
    raised = replace(record, replicas=_sized(record, release, enough))
    if weight == 0:
        raised = replace(raised, replicas=_without(raised.replicas, record.stable))
    moved = replace(raised, weight=weight, mirror=mirror, header=header)
    lowered = replace(moved, replicas=_sized(moved, release, target))
    growing = [candidate] if moved.gets_requests(candidate) else []
    if weight < record.weight:
        growing = [record.stable]
    return (
        Stage(raised, "pods for the new shares", ready=tuple(growing)),
        Stage(moved, _shares(moved), settled=True),
        Stage(lowered, "pods that are no longer needed"),
    )


def promote(record: Record, release: Release, *, keep: bool) -> tuple[Stage, ...]:
    """Make the candidate the stable slot; its pods stay the same ones.

    Raises
    ------
    RefusedError
        When there is no candidate.
    """
    candidate = record.candidate
    if candidate is None:
        if _is_up(record, record.idle) and not keep:
            return (_emptied(record, record.idle),)
        raise RefusedError(_NO_CANDIDATE)
    old = record.stable
    full = replace(record, replicas=_sized(record, release, {candidate: release.replicas}))
    moved = replace(
        full,
        stable=candidate,
        candidate=None,
        weight=0,
        mirror=0,
        header=False,
        # The stable slot has what the values say; the old one keeps its pods, and all of them if it is to stay warm.
        replicas=_sized(full, release, {old: release.replicas if keep else full.replicas.get(old, release.replicas)}),
        # An entry for the old slot is what lets `rollback` go back to it.
        slots={old: SlotRecord(since=record.since), **record.slots},
    )
    moved = replace(moved, replicas=_without(moved.replicas, candidate))
    stages = [
        Stage(full, f"a full slot {candidate}", ready=(candidate,)),
        Stage(moved, f"slot {candidate} becomes the stable one", ready=(candidate,)),
    ]
    if not keep:
        stages.append(_emptied(moved, old))
    return tuple(stages)


def rollback(record: Record, release: Release) -> tuple[Stage, ...]:
    """Take back the candidate, or after a promotion go back to the slot before it.

    Raises
    ------
    RefusedError
        When there is neither.
    """
    if record.candidate is not None:
        return _withdraw(record, release, record.candidate)
    old, target = record.stable, record.idle
    if target not in record.slots:
        if _is_up(record, target):
            return (_emptied(record, target),)
        raise RefusedError(
            f"there is nothing to roll back to: slot {old} is stable, and slot {target} holds no earlier version"
        )
    raised = replace(record, replicas=_sized(record, release, {target: release.replicas}))
    moved = replace(
        raised,
        stable=target,
        replicas=_sized(raised, release, {old: raised.replicas.get(old, release.replicas)}),
        # What was rolled back is no place to roll back to: the command may be repeated.
        slots={target: record.slots[target]},
    )
    moved = replace(moved, replicas=_without(moved.replicas, target))
    return (
        Stage(raised, f"pods of slot {target}", ready=(target,), pods_only=True),
        Stage(moved, f"slot {target} becomes the stable one again", ready=(target,), relaxed=True),
        _emptied(moved, old),
    )


def _withdraw(record: Record, release: Release, candidate: Slot) -> tuple[Stage, ...]:
    raised = replace(record, replicas=_without(record.replicas, record.stable))
    moved = replace(raised, weight=0, mirror=0, header=False)
    gone = replace(
        moved,
        candidate=None,
        replicas={**moved.replicas, candidate: 0},
        slots=_without(moved.slots, candidate),
    )
    stages = [Stage(moved, f"all traffic to slot {record.stable}", relaxed=True)]
    if release.backend == "replicas" and raised != record:
        # Otherwise its few pods would get everything at once.
        full = Stage(raised, f"a full slot {record.stable}", ready=(record.stable,), relaxed=True, pods_only=True)
        stages.insert(0, full)
    return (*stages, Stage(gone, f"slot {candidate} is emptied", drain=True, settled=True))


def _emptied(record: Record, slot: Slot) -> Stage:
    return Stage(
        replace(record, replicas={**record.replicas, slot: 0}), f"slot {slot} is emptied", drain=True, settled=True
    )


def _is_up(record: Record, slot: Slot) -> bool:
    return record.replicas.get(slot) != 0


def _pods(record: Record, release: Release, candidate: Slot, weight: int, mirror: int) -> dict[Slot, int]:
    """Return how many pods each slot must have at the end; a slot that isn't there keeps what it has."""
    total = release.replicas
    if release.autoscaling:
        if release.backend == "replicas" and weight not in (0, 100):
            raise RefusedError(
                f"{release} has an autoscaler, which changes the numbers of pods, so the replicas backend can't hold "
                f"{weight} %: only 0 and 100, or traffic.backend=gateway"
            )
        return {}
    if release.backend == "replicas" and 0 < weight < 100:
        pods = pods_for(weight, total)
        return {candidate: pods, record.stable: total - pods}
    if weight == 0 and not mirror:
        return {}
    return {candidate: max(pods_to_carry(weight + mirror, total), record.replicas.get(candidate, total))}


def _sized(record: Record, release: Release, sizes: Mapping[Slot, int]) -> dict[Slot, int]:
    """Return the record's replicas with these; under an autoscaler a slot that is up has none."""
    if release.autoscaling:
        return {slot: count for slot, count in record.replicas.items() if slot not in sizes}
    return {**record.replicas, **sizes}


def _without(items: Mapping[Slot, Any], slot: Slot) -> dict[Slot, Any]:
    return {key: value for key, value in items.items() if key != slot}


def _shares(record: Record) -> str:
    parts = [f"{record.weight} % of the traffic to slot {record.candidate}"]
    if record.header:
        parts.append("testers' requests too")
    if record.mirror:
        parts.append(f"copies of {record.mirror} %")
    return ", ".join(parts)
