"""The record's text: written and read again, and refused when it is not what the format says."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from muelle.errors import RecordError
from muelle.rollout.record import Record, SlotRecord, other, parse_timestamp, timestamp

CANARY = Record(
    stable="a",
    candidate="b",
    weight=10,
    mirror=5,
    header=True,
    replicas={"a": 9, "b": 1},
    slots={
        "a": SlotRecord("iris@1", "", "", "2026-11-21T10:00:00Z"),
        "b": SlotRecord(
            "iris@2", "s3://b/iris/2 sha256:0\ns3://b/linear/1 sha256:1", "muelle:2", "2026-11-21T10:01:00Z"
        ),
    },
    since="2026-11-21T10:05:00Z",
)
DOCUMENT = json.loads(CANARY.to_json())


def test_it_is_the_text_that_the_chart_reads():
    assert DOCUMENT == {
        "format_version": 1,
        "stable": "a",
        "candidate": "b",
        "weight": 10,
        "mirror": 5,
        "header": True,
        "replicas": {"a": 9, "b": 1},
        "slots": {
            "a": {"serve": "iris@1", "fetch": "", "image": "", "since": "2026-11-21T10:00:00Z"},
            "b": {
                "serve": "iris@2",
                "fetch": "s3://b/iris/2 sha256:0\ns3://b/linear/1 sha256:1",
                "image": "muelle:2",
                "since": "2026-11-21T10:01:00Z",
            },
        },
        "since": "2026-11-21T10:05:00Z",
    }


@pytest.mark.parametrize("record", [CANARY, Record("b"), Record("a", replicas={"b": 0}, slots={"b": SlotRecord()})])
def test_it_is_read_as_it_was_written(record):
    assert Record.from_json(record.to_json(), "record") == record


def test_no_candidate_may_be_left_out():
    document = {key: value for key, value in json.loads(Record("a").to_json()).items() if key != "candidate"}
    assert Record.from_json(json.dumps(document), "record").candidate is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "record.format_version: expected 1, got 2: use a newer muelle"),
        ({"format_version": "1"}, "record.format_version: expected an integer"),
        ({"stable": "c"}, "record.stable: expected one of a, b, got 'c'"),
        ({"candidate": "a"}, "record.candidate: slot a is the stable one"),
        ({"candidate": None}, "there is no candidate, so weight and mirror must be 0 and header false"),
        ({"weight": 101}, "record.weight: expected at most 100, got 101"),
        ({"weight": 10.5}, "record.weight: expected an integer of at least 0, got 10.5"),
        ({"mirror": -1}, "record.mirror: expected an integer of at least 0"),
        ({"header": 1}, "record.header: expected true or false, got 1"),
        ({"replicas": {"c": 1}}, "record.replicas: expected one of a, b, got 'c'"),
        ({"replicas": {"a": -1}}, "record.replicas.a: expected an integer of at least 0"),
        ({"slots": {"a": {"serve": "iris@1"}}}, "record.slots.a: missing fetch, image, since"),
        (
            {"slots": {"a": {"serve": 1, "fetch": "", "image": "", "since": ""}}},
            "record.slots.a.serve: expected a string",
        ),
        ({"paused": True}, "record: unknown paused"),
    ],
)
def test_what_it_may_not_be(changes, message):
    with pytest.raises(RecordError) as caught:
        Record.from_json(json.dumps(DOCUMENT | changes), "record")
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"format_version": 1}', '{"weight": 1, "weight": 2}'])
def test_other_texts_are_no_records(text):
    with pytest.raises(RecordError, match="record"):
        Record.from_json(text, "record")


def test_who_gets_requests():
    assert CANARY.gets_requests("a")
    assert CANARY.gets_requests("b")
    assert not Record("a", candidate="b").gets_requests("b")
    assert Record("a", candidate="b", mirror=1).gets_requests("b")
    assert Record("a", candidate="b", header=True).gets_requests("b")
    assert not Record("a", candidate="b", weight=100).gets_requests("a")
    assert not Record("a").gets_requests("b")
    assert (other("a"), Record("b").idle) == ("b", "a")


def test_the_time_a_content_was_put_there_is_no_part_of_it():
    content = SlotRecord("iris@2", since="2026-11-21T10:00:00Z")
    assert content.same_content(SlotRecord("iris@2", since="2027-01-01T00:00:00Z"))
    assert not content.same_content(SlotRecord("iris@3", since="2026-11-21T10:00:00Z"))
    assert not content.same_content(None)


def test_times_are_utc():
    there = datetime(2026, 11, 21, 12, 0, 0, 999, tzinfo=timezone(timedelta(hours=2)))
    assert timestamp(there) == "2026-11-21T10:00:00Z"
    assert parse_timestamp("2026-11-21T10:00:00Z") == datetime(2026, 11, 21, 10, tzinfo=UTC)
    assert parse_timestamp("yesterday") is None
