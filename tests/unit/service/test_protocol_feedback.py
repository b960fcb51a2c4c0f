"""``POST /feedback``'s body: what is taken, and where what is wrong with it is said to be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muelle.errors import InputError
from service.protocols.feedback import AHEAD_SECONDS, MOST_CHARACTERS, MOST_LABELS, Label, decode, encode

NOW = 1_800_000_000.0
GOOD: dict[str, Any] = {"request_id": "a-1", "label": 1}


def read(document: Any) -> list[Label]:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return decode(body, lambda: NOW)


def fault(document: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        read(document)
    return caught.value


def test_one_object_is_one_label_of_row_0_that_is_known_now():
    assert read(GOOD) == [Label("a-1", 0, 1, NOW)]


def test_a_list_keeps_its_order():
    labels = read([{**GOOD, "row": row, "label": label} for row, label in enumerate(("yes", True, 2, 0.5))])
    assert [(label.row, label.label) for label in labels] == [(0, "yes"), (1, True), (2, 2), (3, 0.5)]
    assert [type(label.label) for label in labels] == [str, bool, int, float]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-31T12:00:00Z", 1_769_860_800.0),
        ("2026-01-31t12:00:00z", 1_769_860_800.0),
        ("2026-01-31 13:30:00.25+01:30", 1_769_860_800.25),
        ("1970-01-01T00:00:00Z", 0.0),
    ],
)
def test_times_have_a_zone(text, seconds):
    assert read({**GOOD, "observed_at": text})[0].observed_at == seconds


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"request_id": ""}, "request_id"),
        ({"request_id": "x" * 129}, "request_id"),
        ({"request_id": "two words"}, "request_id"),
        ({"request_id": "ñ"}, "request_id"),
        ({"request_id": "a\n"}, "request_id"),
        ({"request_id": 7}, "request_id"),
        ({"request_id": None}, "request_id"),
        ({"row": -1}, "row"),
        ({"row": 2**31}, "row"),
        ({"row": 10**400}, "row"),
        ({"row": 1.5}, "row"),
        ({"row": -1.0}, "row"),
        ({"row": True}, "row"),
        ({"row": "0"}, "row"),
        ({"row": None}, "row"),
        ({"label": None}, "label"),
        ({"label": []}, "label"),
        ({"label": {}}, "label"),
        ({"label": "x" * (MOST_CHARACTERS + 1)}, "label"),
        ({"observed_at": None}, "observed_at"),
        ({"observed_at": NOW}, "observed_at"),
        ({"observed_at": "2026-01-31"}, "observed_at"),
        ({"observed_at": "2026-01-31T12:00:00"}, "observed_at"),
        ({"observed_at": "2026-W05-6T12:00:00Z"}, "observed_at"),
        ({"observed_at": "2026-02-30T12:00:00Z"}, "observed_at"),
        ({"observed_at": "2026-01-31T25:00:00Z"}, "observed_at"),
        ({"observed_at": "2026-01-31T12:00:00+99:59"}, "observed_at"),
        ({"observed_at": "1969-12-31T23:59:59Z"}, "observed_at"),
        ({"observed_at": "0001-01-01T00:00:00+14:00"}, "observed_at"),
        ({"observed_at": "9999-12-31T23:59:59-14:00"}, "observed_at"),
        ({"observed_at": "٢٠٢٦-01-31T12:00:00Z"}, "observed_at"),
    ],
)
def test_what_is_wrong_is_named_by_its_place(changed, where):
    alone = fault({**GOOD, **changed})
    assert (alone.where, alone.code) == (where, "invalid_value")
    assert str(alone).startswith(f"{where}: expected")
    assert fault([GOOD, GOOD, GOOD, {**GOOD, **changed}]).where == f"[3].{where}"


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e400"])
def test_a_label_is_finite(number):
    assert fault(b'{"request_id": "a", "label": ' + number + b"}").code in ("invalid_json", "invalid_value")


def test_whole_numbers_of_more_than_64_bits_are_numbers_like_any_other():
    for number in (2**63 - 1, -(2**63)):
        assert read({**GOOD, "label": number})[0].label == number
    # A time has colons, which sends a body to the parser that keeps all digits.
    for more in ({}, {"observed_at": "2026-01-31T12:00:00Z"}):
        (label,) = read({**GOOD, **more, "label": 10**30})
        assert (label.label, type(label.label)) == (1e30, float)
        assert fault({**GOOD, **more, "label": 10**400}).code in ("invalid_value", "invalid_json")


def test_a_row_is_whole_as_json_sees_it():
    assert read({**GOOD, "row": 2.0})[0] == Label("a-1", 2, 1, NOW)


def test_a_clock_that_is_a_little_ahead_is_forgiven():
    soon, later = "2027-01-15T08:59:59Z", "2027-01-15T09:00:01Z"
    assert read({**GOOD, "observed_at": soon})[0].observed_at == NOW + AHEAD_SECONDS - 1
    assert "a time that has come" in str(fault({**GOOD, "observed_at": later}))


@pytest.mark.parametrize(
    ("document", "code", "where"),
    [
        ([], "invalid_shape", ""),
        ([GOOD] * (MOST_LABELS + 1), "invalid_shape", ""),
        (5, "invalid_shape", ""),
        ("text", "invalid_shape", ""),
        ([GOOD, 5], "invalid_shape", "[1]"),
        ([[GOOD]], "invalid_shape", "[0]"),
        ([GOOD, {"label": 1}], "missing_field", "[1]"),
        ({"request_id": "a"}, "missing_field", ""),
        ({**GOOD, "lable": 1}, "unknown_field", ""),
        (b"", "invalid_json", ""),
        (b'{"request_id": "a"', "invalid_json", ""),
        (b'{"request_id": "a", "label": 1, "label": 2}', "duplicate_name", ""),
        (b'{"request_id": "a", "label": "\\ud800"}', "invalid_json", ""),
    ],
)
def test_a_body_of_another_form_is_refused(document, code, where):
    found = fault(document)
    assert (found.code, found.where) == (code, where)


def test_the_longest_list_is_taken():
    assert len(read([GOOD] * MOST_LABELS)) == MOST_LABELS


@given(
    st.lists(
        st.builds(
            Label,
            st.from_regex(r"[A-Za-z0-9._:/+=@-]{1,128}", fullmatch=True),
            st.integers(0, 2**31 - 1),
            st.booleans()
            | st.integers(-(2**63), 2**63 - 1)
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(max_size=MOST_CHARACTERS),
            st.integers(0, int(NOW)).map(float),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_what_goes_on_to_another_replica_says_the_same(labels):
    again = decode(encode(labels), lambda: NOW)
    assert again == labels
    assert [type(label.label) for label in again] == [type(label.label) for label in labels]
