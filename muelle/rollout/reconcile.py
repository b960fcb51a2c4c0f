"""Brings the objects of a release to its record, from wherever they are.

The order makes every moment in between safe, so that it may be interrupted anywhere and done again:

1. slots get the pods and models that the record asks for, but lose no pod;
2. slots that will be sent more than now become ready;
3. the HTTPRoute, then the front Service are changed, and taken up;
4. slots lose the pods that are too many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from muelle.errors import ConflictError, RecordError, RolloutError, StuckError
from muelle.rollout.cluster import Clock, Cluster, Kind, Object, version_of
from muelle.rollout.objects import Change, deployment_change, wanted_replicas
from muelle.rollout.owned import owns, without
from muelle.rollout.record import SLOTS, Record, Slot
from muelle.rollout.release import Release
from muelle.rollout.traffic import RULES, Traffic, rules_fields, seen, selector_fields, wanted
from muelle.rollout.wait import Say, Waiter

#: Controllers write to the same objects all the time; each time the object is read anew.
_ATTEMPTS: Final = 10
_RETRY_SECONDS: Final = 0.2
#: How long a stage that can do with fewer pods waits for all of them: what is left in haste may be answering badly.
_RELAXED_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Live:
    """The objects of a release that a record speaks of."""

    deployments: dict[Slot, Object]
    service: Object
    route: Object | None


@dataclass(frozen=True)
class Outcome:
    """What was done: anything at all; and whether traffic moved."""

    changed: bool
    moved: bool


def read_live(cluster: Cluster, release: Release) -> Live:
    """Read the objects.

    Raises
    ------
    RecordError
        When one is missing that the chart makes.
    """

    def required(kind: Kind, name: str) -> Object:
        found = cluster.read(kind, name)
        if found is None:
            raise RecordError(f"{release}: expected a {kind} {name}, but there is none")
        return found

    return Live(
        deployments={slot: required("Deployment", release.slot_name(slot)) for slot in SLOTS},
        service=required("Service", release.fullname),
        route=required("HTTPRoute", release.fullname) if release.backend == "gateway" else None,
    )


def unfinished(record: Record, release: Release, live: Live) -> bool:
    """Whether the objects are not as the record says."""
    return wanted(record, release) != seen(release, live.service, live.route) or any(
        deployment_change(record, release, slot, live.deployments, lower=True).fields for slot in SLOTS
    )


class Reconciler:
    """Brings a release's objects to records.

    Parameters
    ----------
    cluster, release : Cluster, Release
    waiter : Waiter
    clock : Clock
    say : callable
        Takes a line of progress.
    still_ours : callable
        Called before each change; raises when somebody else has written the record.
    """

    def __init__(
        self,
        cluster: Cluster,
        release: Release,
        waiter: Waiter,
        clock: Clock,
        say: Say,
        still_ours: Callable[[], None],
    ) -> None:
        self._cluster = cluster
        self._release = release
        self._waiter = waiter
        self._clock = clock
        self._say = say
        self._still_ours = still_ours

    def bring(
        self, record: Record, *, ready: Sequence[Slot] = (), relaxed: bool = False, settled: bool = False
    ) -> Outcome:
        """Bring the objects to a record.

        Parameters
        ----------
        record : Record
        ready : sequence of slots
            Whose pods must all be ready, whatever happens to their traffic.
        relaxed : bool
            Whether one ready pod of a slot is enough when the others don't come.
        settled : bool
            Whether to make sure that the gateway and the front Service's endpoints have followed, changed or not.

        Raises
        ------
        StuckError
            When pods or the gateway don't get ready; no traffic has moved to such pods.
        """
        live = read_live(self._cluster, self._release)
        now, then = seen(self._release, live.service, live.route), wanted(record, self._release)
        ready = tuple(dict.fromkeys([*ready, *then.grown_from(now)]))
        changed = [self._raise(record, ready)]
        for slot in ready:
            self._get_ready(slot, relaxed)
        moved = now != then
        if self._route(then) or (settled and live.route is not None):
            self._waiter.route()
        if self._front(then) or settled:
            self._waiter.front(then.front)
        changed += [self._lower(record, slot) for slot in SLOTS]
        return Outcome(changed=moved or any(changed), moved=moved)

    def bring_pods(self, record: Record, *, ready: Sequence[Slot], relaxed: bool) -> Outcome:
        """Give slots the pods that a record asks for, and leave the traffic where it is; no slot loses a pod.

        Raises
        ------
        StuckError
            When pods of `ready` slots don't get ready; others are not waited for.
        """
        changed = self._raise(record, ready)
        for slot in ready:
            self._get_ready(slot, relaxed)
        return Outcome(changed=changed, moved=False)

    def _raise(self, record: Record, ready: Sequence[Slot]) -> bool:
        """Give slots the pods that they lack; an autoscaler's sleeping slot is woken if it is to be ready."""

        def size(slot: Slot) -> bool:
            deployments = read_live(self._cluster, self._release).deployments
            waking = slot in ready
            if not wanted_replicas(record, self._release, slot, deployments, waking=waking):
                return False
            return self._size(record, slot, lower=False, waking=waking)

        changed = [size(slot) for slot in SLOTS]
        return any(changed)

    def _lower(self, record: Record, slot: Slot) -> bool:
        return self._size(record, slot, lower=True, waking=False)

    def _size(self, record: Record, slot: Slot, *, lower: bool, waking: bool) -> bool:
        def look(live: Live) -> tuple[Object, Change]:
            change = deployment_change(record, self._release, slot, live.deployments, lower=lower, waking=waking)
            return live.deployments[slot], change

        return self._change("Deployment", self._release.slot_name(slot), look)

    def _get_ready(self, slot: Slot, relaxed: bool) -> None:
        try:
            self._waiter.slot(slot, _RELAXED_SECONDS if relaxed else math.inf)
        except StuckError as error:
            deployment = self._cluster.read("Deployment", self._release.slot_name(slot)) or {}
            if not relaxed or not (deployment.get("status") or {}).get("readyReplicas"):
                raise
            self._say(f"  going on with fewer pods: {error}")

    def _route(self, then: Traffic) -> bool:
        wish = then.route
        if wish is None:
            return False

        def look(live: Live) -> tuple[Object, Change]:
            route = live.route
            if route is None:
                raise RolloutError(f"HTTPRoute {self._release.fullname} is gone")
            right = seen(self._release, live.service, route).route == wish
            fields = None if right else rules_fields(self._release, route, wish)
            # Rules are atomic: as long as they are ours, `helm upgrade` meets a conflict when it changes a timeout. The
            # chart takes the weights from the record, so they need no owner to stay.
            return route, Change(fields, (RULES,) if fields or owns(route, RULES) else ())

        return self._change("HTTPRoute", self._release.fullname, look)

    def _front(self, then: Traffic) -> bool:
        def look(live: Live) -> tuple[Object, Change]:
            right = seen(self._release, live.service, None).front == then.front
            return live.service, Change(None if right else selector_fields(self._release, live.service, then.front))

        return self._change("Service", self._release.fullname, look)

    def _change(self, kind: Kind, name: str, look: Callable[[Live], tuple[Object, Change]]) -> bool:
        """Read, decide, write; anew when somebody wrote in between. Return whether there was anything to write."""
        changed = False
        for attempt in range(_ATTEMPTS):
            thing, change = look(read_live(self._cluster, self._release))
            if not change:
                break
            self._still_ours()
            changed = True
            try:
                if change.fields is not None:
                    thing = self._cluster.apply(kind, name, change.fields, version_of(thing))
                if change.given_up:
                    self._cluster.disown(kind, name, without(thing, change.given_up), version_of(thing))
            except ConflictError:
                if attempt == _ATTEMPTS - 1:
                    raise
                self._clock.sleep(_RETRY_SECONDS)
            else:
                break
        return changed
