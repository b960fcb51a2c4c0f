"""The record of a release that has none yet: what `helm install` made of its values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from muelle.errors import RecordError
from muelle.rollout.cluster import Object, name_of
from muelle.rollout.objects import replicas_of
from muelle.rollout.record import SLOTS, Record, Slot, other
from muelle.rollout.release import Release
from muelle.rollout.traffic import Traffic

#: What the chart says of the front Service. Older than the record, once there is one.
_STABLE: Final = "muelle.io/stable"


def initial_record(release: Release, traffic: Traffic, deployments: Mapping[Slot, Object], service: Object) -> Record:
    """Return a record of what there is.

    Parameters
    ----------
    traffic : Traffic
        Who is sent what now.
    deployments : mapping
        Both slots'.
    service : object
        The front Service.

    Raises
    ------
    RecordError
        When it can't be told which slot is the stable one.
    """
    installed = str(service["metadata"].get("creationTimestamp", ""))
    counts = {slot: replicas_of(deployments[slot]) for slot in SLOTS}
    front, route = traffic.front, traffic.route
    if front is not None and not counts[other(front)]:
        return Record(front, replicas={other(front): 0}, since=installed)
    # With a gateway the front Service stays with the stable slot; else it leads to a candidate that gets everything.
    stable = front if front is not None and route is not None else _said_stable(release, service)
    candidate = other(stable)
    # A canary that was begun by the chart's values goes on from where it is.
    pinned: dict[Slot, int] = {} if release.autoscaling else {candidate: counts[candidate]}
    if route is None:
        weight = {None: _share_of_pods(counts, candidate), stable: 0, candidate: 100}[front]
        # Both slots' pods are the shares.
        pods = counts if front is None else pinned
        return Record(stable, candidate=candidate, weight=weight, replicas=pods, since=installed)
    return Record(
        stable,
        candidate=candidate,
        weight=round(100 * route.share(candidate)),
        mirror=route.copies if route.copies_to == candidate else 0,
        header=route.testers == candidate,
        replicas=pinned,
        since=installed,
    )


def _said_stable(release: Release, service: Object) -> Slot:
    said = (service["metadata"].get("annotations") or {}).get(_STABLE)
    if said not in SLOTS:
        raise RecordError(
            f"{release}: both slots are in use and there is no record of which is the stable one. "
            f"Service {name_of(service)}: annotation {_STABLE}: expected a or b, got {said!r}: "
            "`helm upgrade` with the chart of this version writes it"
        )
    return cast("Slot", said)


def _share_of_pods(counts: Mapping[Slot, int], slot: Slot) -> int:
    """Return a slot's share in per cent where all pods get the same; between 1 and 99 when both slots have pods."""
    share = round(100 * counts[slot] / (sum(counts.values()) or 1))
    return min(99, max(1, share)) if all(counts.values()) else share
