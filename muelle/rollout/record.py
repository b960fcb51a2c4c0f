"""The record: what is wanted of a release. It is written before anything in the cluster is changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal, cast

from muelle.bundle import fields
from muelle.errors import ManifestError, RecordError

FORMAT_VERSION: Final = 1
#: The key in the ConfigMap's data.
RECORD_KEY: Final = "record.json"

Slot = Literal["a", "b"]
SLOTS: Final[tuple[Slot, Slot]] = ("a", "b")
_KEYS: Final = ("format_version", "stable", "candidate", "weight", "mirror", "header", "replicas", "slots", "since")
_SLOT_KEYS: Final = ("serve", "fetch", "image", "since")


@dataclass(frozen=True)
class SlotRecord:
    """What was put into a slot; an empty text means: as the chart's values say.

    Attributes
    ----------
    serve : str
        The models, ``NAME@VERSION`` separated by commas.
    fetch : str
        Where they come from: lines of ``URL DIGEST``.
    image : str
        The image's reference.
    since : str
        When it was put there, RFC 3339.
    """

    serve: str = ""
    fetch: str = ""
    image: str = ""
    since: str = ""

    def same_content(self, other: SlotRecord | None) -> bool:
        """Whether the other holds the same, whenever it was put there."""
        return other is not None and replace(other, since=self.since) == self


@dataclass(frozen=True)
class Record:
    """What is wanted of a release.

    Attributes
    ----------
    stable : {"a", "b"}
        The slot that answers.
    candidate : {"a", "b"}, optional
        The other slot, while it is being tried.
    weight : int
        The candidate's share of the requests in per cent, 0 to 100.
    mirror : int
        Per cent of the requests that the candidate sees a copy of.
    header : bool
        Whether requests with the testers' header go to the candidate.
    replicas : mapping
        Slot to number of pods. A slot that is not in it has what the chart's values or the autoscaler say.
    slots : mapping
        Slot to what was put into it. The idle slot is in it only when `rollback` may go back to it.
    since : str
        When traffic was last changed, RFC 3339.
    """

    stable: Slot
    candidate: Slot | None = None
    weight: int = 0
    mirror: int = 0
    header: bool = False
    replicas: Mapping[Slot, int] = field(default_factory=dict)
    slots: Mapping[Slot, SlotRecord] = field(default_factory=dict)
    since: str = ""

    @property
    def idle(self) -> Slot:
        """The slot that is not the stable one: the candidate's place."""
        return other(self.stable)

    def gets_requests(self, slot: Slot) -> bool:
        """Whether the slot is sent anything, be it a copy."""
        if slot == self.stable:
            return self.weight < 100
        return slot == self.candidate and (self.weight > 0 or self.mirror > 0 or self.header)

    def to_json(self) -> str:
        """Return the ConfigMap's text."""
        document = {
            "format_version": FORMAT_VERSION,
            "stable": self.stable,
            "candidate": self.candidate,
            "weight": self.weight,
            "mirror": self.mirror,
            "header": self.header,
            "replicas": {slot: self.replicas[slot] for slot in SLOTS if slot in self.replicas},
            "slots": {slot: _slot_json(self.slots[slot]) for slot in SLOTS if slot in self.slots},
            "since": self.since,
        }
        return json.dumps(document, indent=1)

    @classmethod
    def from_json(cls, text: str, where: str) -> Record:
        """Parse the ConfigMap's text.

        Parameters
        ----------
        text : str
            JSON.
        where : str
            What to call it in messages.

        Raises
        ------
        RecordError
            With the place of the fault.
        """
        try:
            return _parse(fields.document(text.encode("utf-8", "surrogatepass"), where), where)
        except ManifestError as error:
            raise RecordError(str(error)) from error


def other(slot: Slot) -> Slot:
    """Return the other slot."""
    return "b" if slot == "a" else "a"


def timestamp(now: datetime) -> str:
    """Return a time as the record has it: UTC, whole seconds."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_timestamp(text: str) -> datetime | None:
    """Return the time, or None for a text that is none: nothing but display and waiting hangs on it."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return None


def _slot_json(slot: SlotRecord) -> dict[str, str]:
    return {"serve": slot.serve, "fetch": slot.fetch, "image": slot.image, "since": slot.since}


def _parse(raw: Any, where: str) -> Record:
    if not isinstance(raw, dict):
        raise ManifestError(f"{where}: expected an object")
    version = fields.integer(raw.get("format_version"), f"{where}.format_version", minimum=1)
    if version != FORMAT_VERSION:
        raise ManifestError(f"{where}.format_version: expected {FORMAT_VERSION}, got {version}: use a newer muelle")
    raw = fields.mapping({"candidate": None} | raw, where, _KEYS)
    stable = _slot(raw["stable"], f"{where}.stable")
    candidate = None if raw["candidate"] is None else _slot(raw["candidate"], f"{where}.candidate")
    record = Record(
        stable=stable,
        candidate=candidate,
        weight=_percent(raw["weight"], f"{where}.weight"),
        mirror=_percent(raw["mirror"], f"{where}.mirror"),
        header=fields.boolean(raw["header"], f"{where}.header"),
        replicas={
            _slot(key, f"{where}.replicas"): fields.integer(count, f"{where}.replicas.{key}")
            for key, count in fields.free_mapping(raw["replicas"], f"{where}.replicas").items()
        },
        slots={
            _slot(key, f"{where}.slots"): _parse_slot(value, f"{where}.slots.{key}")
            for key, value in fields.free_mapping(raw["slots"], f"{where}.slots").items()
        },
        since=fields.text(raw["since"], f"{where}.since", empty=True),
    )
    if candidate == stable:
        raise ManifestError(f"{where}.candidate: slot {stable} is the stable one")
    if candidate is None and (record.weight or record.mirror or record.header):
        raise ManifestError(f"{where}: there is no candidate, so weight and mirror must be 0 and header false")
    return record


def _parse_slot(value: object, where: str) -> SlotRecord:
    raw = fields.mapping(value, where, _SLOT_KEYS)
    return SlotRecord(**{key: fields.text(raw[key], f"{where}.{key}", empty=True) for key in _SLOT_KEYS})


def _slot(value: object, where: str) -> Slot:
    return cast("Slot", fields.choice(value, where, SLOTS))


def _percent(value: object, where: str) -> int:
    number = fields.integer(value, where)
    if number > 100:
        raise ManifestError(f"{where}: expected at most 100, got {number}")
    return number
