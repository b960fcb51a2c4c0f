"""Who is sent what: the front Service's selector and the HTTPRoute's rules. Pure."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Final

from muelle.errors import RecordError
from muelle.rollout.cluster import Object, name_of
from muelle.rollout.owned import Path
from muelle.rollout.record import SLOTS, Record, Slot, other
from muelle.rollout.release import COMPONENT, COMPONENT_LABEL, SLOT_LABEL, Release

SELECTOR: Final[Path] = ("f:spec", "f:selector")
RULES: Final[Path] = ("f:spec", "f:rules")
_MIRROR: Final = "RequestMirror"


@dataclass(frozen=True)
class Route:
    """What the HTTPRoute says.

    Attributes
    ----------
    weights : tuple of int
        Of slots a and b.
    testers : {"a", "b"}
        Where requests with the testers' header go.
    copies_to : {"a", "b"}, optional
        Who sees copies.
    copies : int
        Of how many per cent.
    """

    weights: tuple[int, int]
    testers: Slot
    copies_to: Slot | None = None
    copies: int = 0

    def share(self, slot: Slot) -> float:
        """Return a slot's share of the requests without a testers' header, 0 to 1."""
        return self.weights[SLOTS.index(slot)] / (sum(self.weights) or 1)


@dataclass(frozen=True)
class Traffic:
    """Who is sent what.

    Attributes
    ----------
    front : {"a", "b"}, optional
        The slot that the front Service selects; None means both.
    route : Route, optional
        None when the backend isn't the gateway.
    """

    front: Slot | None
    route: Route | None = None

    def grown_from(self, before: Traffic) -> list[Slot]:
        """Return the slots that are sent more than before."""
        return [slot for slot in SLOTS if self._grew(slot, before)]

    def _grew(self, slot: Slot, before: Traffic) -> bool:
        if _front_share(self.front, slot) > _front_share(before.front, slot):
            return True
        if self.route is None or before.route is None:
            return False
        new, old = self.route, before.route
        return (
            new.share(slot) > old.share(slot)
            or (new.testers == slot != old.testers)
            or (new.copies_to == slot and (old.copies_to != slot or new.copies > old.copies))
        )


def wanted(record: Record, release: Release) -> Traffic:
    """Return what the record asks for."""
    stable, candidate = record.stable, record.candidate
    if release.backend != "gateway":
        if 0 < record.weight < 100:
            return Traffic(None)
        return Traffic(record.idle if record.weight else stable)
    weights = {stable: 100 - record.weight, other(stable): record.weight}
    return Traffic(
        # With the gateway the front Service is for callers inside the cluster: they stay with the stable slot.
        front=stable,
        route=Route(
            weights=(weights["a"], weights["b"]),
            testers=candidate if candidate is not None and record.header else stable,
            copies_to=candidate if record.mirror else None,
            copies=record.mirror,
        ),
    )


def seen(release: Release, service: Object, route: Object | None) -> Traffic:
    """Return what the objects in the cluster say.

    Raises
    ------
    RecordError
        When they are not as the chart makes them.
    """
    slot = (service["spec"].get("selector") or {}).get(SLOT_LABEL)
    if slot is not None and slot not in SLOTS:
        raise RecordError(f"Service {name_of(service)}: selector {SLOT_LABEL}: expected a or b, got {slot!r}")
    return Traffic(slot, None if route is None else _seen_route(release, route))


def selector_fields(release: Release, service: Object, front: Slot | None) -> Object:
    """Return what to apply to the front Service, so that it selects a slot or both."""
    selector = {
        key: value
        for key, value in (service["spec"].get("selector") or {}).items()
        if key not in (SLOT_LABEL, COMPONENT_LABEL)
    } | release.labels
    selector |= {COMPONENT_LABEL: COMPONENT} if front is None else {SLOT_LABEL: front}
    # A selector is atomic in server-side apply: all of it, or none.
    return {"spec": {"selector": selector}}


def rules_fields(release: Release, route: Object, wish: Route) -> Object:
    """Return what to apply to the HTTPRoute; everything else in its rules stays."""
    rules = copy.deepcopy(_rules(release, route))
    slots = {release.slot_name(slot): slot for slot in SLOTS}
    for ref in rules[0]["backendRefs"]:
        if ref["name"] in slots:
            ref["name"] = release.slot_name(wish.testers)
    port = None
    for ref in rules[1]["backendRefs"]:
        if ref["name"] in slots:
            ref["weight"] = wish.weights[SLOTS.index(slots[ref["name"]])]
            port = ref.get("port")
    filters = [item for item in rules[1].get("filters") or [] if item.get("type") != _MIRROR]
    if wish.copies_to is not None:
        # Group and kind are the defaults, said as the chart says them.
        ref = {"group": "", "kind": "Service", "name": release.slot_name(wish.copies_to), "port": port}
        filters.append({"type": _MIRROR, "requestMirror": {"backendRef": ref, "percent": wish.copies}})
    rules[1].pop("filters", None)
    if filters:
        rules[1]["filters"] = filters
    # A route's rules are atomic in server-side apply: all of them, or none.
    return {"spec": {"rules": rules}}


def _seen_route(release: Release, route: Object) -> Route:
    testers, rest = _rules(release, route)[:2]
    weights = _weights(release, rest)
    copies_to, copies = None, 0
    for item in rest.get("filters") or []:
        if item.get("type") == _MIRROR:
            mirror = item["requestMirror"]
            copies_to = _slot_of(release, mirror["backendRef"]["name"])
            copies = int(mirror.get("percent", 100))
    (to, _), *_ = _weights(release, testers).items()
    return Route((weights.get("a", 0), weights.get("b", 0)), to, copies_to, copies)


def _rules(release: Release, route: Object) -> list[Any]:
    """Return the rules: first the testers', then everybody else's."""
    rules = route["spec"].get("rules") or []
    where = f"HTTPRoute {name_of(route)}"
    if len(rules) < 2:
        raise RecordError(f"{where}: expected a rule for testers and one for all others, got {len(rules)} rules")
    headers = [header.get("name") for match in rules[0].get("matches") or [] for header in match.get("headers") or []]
    if release.header.lower() not in [str(header).lower() for header in headers]:
        raise RecordError(f"{where}: rules[0]: expected a match on header {release.header}, got {headers or 'none'}")
    if not _weights(release, rules[0]):
        raise RecordError(f"{where}: rules[0].backendRefs: expected the Service of a slot")
    if set(_weights(release, rules[1])) != set(SLOTS):
        raise RecordError(f"{where}: rules[1].backendRefs: expected the Services of both slots")
    return list(rules)


def _weights(release: Release, rule: Any) -> dict[Slot, int]:
    found: dict[Slot, int] = {}
    for ref in rule.get("backendRefs") or []:
        slot = _slot_of(release, ref["name"])
        if slot is not None:
            found[slot] = int(ref.get("weight", 1))
    return found


def _slot_of(release: Release, service: str) -> Slot | None:
    return next((slot for slot in SLOTS if release.slot_name(slot) == service), None)


def _front_share(front: Slot | None, slot: Slot) -> float:
    if front is None:
        return 0.5
    return 1.0 if front == slot else 0.0
