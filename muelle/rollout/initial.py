"""The record of a release that has none yet: what `helm install` made of its values. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from muelle.errors import RecordError
from muelle.rollout.cluster import Object
from muelle.rollout.objects import replicas_of
from muelle.rollout.record import SLOTS, Record, Slot, other
from muelle.rollout.release import Release
from muelle.rollout.traffic import Traffic


def initial_record(release: Release, traffic: Traffic, deployments: Mapping[Slot, Object], installed: str) -> Record:
    """Return a record of what there is.

    Parameters
    ----------
    traffic : Traffic
        Who is sent what now.
    deployments : mapping
        Both slots'.
    installed : str
        When the release was made, RFC 3339.

    Raises
    ------
    RecordError
        When it can't be told which slot is the stable one.
    """
    if traffic.front is None:
        raise RecordError(
            f"{release}: Service {release.fullname} selects both slots and there is no record of which is the stable "
            'one: end this canary as it was begun, with traffic.candidate="" in the chart\'s values'
        )
    stable, candidate = traffic.front, other(traffic.front)
    counts = {slot: replicas_of(deployments[slot]) for slot in SLOTS}
    if not counts[candidate]:
        return Record(stable, replicas={candidate: 0}, since=installed)
    # A canary that was begun by the chart's values goes on from where it is.
    pinned: dict[Slot, int] = {} if release.autoscaling else {candidate: counts[candidate]}
    record = Record(stable, candidate=candidate, replicas=pinned, since=installed)
    route = traffic.route
    if route is None:
        return record
    return Record(
        stable,
        candidate=candidate,
        weight=round(100 * route.share(candidate)),
        mirror=route.copies if route.copies_to == candidate else 0,
        header=route.testers == candidate,
        replicas=pinned,
        since=installed,
    )
